"""A trained model at work on pictures of any size, whatever holds it.

Imports no torch by itself: a checkpoint brings it along, an exported ONNX file goes without.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from model.pictures import (
    NotLineArtError,
    Pixels,
    bring_back,
    fit,
    fit_sketch,
    has_color,
    is_blank,
    is_dark,
    is_line_art,
)
from pipeline.errors import UserError
from pipeline.settings import Table

Answer = Callable[[Pixels, Pixels], Pixels]
"""A sketch, uint8 H x W, and a reference, uint8 H x W x 3 -> a picture, uint8 H x W x 3."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference as a model sees it.

    Attributes:
        name: what to call it.
        pixels: uint8 H x W x 3, at the model's size.
        has_color: whether there is any colour to take.
    """

    name: str
    pixels: Pixels
    has_color: bool


@dataclass(frozen=True, slots=True)
class Painter:
    """A model, ready for use.

    Attributes:
        answer: what it computes, at its own size.
        size: of its pictures, (width, height) in pixels.
        model: its name.
        recipe: the effective recipe of its training pictures, {} where unknown.
    """

    answer: Answer
    size: tuple[int, int]
    model: str
    recipe: Table = field(default_factory=dict)

    @property
    def pad(self) -> bool:
        """Whether pictures keep their proportions and are padded; they are stretched if not."""
        return bool(self.recipe.get("prepare", {}).get("fit") == "pad")

    def look_at(self, reference: Image.Image, name: str) -> Reference:
        """Return a reference as the model sees it."""
        pixels = np.asarray(fit(reference.convert("RGB"), self.size, self.pad))
        return Reference(name, pixels, has_color(reference))

    def paint(self, sketch: Image.Image, reference: Reference) -> Image.Image:
        """Colour a sketch after a reference; RGB of the sketch's size.

        A reference without colour gives a picture without colour, whatever the model would like.
        """
        seen = fit_sketch(sketch, self.size, self.pad)
        answer = self.answer(seen, reference.pixels)
        picture = bring_back(answer, seen, sketch, self.pad)
        return picture if reference.has_color else picture.convert("L").convert("RGB")


def check_sketch(sketch: Image.Image, name: str) -> None:
    """Refuse what nobody would want coloured.

    Raises:
        NotLineArtError: on a picture with colours of its own.
        UserError: on a sketch without lines.
    """
    if is_blank(sketch):
        raise UserError(f"{name}: is blank; there are no lines to colour.")
    if not is_line_art(sketch):
        raise NotLineArtError(f"{name}: is a colour picture, not a sketch.")


def remarks_on(sketch: Image.Image, name: str) -> list[str]:
    """Return what to know about a sketch that may come out badly."""
    if is_dark(sketch):
        return [f"{name}: is mostly dark, and models know dark lines on light paper."]
    return []


def load_painter(path: Path, *, device: str = "auto", style_weights: str = "") -> Painter:
    """Load a trained model for use.

    Args:
        path: a checkpoint (see ``checkpoint.load_checkpoint``), or an .onnx that ``export`` wrote.
        device: see ``device.pick_device``; an ONNX file computes on the CPU.
        style_weights: see ``colorize.load_colorizer``; an ONNX file has them in it.

    Raises:
        UserError: on a file that is none of these, or not usable here.
    """
    if path.suffix.lower() == ".onnx":
        from model.painter_onnx import load_onnx

        if device not in ("auto", "cpu"):
            raise UserError(f"{path}: an ONNX file computes on the CPU, not on {device!r}.")
        return load_onnx(path)
    from model.colorize import as_painter, load_colorizer

    return as_painter(*load_colorizer(path, device=device, style_weights=style_weights))
