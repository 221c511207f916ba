"""Line art for the dolls: a pen draws labels, and a palette turns the labels into colours.

A *label* says which part a pixel shows and in which tone, and nothing about colour. `paint` looks
each label up in a table and averages down to the picture's size. Two palettes on one map of labels
therefore give the same lines to the pixel.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.pictures.image import Picture

Labels = NDArray[np.uint8]
Points = NDArray[np.float64]
Warp = Callable[[Points], Points]

SUPERSAMPLING = 2
"""Label pixels per picture pixel and axis; averaging them smooths the edges."""

_SHIFT = 4  # fractional bits of the coordinates that OpenCV takes
_NUM_STEPS = 6  # straight pieces between two points of a curve
_NUM_TONES = 4


class Part(IntEnum):
    """What a label shows. INK, WHITE and MOUTH are alike in all palettes."""

    PAPER = 0
    INK = 1
    WHITE = 2
    MOUTH = 3
    HAIR = 4
    EYES = 5
    SKIN = 6
    CLOTHES = 7
    ACCENT = 8
    ACCESSORY = 9
    SCENERY = 10


class Tone(IntEnum):
    """How bright a label is within its part; skin's DEEP is the blush."""

    BASE = 0
    SHADE = 1
    LIGHT = 2
    DEEP = 3


def label_of(part: Part, tone: Tone = Tone.BASE) -> int:
    """Return the label of a part in a tone: an index into ``paint``'s colours. Paper is 0."""
    return part * _NUM_TONES + tone


def curve(points: Points, closed: bool = False) -> Points:
    """Return a Catmull-Rom curve through ``points``; a point given twice is a corner.

    Args:
        points: N x 2.
        closed: whether the last point leads back to the first.
    """
    if closed:
        points = np.concatenate([points[-1:], points, points[:2]])
    else:
        points = np.concatenate([points[:1], points, points[-1:]])
    start, stop = points[1:-2], points[2:-1]
    tangents = (points[2:] - points[:-2]) / 2
    pieces = np.stack([start, tangents[:-1], stop, tangents[1:]], axis=1)
    pieces = pieces[(start != stop).any(axis=1)]
    smooth = (_HERMITE @ pieces).reshape(-1, 2)
    return smooth if closed else np.concatenate([smooth, points[-1:]])


def _hermite() -> Points:
    t = np.arange(_NUM_STEPS) / _NUM_STEPS
    basis = [2 * t**3 - 3 * t**2 + 1, t**3 - 2 * t**2 + t, 3 * t**2 - 2 * t**3, t**3 - t**2]
    return np.stack(basis, axis=1)


_HERMITE = _hermite()


@cache
def polygon(text: str) -> Points:
    """Return the points that ``text`` lists as ``"x y, x y, ..."``; ``x y!`` is a corner."""
    points = []
    for item in text.split(","):
        x, y = item.rstrip("!").split()
        points += [(float(x), float(y))] * (2 if item.endswith("!") else 1)
    return _frozen(np.array(points))


@cache
def path(text: str) -> Points:
    """Return the open curve through the points of ``text``, written as for ``polygon``."""
    return _frozen(curve(polygon(text)))


@cache
def shape(text: str) -> Points:
    """Return the closed curve through the points of ``text``, written as for ``polygon``."""
    return _frozen(curve(polygon(text), closed=True))


@cache
def symmetric(text: str) -> Points:
    """Return a closed curve whose right half, from top to bottom, ``text`` gives."""
    right = polygon(text)
    return _frozen(curve(np.concatenate([right, right[::-1] * (-1, 1)]), closed=True))


@cache
def ellipse(x: float, y: float, width: float, height: float) -> Points:
    """Return an ellipse by its centre and radii."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return _frozen(np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], axis=1))


@cache
def arc(width: float, height: float, y: float, degrees: float) -> Points:
    """Return the upper arc of an ellipse around (0, y), ``degrees`` to each side of its top."""
    angle = np.radians(np.linspace(-degrees, degrees, 17))
    return _frozen(np.stack([width * np.sin(angle), y - height * np.cos(angle)], axis=1))


def _frozen(points: Points) -> Points:
    points.flags.writeable = False  # it is cached: nobody may bend it for the next one
    return points


def ribbon(middle: Points, half_width: float | Points) -> tuple[Points, Points]:
    """Return the two edges of a band along a line.

    Args:
        middle: N x 2, the line's points.
        half_width: to each side; one number, or one for each point.
    """
    z = np.ascontiguousarray(middle).view(np.complex128)[:, 0]
    along = np.empty_like(z)
    along[1:-1] = z[2:] - z[:-2]
    along[0], along[-1] = z[1] - z[0], z[-1] - z[-2]
    side = 1j * along * (half_width / np.maximum(np.abs(along), 1e-9))
    edges = (z + side).view(np.float64), (z - side).view(np.float64)
    return edges[0].reshape(-1, 2), edges[1].reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class Pen:
    """Draws outlines and lines into a map of labels.

    Attributes:
        labels: uint8, H x W, drawn into.
        ink: width of a plain line, in label pixels.
        steps: what brings the pen's coordinates to label pixels, innermost first: 3 x 2 affine
            matrices (linear part, then offset) and warps.
    """

    labels: Labels
    ink: float
    steps: tuple[Points | Warp, ...]

    def at(
        self, x: float = 0, y: float = 0, scale: float = 1, angle: float = 0, stretch: float = 1
    ) -> "Pen":
        """Return a pen at (x, y) with a unit of ``scale``, turned clockwise by ``angle`` degrees.

        Args:
            x, y: its origin, in this pen's coordinates.
            scale: its unit; negative mirrors left and right.
            angle: in degrees.
            stretch: height of its unit, as a share of ``abs(scale)``.
        """
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        wide, high = scale, abs(scale) * stretch
        inner = np.array([(wide * cos, wide * sin), (-high * sin, high * cos), (x, y)])
        first, *rest = self.steps
        if callable(first):
            return self._with(inner, *self.steps)
        joined = inner @ first[:2]
        joined[2] += first[2]
        return self._with(joined, *rest)

    def _with(self, *steps: Points | Warp) -> "Pen":
        return Pen(self.labels, self.ink, steps)

    def turned(self, angle: float, y: float) -> "Pen":
        """Return this pen turned clockwise by ``angle`` degrees around (0, y)."""
        return self.at(0, y, angle=angle).at(0, -y)

    def warped(self, warp: Warp) -> "Pen":
        """Return a pen whose coordinates are bent by ``warp`` first."""
        return self._with(warp, *self.steps)

    def halves(self) -> Iterator["Pen"]:
        """Yield a mirrored pen and this one, to draw what lies left and right alike."""
        yield self.at(scale=-1)
        yield self

    def fill(
        self, outline: Points, part: Part, tone: Tone = Tone.BASE, ink: float | None = 1
    ) -> None:
        """Fill a closed outline and draw around it, ``ink`` plain lines wide; None for no line."""
        pixels = self._pixels(outline)
        cv2.fillPoly(self.labels, [pixels], label_of(part, tone), cv2.LINE_8, _SHIFT)
        if ink is not None:
            width, color = max(1, round(self.ink * ink)), label_of(Part.INK)
            cv2.polylines(self.labels, [pixels], True, color, width, cv2.LINE_8, _SHIFT)

    def shade(self, outline: Points, part: Part, *onto: Tone, tone: Tone = Tone.SHADE) -> None:
        """Give ``tone`` to what shows ``part`` inside an outline, in one of ``onto`` (BASE)."""
        self.replace(outline, [label_of(part, old) for old in onto or (Tone.BASE,)], part, tone)

    def replace(self, outline: Points, old: list[int], part: Part, tone: Tone = Tone.BASE) -> None:
        """Inside an outline, replace the labels ``old`` by ``part`` in ``tone``, without a line."""
        pixels = self._pixels(outline)
        left, top, width, height = cv2.boundingRect(pixels >> _SHIFT)
        left, right = max(left, 0), min(left + width + 1, self.labels.shape[1])
        top, bottom = max(top, 0), min(top + height + 1, self.labels.shape[0])
        if left >= right or top >= bottom:
            return
        seen = self.labels[top:bottom, left:right]
        inside = np.zeros(seen.shape, np.uint8)
        pixels -= np.array([left << _SHIFT, top << _SHIFT], np.int32)
        cv2.fillPoly(inside, [pixels], 1, cv2.LINE_8, _SHIFT)
        matches = seen == old[0]
        for label in old[1:]:
            matches |= seen == label
        # Arithmetic modulo 256: several times faster than an assignment under a mask.
        change = label_of(part, tone) - seen
        change *= matches.view(np.uint8) & inside
        seen += change

    def line(
        self,
        middle: Points,
        width: float = 1,
        start: float = 0.15,
        stop: float = 0.15,
        part: Part = Part.INK,
    ) -> None:
        """Draw a line that swells in the middle, as a brush does.

        Args:
            middle: N x 2, its points.
            width: in the middle, in plain lines.
            start, stop: width at the ends, as shares of the middle's.
            part: whose label it gets.
        """
        projected = self._project(middle)
        swell = _swell(len(projected), start, stop)
        one, other = ribbon(projected, swell * (self.ink * width / 2))
        outline = _fixed(np.concatenate([one, other[::-1]]))
        cv2.fillPoly(self.labels, [outline], label_of(part), cv2.LINE_8, _SHIFT)

    def _project(self, points: Points) -> Points:
        for step in self.steps:
            points = step(points) if callable(step) else points @ step[:2] + step[2]
        return points

    def _pixels(self, points: Points) -> NDArray[np.int32]:
        return _fixed(self._project(points))


Draw = Callable[[Pen], None]


@cache
def _swell(num_points: int, start: float, stop: float) -> Points:
    t = np.linspace(0, 1, num_points)
    middle = np.sin(np.pi * t) ** 0.7
    return _frozen(middle + (1 - middle) * (start * (1 - t) + stop * t))


def _fixed(points: Points) -> NDArray[np.int32]:
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


def paint(labels: Labels, colors: NDArray[np.uint8]) -> Picture:
    """Colour a map of labels and average it down to the picture's size.

    Args:
        labels: uint8, H x W, both multiples of SUPERSAMPLING.
        colors: uint8, N x 3, the RGB of each label.

    Returns:
        uint8 RGB, H / SUPERSAMPLING x W / SUPERSAMPLING x 3.
    """
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(colors), 0] = colors
    size = (labels.shape[1] // SUPERSAMPLING, labels.shape[0] // SUPERSAMPLING)
    large = cv2.applyColorMap(labels, table)
    return cast(Picture, cv2.resize(large, size, interpolation=cv2.INTER_AREA))
