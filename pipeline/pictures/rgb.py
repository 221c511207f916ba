"""Pillow's pictures of any kind -> plain RGB: transparency on white, 16 bits, colour profiles."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, ImageFile


def widen_key(image: ImageFile.ImageFile) -> None:
    """Bring the grey that stands for transparency to 8 bits, as Pillow does with pixels alone.

    To be called before these are loaded: how many bits they had is forgotten then.
    """
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int) and image.tile:
        image.info["transparency"] = key * {"L;2": 85, "L;4": 17}.get(str(image.tile[0].args), 1)


def flatten_alpha(image: Image.Image) -> Image.Image:
    """Lay a picture with transparency over white; others pass, 16-bit grey scaled to 8.

    Grey stays grey, as its colour profile is one of grey.
    """
    key = image.info.get("transparency")  # of a PNG without alpha: the colour that is transparent
    if isinstance(key, tuple) and max(key) > 255:  # of 16 bits; the pixels have the high 8
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.mode.startswith("I"):
        grey = np.asarray(image, dtype=np.float64)
        grey = np.where(grey == key, 65535, grey) / 257.0
        flat = Image.fromarray(grey.round().astype(np.uint8))
    elif "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        white.alpha_composite(rgba)
        flat = white.convert("L" if image.mode in ("L", "LA") else "RGB")
    else:
        return image
    flat.info["icc_profile"] = image.info.get("icc_profile")
    return flat


def to_srgb(image: Image.Image) -> Image.Image:
    """Return a picture as RGB, its colours brought to sRGB where it has another colour profile."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            if not _is_srgb(profile):
                source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
                target = ImageCms.createProfile("sRGB")
                image = image.convert("RGB") if image.mode == "P" else image
                converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a profile that cannot be read, or of another colour space: as browsers do
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(16)  # most pictures have one of a few profiles, and a transformation takes 9 ms to make
def _is_srgb(profile: bytes) -> bool:
    """Whether a profile is sRGB by its name, and leaves grey as it is.

    ``sRGB-elle-V2-g10.icc``, which Krita has, and its like are named after the primaries alone:
    their values are amounts of light.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "srgb" not in ImageCms.getProfileDescription(source).lower():
        return False
    mode = "L" if source.profile.xcolor_space.strip() == "GRAY" else "RGB"
    grey = Image.new(mode, (1, 1), (128,) * len(mode))
    target = ImageCms.createProfile("sRGB")
    shown = ImageCms.profileToProfile(grey, source, target, outputMode="RGB")
    return shown is None or abs(np.asarray(shown).astype(int) - 128).max() < 16
