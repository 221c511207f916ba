"""A trained model at work: sketch + reference -> picture, as arrays and as files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from model.checkpoint import CheckpointInfo, load_checkpoint, unpack
from model.data import to_bytes, to_unit
from model.device import memory_guard, pick_device
from model.generator import Generator, build_generator
from model.style import StyleNetwork, build_style_network
from pipeline.errors import UserError
from pipeline.rows import replacing

MAX_PIXELS = 89_000_000
"""Largest sketch or reference that is opened, by its header; Pillow warns above it."""


class Colorizer:
    """A generator with its style network, ready for use.

    Attributes:
        generator: on ``device``.
        style_network: on ``device``.
        device: where both compute.
    """

    def __init__(
        self, generator: Generator, style_network: StyleNetwork, device: torch.device
    ) -> None:
        self.generator = generator
        self.style_network = style_network
        self.device = device

    @torch.inference_mode()
    def __call__(self, sketch: Tensor, reference: Tensor) -> Tensor:
        """Colour sketches after references, in evaluation mode.

        Args:
            sketch: uint8 N x 1 x H x W.
            reference: uint8 N x 3 x H' x W', or 1 x 3 x H' x W' for all sketches.

        Returns:
            uint8 N x 3 x H x W, on the CPU.
        """
        was_training = self.generator.training
        self.generator.eval()
        style = self.style_network(to_unit(reference, self.device))
        style = style.expand(len(sketch), *style.shape[1:])
        outputs = self.generator(to_unit(sketch, self.device), style)
        self.generator.train(was_training)
        return to_bytes(outputs.picture).cpu()


def load_colorizer(
    checkpoint: Path, *, device: str = "auto", style_weights: str = ""
) -> tuple[Colorizer, CheckpointInfo]:
    """Build the model that a checkpoint holds.

    Args:
        checkpoint: see ``checkpoint.load_checkpoint``.
        device: see ``device.pick_device``.
        style_weights: where the style network's weights lie now; "" for where they lay at
            training.

    Raises:
        UserError: on an unusable checkpoint, or style weights other than those trained with.
    """
    tensors, info = load_checkpoint(checkpoint)
    target = pick_device(device)
    generator = build_generator(info.model.name, info.model.width_multiplier, info.model.size)
    try:
        generator.load_state_dict(unpack("generator", tensors))
    except RuntimeError as error:
        raise UserError(
            f"{checkpoint}: its tensors are not those of the model {info.model.name!r} at width "
            f"{info.model.width_multiplier}; it was written by other code."
        ) from error
    trained = unpack("style", tensors)
    weights = style_weights or info.model.style_weights
    if trained:  # with the generator, and kept with it
        weights = "random"
    if weights not in ("imagenet", "random") and not Path(weights).is_file():
        raise UserError(
            f"{checkpoint}: was trained with {info.style}, and {weights} is not here. "
            "Give the file with --style-weights PATH."
        )
    style_network = build_style_network(
        generator.style_spec.network,
        normalised=generator.style_spec.normalised,
        weights=weights,
        seed=info.model.style_seed,
    )
    if trained:
        style_network.load_state_dict(trained)
    elif style_network.provenance.sha256 != info.style.sha256:
        raise UserError(
            f"{checkpoint}: was trained with {info.style}; the style weights here are "
            f"{style_network.provenance}. Give the right ones with --style-weights PATH."
        )
    return Colorizer(generator.to(target).eval(), style_network.to(target), target), info


def colorize(
    checkpoint: Path,
    sketch_path: Path,
    reference_path: Path,
    out_path: Path,
    *,
    device: str = "auto",
    style_weights: str = "",
) -> tuple[int, int]:
    """Colour one sketch after one reference; pictures of any size and of any format Pillow reads.

    Both are fitted to the size of the model's training pictures, in the way in which those were
    (stretched, or padded with white), and the output is brought back to the sketch's size.

    Args:
        checkpoint: see ``checkpoint.load_checkpoint``.
        sketch_path: dark lines on light paper; colours are turned to grey.
        reference_path: a coloured picture.
        out_path: where the picture goes; its suffix says in which format.
        device: see ``device.pick_device``.
        style_weights: see ``load_colorizer``.

    Returns:
        Width and height of the picture that was written.

    Raises:
        UserError: on files that are no pictures, an output format that is not known, or an
            unusable checkpoint.
    """
    format_name = Image.registered_extensions().get(out_path.suffix.lower(), "")
    if format_name not in Image.SAVE:
        raise UserError(f"{out_path}: no known picture format; name it .png, .jpg or .webp.")
    sketch, reference = open_picture(sketch_path), open_picture(reference_path)
    colorizer, info = load_colorizer(checkpoint, device=device, style_weights=style_weights)
    pad = info.recipe.get("prepare", {}).get("fit") == "pad"
    height, width = info.size
    with memory_guard("picture", 1):
        picture = colorizer(
            to_tensor(fit(sketch, (width, height), pad).convert("L")),
            to_tensor(fit(reference, (width, height), pad)),
        )
    image = _unfit(Image.fromarray(picture[0].permute(1, 2, 0).numpy()), sketch.size, pad)
    with replacing(out_path) as temporary:
        image.save(temporary, format=format_name)
    return image.size


def open_picture(path: Path) -> Image.Image:
    """Open a picture as RGB: upright by its EXIF, alpha laid over white, of animations one frame.

    Raises:
        UserError: where it is missing, no picture, damaged, or too large.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{path}: {image.width} x {image.height} pixels are too many.")
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                paper = Image.new("RGBA", upright.size, "white")
                return Image.alpha_composite(paper, upright).convert("RGB")
            return upright.convert("RGB")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: is not a picture of a known format.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as a picture: {error}.") from error


def fit(image: Image.Image, size: tuple[int, int], pad: bool) -> Image.Image:
    """Bring a picture to width and height: stretched, or padded with white."""
    if pad:
        return ImageOps.pad(image, size, method=Image.Resampling.LANCZOS, color="white")
    return image.resize(size, Image.Resampling.LANCZOS)


def _unfit(image: Image.Image, size: tuple[int, int], pad: bool) -> Image.Image:
    """Undo ``_fit``: cut off what was padded, and bring to ``size``."""
    if not pad:
        return image.resize(size, Image.Resampling.LANCZOS)
    scale = min(image.width / size[0], image.height / size[1])
    left, top = (image.width - size[0] * scale) / 2, (image.height - size[1] * scale) / 2
    box = (left, top, image.width - left, image.height - top)
    return image.resize(size, Image.Resampling.LANCZOS, box=box)


def to_tensor(image: Image.Image) -> Tensor:
    """Return a picture's pixels, uint8 1 x C x H x W."""
    pixels = np.array(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
