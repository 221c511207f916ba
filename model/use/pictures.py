"""Pictures as people have them: opened, judged, and fitted to a model's size.

Knows no network and imports no torch.
"""

from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.disk import check_plain, reason
from pipeline.errors import UserError
from pipeline.pictures.bombs import is_bomb
from pipeline.pictures.rgb import flatten_alpha, to_srgb, widen_key

Pixels = NDArray[np.uint8]
"""H x W grey, or H x W x 3 RGB."""

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "PSD")
"""What is opened. Not all that Pillow knows: for EPS, say, it would start another program."""

MAX_PIXELS = 89_000_000
"""Largest sketch or reference that is opened, by its header; Pillow warns above it."""

MIN_SIDE = 16
"""Pixels; on anything smaller there is nothing to see."""

_THUMBNAIL = (256, 256)
_MAX_INK = 8.0  # how much darker thin lines are made that shrinking has made faint
_DARK = 96  # paper below it is none
_WHITE = 250  # where that much is on 5% of a sketch, its paper needs no whitening


class NotLineArtError(UserError):
    """The picture that was given as a sketch has colours of its own."""


def open_picture(path: Path, name: str = "") -> Image.Image:
    """Open a picture as sRGB: upright by its EXIF, alpha laid over white, of animations one frame.

    Args:
        path: of the file.
        name: what to call it in errors; the path if "".

    Raises:
        UserError: where it is missing, no picture, damaged, too small or too large.
    """
    name = name or str(path)
    try:
        check_plain(path)
        _check_content(name, path)
        with Image.open(path, formats=FORMATS) as image:
            _check_size(name, image)
            widen_key(image)
            return _to_rgb(ImageOps.exif_transpose(image))
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file.") from error
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name}: is not a picture of a known format; save it as PNG, JPEG or WebP."
        ) from error
    except Exception as error:  # damaged files make decoders raise whatever comes to hand
        raise UserError(f"{name}: cannot be read as a picture: {reason(error)}.") from error


def _check_size(name: str, image: Image.Image) -> None:
    size = f"{name}: {image.width} x {image.height} pixels"
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{size} are too many; make it smaller than {MAX_PIXELS:,} in all.")
    if min(image.size) < MIN_SIDE:
        raise UserError(f"{size} are too few; each side has at least {MIN_SIDE}.")


def _check_content(name: str, path: Path) -> None:
    with path.open("rb") as file:
        magic = file.read(3)
        if not magic:
            raise UserError(f"{name}: is empty.")
        if magic in (b"\xff\xd8\xff", b"\x89PN", b"GIF") and is_bomb(magic + file.read()):
            raise UserError(f"{name}: has more scans, chunks or comments than any encoder writes.")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        image = Image.fromarray(_to_bytes(image))
    return to_srgb(flatten_alpha(image))


def _to_bytes(image: Image.Image) -> Pixels:
    """Scale levels of 32 bits, which Pillow would cut off; their range tells what white is."""
    levels = np.asarray(image).astype(np.float32)
    highest = float(levels.max())
    if not highest <= 65535:  # or not a number
        raise ValueError(f"levels up to {highest:g}; save it with 8 or 16 bits")
    if image.mode == "F" and highest <= 1:
        levels *= 255
    elif highest > 255:
        levels /= 257
    return cast(Pixels, levels.round().clip(0, 255).astype(np.uint8))


def has_color(picture: Image.Image) -> bool:
    """Whether over 0.5% of a picture differs from grey by 24 levels between two channels."""
    pixels = _thumbnail(picture)
    return bool((np.ptp(pixels, axis=2) >= 24).mean() > 0.005)


def is_line_art(picture: Image.Image) -> bool:
    """Whether a picture is in one ink on one paper, of whatever colours.

    Then its colours lie on a line through the paper's; over 6% of a coloured picture do not, by 20
    levels. How many real pictures and sketches it tells apart is measured in
    ``tests/test_model_pictures.py``.
    """
    pixels = _thumbnail(picture).reshape(-1, 3)
    offsets = pixels - np.median(pixels, axis=0)
    ink = np.linalg.eigh(offsets.T @ offsets)[1][:, -1]
    across = offsets - np.outer(offsets @ ink, ink)
    return bool((np.linalg.norm(across, axis=1) >= 20).mean() <= 0.06)


def is_blank(picture: Image.Image) -> bool:
    """Whether a picture has no lines: its grey levels are all within 16."""
    return bool(np.ptp(np.asarray(picture.convert("L"))) < 16)


def is_dark(picture: Image.Image) -> bool:
    """Whether most of a picture is dark, as light lines on dark paper are."""
    return bool(np.median(_thumbnail(picture)) < _DARK)


def _thumbnail(picture: Image.Image) -> NDArray[np.float32]:
    small = picture.copy() if picture.width * picture.height < 2**20 else picture.reduce(2)
    small.thumbnail(_THUMBNAIL)
    return np.asarray(small.convert("RGB"), np.float32)


def fit(picture: Image.Image, size: tuple[int, int], pad: bool) -> Image.Image:
    """Bring a picture to (width, height): stretched, or padded with white to keep proportions.

    Of one that would be thinner than a pixel then, a pixel is left.
    """
    left, top, right, bottom = place(picture.size, size, pad)
    resized = picture.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
    paper = Image.new(picture.mode, size, "white")
    paper.paste(resized, (left, top))
    return paper


def place(sides: tuple[int, int], size: tuple[int, int], pad: bool) -> tuple[int, int, int, int]:
    """Return where in (width, height) ``fit`` puts a picture: left, top, right, bottom."""
    width, height = size
    if not pad:
        return 0, 0, width, height
    scale = min(width / sides[0], height / sides[1])
    inner_width, inner_height = (max(1, round(side * scale)) for side in sides)
    left, top = round((width - inner_width) / 2), round((height - inner_height) / 2)
    return left, top, left + inner_width, top + inner_height


def whiten(sketch: Image.Image) -> Image.Image:
    """Return a sketch in grey, its paper white where none of it is, as in scans and photos.

    Dark paper stays as it is.
    """
    grey = sketch.convert("L")
    paper, white = _level(grey, 0.5), _level(grey, 0.95)
    if white >= _WHITE or paper < _DARK:
        return grey
    return grey.point([min(round(level * 255 / paper), 255) for level in range(256)])


def fit_sketch(sketch: Image.Image, size: tuple[int, int], pad: bool) -> Pixels:
    """Bring a sketch to (width, height) in grey, its lines as dark as they were.

    Where a large drawing shrinks, thin lines turn to faint shades of which a model makes nothing.
    What is darker than its surroundings is made darker still; even tones stay as they are.
    """
    grey = sketch.convert("L")
    small = fit(grey, size, pad)
    inside = small.crop(place(grey.size, size, pad))  # there is no ink on the bars
    factor = min(max(_ink(grey) / max(_ink(inside), 1), 1), _MAX_INK)
    levels = np.asarray(small, np.float32)
    depth = np.maximum(cv2.GaussianBlur(levels, (0, 0), 3.0) - levels, 0)
    darker = np.maximum(levels - np.float32(factor - 1) * depth, 0)
    return cast(Pixels, np.rint(darker).astype(np.uint8))


def _ink(grey: Image.Image) -> int:
    """Return how dark, from 0 to 255, the darkest half of a percent is."""
    return 255 - _level(grey, 0.005)


def _level(grey: Image.Image, share: float) -> int:
    """Return the level, from 0 to 255, that a share of a grey picture does not exceed."""
    reached = np.cumsum(grey.histogram())
    return int(np.searchsorted(reached, reached[-1] * share))
