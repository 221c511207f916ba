"""A trained model at work on pictures of any size, whatever holds it.

Imports no torch by itself: a checkpoint brings it along, an exported ONNX file goes without.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from model.config import MAX_GUIDANCE
from model.use.enlarge import resize_to_sketch
from model.use.pictures import (
    NotLineArtError,
    Pixels,
    fit,
    fit_sketch,
    has_color,
    is_blank,
    is_dark,
    is_line_art,
    whiten,
)
from pipeline.errors import UserError
from pipeline.settings import Table

Answer = Callable[[Pixels, Pixels, float], Pixels]
"""A sketch, uint8 H x W, a reference, uint8 H x W x 3, and the guidance (see ``Painter.paint``) ->
a picture, uint8 H x W x 3."""

DrawLines = Callable[[Pixels], Pixels]
"""A picture, uint8 H x W x 3 -> its line drawing, uint8 H x W."""

UNGUIDED = (
    "guidance needs a model that was trained to do without a reference as well, with --set "
    "train.drop_reference=0.1 for instance. Leave it at 1."
)


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
        can_be_guided: whether it learnt to do without a reference as well.
    """

    answer: Answer
    size: tuple[int, int]
    model: str
    recipe: Table = field(default_factory=dict)
    can_be_guided: bool = False

    @property
    def pad(self) -> bool:
        """Whether pictures keep their proportions and are padded; they are stretched if not."""
        return bool(self.recipe.get("prepare", {}).get("fit") == "pad")

    def look_at(self, reference: Image.Image, name: str) -> Reference:
        """Return a reference as the model sees it."""
        pixels = np.asarray(fit(reference.convert("RGB"), self.size, self.pad))
        return Reference(name, pixels, has_color(reference))

    def paint(
        self, sketch: Image.Image, reference: Reference, guidance: float = 1.0
    ) -> Image.Image:
        """Colour a sketch after a reference; RGB of the sketch's size.

        A reference without colour gives a picture without colour, whatever the model would like.

        Args:
            sketch: dark lines on light paper; see ``pictures.whiten``.
            reference: see ``look_at``.
            guidance: how far the reference is followed: 0 colours as without one, 1 as in training,
                and above 1 what the reference changes is exaggerated.

        Raises:
            UserError: on guidance other than 1 for a model that does not know it, or out of range.
        """
        if not 0 <= guidance <= MAX_GUIDANCE:
            raise UserError(f"guidance: {guidance} is not in 0 to {MAX_GUIDANCE:g}.")
        if guidance != 1 and not self.can_be_guided:
            raise UserError(UNGUIDED)
        sketch = whiten(sketch)
        seen = fit_sketch(sketch, self.size, self.pad)
        answer = self.answer(seen, reference.pixels, guidance)
        picture = resize_to_sketch(answer, seen, sketch, self.pad)
        return picture if reference.has_color else picture.convert("L").convert("RGB")


def redraw(picture: Image.Image, draw_lines: DrawLines) -> Image.Image:
    """Return a picture's lines as a sketch."""
    return Image.fromarray(draw_lines(np.asarray(picture.convert("RGB")))).convert("RGB")


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
        return [
            f"{name}: is mostly dark, and models know dark lines on light paper. Invert it if its "
            "lines are light."
        ]
    return []
