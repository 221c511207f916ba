"""Sketches from pictures, by name: picture (uint8 RGB) -> line drawing (uint8 grey).

``dodge`` and ``xdog`` give the same bytes whatever the processor: their blurs are OpenCV's
fixed-point ones, and a curve is looked up in a table.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.pictures.image import Picture
from pipeline.pictures.sketch_onnx import draw_with_model, pin_model
from pipeline.recipe import PrepareSettings, SketchSettings, XdogSettings
from pipeline.settings import Table, convert
from pipeline.words import did_you_mean

Sketch = NDArray[np.uint8]

_WHITE = 2**16 - 1
_CURVE_STEPS = 4096
_HALF = 2.0**15  # added to a sum of 256 x 256 weights, so that cutting it off rounds it
_MAX_FLOATS = 2**20  # pixels that are blurred in floating point, which takes eight bytes a pixel
_CURVE_END = 4.0  # 1 - tanh(4) is under a fifth of a grey level


def dodge(picture: Picture, sigma: float, kernel: int = 0) -> Sketch:
    """Pencil sketch by colour dodge, the article's: grey, invert, Gaussian blur, divide.

    Args:
        picture: uint8, H x W x 3.
        sigma: of the blur in pixels; larger gives broader, darker lines. 0 takes OpenCV's for the
            kernel: 3.5 for 21 pixels.
        kernel: side of the blur's window in pixels, odd; 0 takes all that ``sigma`` reaches: 23
            pixels for 3.5.

    Returns:
        uint8, H x W: 255 on flat areas, dark where a pixel is darker than its surroundings; black
        stays black, areas of it as well.
    """
    grey = cast(Sketch, cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    surroundings = 255 - _blur(255 - grey, sigma, kernel)
    return cast(Sketch, cv2.divide(grey, surroundings, scale=255))


def _blur(grey: Sketch, sigma: float, kernel: int) -> Sketch:
    """Return ``cv2.GaussianBlur`` of a grey picture to the bit, in two fifths of its time.

    OpenCV sums with whole weights, of 256 in all, once along rows and once along columns. All these
    sums are whole numbers up to 2**24, which float32 holds exactly, in whatever order they are
    added; and floating point is what processors are fast at.
    """
    if grey.size > _MAX_FLOATS:
        return cast(Sketch, cv2.GaussianBlur(grey, (kernel, kernel), sigma))
    weights = _whole_weights(sigma, kernel or round(sigma * 6 + 1) | 1)
    sums = cv2.sepFilter2D(grey, cv2.CV_32F, weights, weights, delta=_HALF)
    return np.multiply(sums, np.float32(0.5 / _HALF), out=sums).astype(np.uint8)


@lru_cache(64)
def _whole_weights(sigma: float, kernel: int) -> NDArray[np.float32]:
    """Return the weights, 256 in all, that OpenCV's Gaussian blur of bytes gives to pixels.

    What rounding one of them takes away the next one gets, up to the middle, which has the rest.
    """
    exact = cv2.getGaussianKernel(kernel, sigma, cv2.CV_64F).ravel() * 256
    weights, error = np.zeros(kernel, np.float32), 0.0
    for i in range(kernel // 2):
        wanted = exact[i] + error
        weights[i] = weights[-1 - i] = round(wanted)
        error = wanted - round(wanted)
    weights[kernel // 2] = 256 - weights.sum()
    return weights


def xdog(picture: Picture, settings: XdogSettings) -> Sketch:
    """Ink drawing by the extended difference of Gaussians.

    After Winnemoeller, Kyprianidis and Olsen, "XDoG: an eXtended difference-of-Gaussians
    compendium including advanced image stylization", 2012, equations 5 and 7: the brightness is
    sharpened, ``S = (1 + p) G(sigma) - p G(k sigma)``, and is paper from the threshold on; below
    it is ``1 + tanh(phi (S - threshold))``.

    Returns:
        uint8, H x W: 255 on flat areas that are brighter than the threshold, 0 in the lines.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.uint16) * np.uint16(_WHITE // 255)
    narrow = cv2.GaussianBlur(grey, (0, 0), settings.sigma).astype(np.float32)
    wide = cv2.GaussianBlur(grey, (0, 0), settings.k * settings.sigma).astype(np.float32)
    sharpened = narrow + np.float32(settings.sharpness) * (narrow - wide)
    scale = _CURVE_STEPS / _CURVE_END * settings.steepness / _WHITE
    depth = (np.float32(settings.threshold * _WHITE) - sharpened) * np.float32(scale)
    return cast(Sketch, _falling_curve()[np.clip(depth, 0, _CURVE_STEPS).astype(np.uint16)])


@cache
def _falling_curve() -> NDArray[np.uint8]:
    """Return ``1 - tanh(x)`` from 0 to ``_CURVE_END``, in grey levels."""
    steps = (i * _CURVE_END / _CURVE_STEPS for i in range(_CURVE_STEPS + 1))
    return np.array([round(255 * (1 - math.tanh(x))) for x in steps], np.uint8)


METHODS: dict[str, Callable[[Picture, SketchSettings], Sketch]] = {
    "dodge": lambda picture, settings: dodge(picture, settings.sigma, settings.kernel),
    "onnx": lambda picture, settings: draw_with_model(picture, settings.onnx),
    "xdog": lambda picture, settings: xdog(picture, settings.xdog),
}
"""By the names that a recipe may give as ``prepare.sketch.method``."""

SCALABLE = ("dodge", "xdog")
"""Methods of ``line_drawer``."""


def draw_sketch(picture: Picture, settings: SketchSettings) -> Sketch:
    """Draw the sketch of a picture by the method that the recipe names.

    Raises:
        KeyError: on a name that is not one of ``METHODS``.
    """
    return METHODS[settings.method](picture, settings)


def line_drawer(method: str, prepare: Table) -> Callable[[Picture], Sketch]:
    """Return a function that draws the lines of pictures of any size, in proportion as in samples.

    Args:
        method: ``dodge`` or ``xdog``.
        prepare: the recipe's table of that name, {} for the defaults. Its sketch of that method
            says how, if it has one.

    Raises:
        UserError: on a method that is not known, or needs more than a picture.
    """
    if method not in SCALABLE:
        hint = did_you_mean(method, SCALABLE)
        raise UserError(f"lines cannot be drawn by {method!r}{hint}; known: {', '.join(SCALABLE)}.")
    prepared = convert(prepare, PrepareSettings, "the model's recipe, [prepare]")
    members = prepared.sketch_members.values()
    settings = next((s for s in members if s.method == method), SketchSettings(method=method))

    def draw(picture: Picture) -> Sketch:
        scale = max(picture.shape[:2]) / prepared.size
        return draw_sketch(picture, _scaled(settings, scale))

    return draw


def _scaled(settings: SketchSettings, scale: float) -> SketchSettings:
    """Return how to draw a picture that is ``scale`` times as large."""
    most = 2047 if settings.kernel else 0
    return replace(
        settings,
        sigma=min(settings.sigma * scale, 256),
        kernel=min(int(settings.kernel * scale) | 1, most),
        xdog=replace(settings.xdog, sigma=min(max(settings.xdog.sigma * scale, 0.1), 64)),
    )


def pin_sketches(settings: PrepareSettings) -> PrepareSettings:
    """Return the settings with the SHA-256 of every file that a sketch is drawn with.

    Raises:
        UserError: on a method that is not known, and where a network's file cannot be used.
    """
    return settings.map_sketches(lambda member, sketch: _pin(member, sketch, settings.size))


def _pin(member: str, settings: SketchSettings, size: int) -> SketchSettings:
    if settings.method not in METHODS:
        hint = did_you_mean(settings.method, METHODS)
        raise UserError(
            f"{member}: no sketch method {settings.method!r}{hint}; known: {', '.join(METHODS)}."
        )
    if settings.method != "onnx":
        return settings
    return replace(settings, onnx=pin_model(settings.onnx, size))
