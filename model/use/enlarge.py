"""What a model painted, brought to the size of the sketch: sharp lines, and colours up to them.

Knows no network and imports no torch.
"""

from typing import NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.use.pictures import Pixels, place

Floats = NDArray[np.float32]

_MAX_FILLED = 2**20  # pixels that colours are led along the lines of; beyond it they are enlarged
_STRIP = 2**21  # pixels that are enlarged at once
_SPREAD = 1.0  # standard deviation of the blur within lines, in pixels of the model
_BARRIER = 16.0  # standard deviations that a pixel of black ink counts as
_PASSES = 2
_AROUND = np.ones((3, 3), np.uint8)


class Layers(NamedTuple):
    """Pictures of one size.

    Attributes:
        color: what was painted, H x W x 3 in [0, 255].
        plain: the same without its lines, likewise.
        lines: the sketch that it was painted over, H x W in [0, 255].
    """

    color: Floats
    plain: Floats
    lines: Floats


def resize_to_sketch(answer: Pixels, seen: Pixels, sketch: Image.Image, pad: bool) -> Image.Image:
    """Bring what a model painted to the size of the sketch, with the sketch's own lines.

    The colours are enlarged up to the lines, and by as much as the lines that the model saw are
    darker or lighter than those of the sketch itself, the local colour is made lighter or darker.
    So lines are as sharp as they were drawn, and where nothing was shrunk nothing changes.

    Args:
        answer: uint8 h x w x 3, at the model's size.
        seen: uint8 h x w, the sketch as the model saw it.
        sketch: of any size; memory beyond picture and sketch stays bounded.
        pad: see ``fit``.
    """
    height, width = seen.shape
    left, top, right, bottom = place(sketch.size, (width, height), pad)
    color = answer[top:bottom, left:right].astype(np.float32)
    lines = seen[top:bottom, left:right].astype(np.float32)
    own = sketch.convert("L")
    layers = _fill(Layers(color, _without_lines(color, lines), lines), own)
    images = [Image.fromarray(_to_bytes(layer)) for layer in layers]
    result = Image.new("RGB", sketch.size)
    rows = max(1, _STRIP // sketch.width)
    for start in range(0, sketch.height, rows):
        end = min(start + rows, sketch.height)
        strip = Layers(*(_enlarge(image, sketch.size, start, end) for image in images))
        part = np.asarray(own.crop((0, start, sketch.width, end)), np.float32)
        redrawn = _redraw(strip, part, np.maximum(strip.color, strip.plain))
        result.paste(Image.fromarray(_to_bytes(redrawn)), (0, start))
    return result


def _without_lines(color: Floats, lines: Floats) -> Floats:
    """Return a picture with the colours from beside its lines in place of the lines."""
    light = (lines / 255)[..., None] ** 4
    around = cv2.GaussianBlur(color * light, (0, 0), 2.0)
    weight = cv2.GaussianBlur(np.repeat(light, 3, axis=2), (0, 0), 2.0)
    beside = around / np.maximum(weight, 1e-3)
    return cast(Floats, color * light + beside * (1 - light))


def _fill(layers: Layers, own: Image.Image) -> Layers:
    """Enlarge layers to the size of a sketch, or to ``_MAX_FILLED``, and redraw its lines.

    A pixel of the model lies on both sides of a line that is thinner, and merely enlarged its
    colour would be a haze on either. So every pixel of the sketch gets the mean of those around it
    that no line parts it from, where light ones, which are seldom on a line, count more.
    """
    height, width = layers.lines.shape
    share = min(1.0, (_MAX_FILLED / (own.width * own.height)) ** 0.5)
    size = (max(1, round(own.width * share)), max(1, round(own.height * share)))
    factor = (size[0] * size[1] / (width * height)) ** 0.5
    if factor <= 1:
        return layers
    own_lines: Floats = np.asarray(own.resize(size, Image.Resampling.BICUBIC), np.float32)
    lines = _resize(layers.lines, size)
    light = (lines[..., None] / 255) ** 6 + 1e-3
    rest = layers.color - layers.plain * (layers.lines[..., None] / 255)
    maps = _resize(np.concatenate([layers.plain, rest], axis=2), size, cv2.INTER_CUBIC)
    maps = np.concatenate([maps * light, light], axis=2)
    ink = cast(Floats, 1 - own_lines / 255)
    maps = _blur_within(maps, ink, _SPREAD * (factor - 1))
    plain, rest = np.split(maps[..., :6] / maps[..., 6:], 2, axis=2)
    brightest = _resize(cast(Floats, cv2.dilate(layers.color, _AROUND)), size)
    filled = Layers(rest + plain * (lines[..., None] / 255), plain, lines)
    return Layers(_redraw(filled, own_lines, brightest), plain, own_lines)


def _resize(maps: Floats, size: tuple[int, int], how: int = cv2.INTER_LINEAR) -> Floats:
    """Bring maps, H x W or H x W x C, to ``size`` (width, height)."""
    return cast(Floats, cv2.resize(maps, size, interpolation=how))


def _blur_within(maps: Floats, ink: Floats, sigma: float) -> Floats:
    """Blur maps by the recursive domain transform (Gastal and Oliveira 2011), but not across ink.

    Args:
        maps: H x W x C.
        ink: H x W, 1 where it is black; a way across it is ``_BARRIER * sigma`` longer a pixel.
        sigma: standard deviation in pixels.
    """
    length = 1 + _BARRIER * sigma * ink
    down = (length[1:] + length[:-1]) / 2
    right = ((length[:, 1:] + length[:, :-1]) / 2).T
    for i in range(_PASSES):
        deviation = sigma * 3**0.5 * 2 ** (_PASSES - 1 - i) / (4**_PASSES - 1) ** 0.5
        for steps in (right, down):
            maps = np.ascontiguousarray(maps.transpose(1, 0, 2))
            kept = np.exp(-(2**0.5) / deviation * steps)[..., None]
            for j in range(1, len(maps)):
                maps[j] += kept[j - 1] * (maps[j - 1] - maps[j])
            for j in range(len(maps) - 2, -1, -1):
                maps[j] += kept[j] * (maps[j + 1] - maps[j])
    return maps


def _enlarge(layer: Image.Image, size: tuple[int, int], start: int, end: int) -> Floats:
    """Return the rows from ``start`` to ``end`` of a layer brought to ``size`` (width, height)."""
    step = layer.height / size[1]
    part = (0, start * step, layer.width, min(end * step, layer.height))
    resized = layer.resize((size[0], end - start), Image.Resampling.BICUBIC, box=part)
    return np.asarray(resized, np.float32)


def _redraw(layers: Layers, own: Floats, brightest: Floats) -> Floats:
    """Return the colours with ``own`` lines in place of those of the layers, H x W x 3.

    Nothing gets brighter than ``brightest``: where a model has painted lines over, their places
    would glow.
    """
    color, plain, lines = layers
    moved = color + plain * ((own - lines) / 255)[..., None]
    return np.clip(moved, 0, np.minimum(brightest, 255))


def _to_bytes(levels: Floats) -> Pixels:
    return cast(Pixels, np.rint(levels).clip(0, 255).astype(np.uint8))
