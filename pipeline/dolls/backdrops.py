"""What is behind a doll, by Danbooru's tags: white paper, a pattern, or a place.

A plain colour is not among them: its sketch is that of white paper, so nothing would say which.

The unit is half the picture's longer side, and the origin its middle.
"""

from collections.abc import Callable, Iterator

import numpy as np

from pipeline.dolls.canvas import Part, Pen, Points, Tone, ellipse, shape
from pipeline.dolls.character import Backdrop

_FAR = 4.0
"""Beyond every edge of the picture, however a pattern is turned, shifted and scaled."""


def draw_backdrop(pen: Pen, backdrop: Backdrop) -> None:
    """Draw what is behind a doll, over the whole picture.

    Raises:
        KeyError: on a kind that ``BACKDROPS`` does not hold.
    """
    BACKDROPS[backdrop.kind](pen, backdrop)


def _leave_white(pen: Pen, backdrop: Backdrop) -> None:
    """Draw nothing: the paper is there."""


def _draw_two_tone(pen: Pen, backdrop: Backdrop) -> None:
    half = pen.at(0, backdrop.shift, angle=backdrop.angle)
    half.fill(_box(-_FAR, 0, _FAR, _FAR), Part.SCENERY, ink=backdrop.ink)


def _draw_stripes(pen: Pen, backdrop: Backdrop) -> None:
    turned = _turned(pen, backdrop)
    for x in np.arange(-_FAR, _FAR, 0.3):
        turned.fill(_box(x, -_FAR, x + 0.15, _FAR), Part.SCENERY, ink=backdrop.ink)


def _draw_checks(pen: Pen, backdrop: Backdrop) -> None:
    for cell in _every_other_cell(_turned(pen, backdrop)):
        cell.fill(_box(-0.1, -0.1, 0.1, 0.1), Part.SCENERY, ink=backdrop.ink)


def _draw_dots(pen: Pen, backdrop: Backdrop) -> None:
    for cell in _every_other_cell(_turned(pen, backdrop)):
        cell.fill(ellipse(0, 0, 0.08, 0.08), Part.SCENERY, ink=backdrop.ink)


def _turned(pen: Pen, backdrop: Backdrop) -> Pen:
    return pen.at(backdrop.shift, backdrop.shift, backdrop.scale, backdrop.angle)


def _every_other_cell(pen: Pen) -> Iterator[Pen]:
    """Yield pens at the middles of what would be a chessboard's white squares, 0.2 a side."""
    for row, y in enumerate(np.arange(-_FAR, _FAR, 0.2)):
        for x in np.arange(-_FAR, _FAR, 0.4) + 0.2 * (row % 2):
            yield pen.at(x, y)


_BLOB = "-.5 -.1, -.2 -.3, .1 -.24, .5 -.3, .6 .05, .3 .3, 0 .2, -.3 .34, -.56 .2"


def _draw_blobs(pen: Pen, backdrop: Backdrop) -> None:
    blobs = (
        (-0.7, -0.7, 0, Tone.BASE, Tone.LIGHT),
        (0.5, -0.4, 77, Tone.LIGHT, Tone.SHADE),
        (-0.5, 0.3, 154, Tone.SHADE, Tone.LIGHT),
        (0.7, 0.7, 231, Tone.BASE, Tone.SHADE),
    )
    for x, y, angle, tone, inner_tone in blobs:
        blob = pen.at(x + backdrop.shift, y, backdrop.scale, backdrop.angle + angle)
        blob.fill(shape(_BLOB), Part.SCENERY, tone, backdrop.ink)
        blob.at(0.1, 0.02, 0.5).fill(shape(_BLOB), Part.PAPER, inner_tone, ink=None)


def _draw_outdoors(pen: Pen, backdrop: Backdrop) -> None:
    for x, y, size in ((-0.55, -0.6, 0.5), (0.6, -0.4, 0.36), (0.1, -0.85, 0.3)):
        cloud = pen.at(x + backdrop.shift, y, size * backdrop.scale)
        cloud.fill(
            shape("-.8 .2!, -.7 -.1, -.4 -.1, -.2 -.4, .2 -.36, .4 -.1, .7 -.06, .8 .2!"),
            Part.WHITE,
            ink=backdrop.ink,
        )
        cloud.shade(_box(-1, 0.08, 1, 0.4), Part.WHITE)
    land = pen.at(backdrop.shift, 0.3 + 0.5 * backdrop.shift)
    far = "-4 -.1, -2 -.3, -1.2 -.1, -.6 -.26, .1 -.04, .7 -.24, 1.5 -.1, 4 -.2, 4 4, -4 4"
    land.fill(shape(far), Part.SCENERY, Tone.SHADE, backdrop.ink)
    near = "-4 .1, -1.4 .2, -.5 .06, .4 .22, 1.2 .1, 4 .2, 4 4, -4 4"
    land.fill(shape(near), Part.SCENERY, Tone.BASE, backdrop.ink)


def _draw_indoors(pen: Pen, backdrop: Backdrop) -> None:
    ground = 0.5 + 0.4 * backdrop.shift
    pen.fill(_box(-_FAR, ground, _FAR, _FAR), Part.SCENERY, Tone.BASE, backdrop.ink)
    pen.fill(_box(-_FAR, ground - 0.09, _FAR, ground), Part.SCENERY, Tone.SHADE, backdrop.ink)
    window = pen.at(0.7 * np.sign(backdrop.angle) + backdrop.shift, -0.3, 0.8 * backdrop.scale)
    window.fill(_box(-0.46, -0.6, 0.46, 0.6), Part.WHITE, ink=backdrop.ink)
    for half in window.halves():
        for top, bottom in ((-0.54, -0.03), (0.03, 0.54)):
            half.fill(_box(0.03, top, 0.4, bottom), Part.PAPER, Tone.LIGHT, backdrop.ink)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


BACKDROPS: dict[str, Callable[[Pen, Backdrop], None]] = {
    "white_background": _leave_white,
    "two-tone_background": _draw_two_tone,
    "striped_background": _draw_stripes,
    "checkered_background": _draw_checks,
    "polka_dot_background": _draw_dots,
    "abstract_background": _draw_blobs,
    "outdoors": _draw_outdoors,
    "indoors": _draw_indoors,
}
