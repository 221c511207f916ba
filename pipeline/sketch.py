"""Sketches from pictures, by name: picture (uint8 RGB) -> line drawing (uint8 grey)."""

from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.image import Picture
from pipeline.recipe import SketchSettings

Sketch = NDArray[np.uint8]


def dodge(picture: Picture, sigma: float) -> Sketch:
    """Pencil sketch by colour dodge, the article's: grey, invert, Gaussian blur, divide.

    Args:
        picture: uint8, H x W x 3.
        sigma: of the blur in pixels; larger gives broader, darker lines.

    Returns:
        uint8, H x W: 255 on flat areas, dark where a pixel is darker than its surroundings.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    surroundings = 255 - cv2.GaussianBlur(255 - grey, (0, 0), sigma)
    return cast(Sketch, cv2.divide(grey, surroundings, scale=255))


_METHODS: dict[str, Callable[[Picture, SketchSettings], Sketch]] = {
    "dodge": lambda picture, settings: dodge(picture, settings.sigma),
}


def sketch_names() -> list[str]:
    """Return the names that a recipe may give as ``prepare.sketch.method``."""
    return sorted(_METHODS)


def draw_sketch(picture: Picture, settings: SketchSettings) -> Sketch:
    """Draw the sketch of a picture by the method that the recipe names.

    Raises:
        KeyError: on a name that ``sketch_names`` does not hold.
    """
    return _METHODS[settings.method](picture, settings)
