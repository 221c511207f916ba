"""Faces of the dolls: eyes, brows and mouths, by Danbooru's tags where there is one.

Coordinates are the head's, as for hair.
"""

import numpy as np

from pipeline.dolls.canvas import (
    Part,
    Pen,
    Tone,
    curve,
    ellipse,
    label_of,
    path,
    polygon,
    shape,
    symmetric,
)
from pipeline.dolls.character import Character, Pose
from pipeline.dolls.hair import draw_fringe_shadow

EYES = {"": (0.31, 0.40, 0), "tsurime": (0.33, 0.35, -10), "tareme": (0.32, 0.36, 9)}
"""Half width, half height and slant (degrees) of each shape of eye."""

EYELIDS = {
    "": ("open", "open"),
    "half-closed_eyes": ("half", "half"),
    "closed_eyes": ("closed", "closed"),
    "^_^": ("happy", "happy"),
    "one_eye_closed": ("open", "happy"),
}

BROWS = {
    "": (0.0, 0),
    "raised_eyebrows": (-0.1, -8),
    "v-shaped_eyebrows": (0.06, 18),
    "worried": (-0.02, -20),
}
"""How far down, and how many degrees inwards, the brows are moved."""

_ALL_EYE_TONES = [label_of(Part.EYES, tone) for tone in Tone]


def draw_face(pen: Pen, character: Character, pose: Pose) -> None:
    """Draw ears, face, eyes, nose and mouth, with the shadow of the fringe that comes later."""
    for half in pen.halves():
        ear = half.at(0.95, 0.2, 0.14, 8, 1.6)
        ear.fill(ellipse(0, 0, 1, 1), Part.SKIN)
        ear.shade(ellipse(0, 0, 0.5, 0.6), Part.SKIN)
    outline = "0 -1, .55 -.85, .92 -.3, .94 .2, .81 .58, .5 .86, .16 1.01"
    pen.fill(symmetric(outline), Part.SKIN)
    draw_fringe_shadow(pen, character.fringe)
    width, height, slant = EYES[character.eyes]
    sides = zip(pen.halves(), EYELIDS[pose.eyelids], (-1, 1), strict=True)
    for half, lids, side in sides:
        if pose.blush:
            half.shade(ellipse(0.6, 0.57, 0.19, 0.1), Part.SKIN, tone=Tone.DEEP)
            for x in (0.54, 0.63):
                half.at(x).line(path("0 .53, -.01 .57, -.03 .61"), 0.7)
        eye = half.at(0.45, 0.22, width, slant, height / width)
        if lids in ("open", "half"):
            x, y = pose.gaze
            _draw_open_eye(eye, (x * side, y), side, lid=-2.0 if lids == "open" else -0.3)
        else:
            _draw_closed_eye(eye, lids)
    pen.line(path("0 .5, .035 .545, -.01 .57"), 0.8)
    _draw_mouth(pen.at(0, 0.73), pose.mouth)
    if character.glasses:
        _draw_glasses(pen)


def _draw_open_eye(pen: Pen, gaze: tuple[float, float], side: int, lid: float) -> None:
    """Draw an eye 1 wide and high to each side, its outer corner to the right."""
    upper = np.maximum(
        polygon("-.98 .2, -.75 -.55, -.2 -.98, .4 -.92, .88 -.4, 1.02 .15"), (-2, lid)
    )
    lower = polygon(".86 .66, .35 1, -.3 .98, -.8 .7")
    pen.fill(curve(np.concatenate([upper, lower]), closed=True), Part.WHITE, ink=None)
    pen.shade(ellipse(0, max(lid, -1), 1.2, 0.42), Part.WHITE)
    iris = pen.at(0.24 * gaze[0], 0.05 + 0.18 * gaze[1])
    white = [label_of(Part.WHITE), label_of(Part.WHITE, Tone.SHADE)]
    iris.replace(ellipse(0, 0, 0.7, 0.9), white, Part.EYES, Tone.DEEP)
    iris.shade(ellipse(0, 0, 0.6, 0.8), Part.EYES, Tone.DEEP)
    iris.shade(ellipse(0, 0.42, 0.62, 0.64), Part.EYES, Tone.SHADE, tone=Tone.BASE)
    iris.shade(ellipse(0, 0.55, 0.4, 0.27), Part.EYES, tone=Tone.LIGHT)
    iris.replace(ellipse(0, 0.02, 0.26, 0.34), _ALL_EYE_TONES, Part.EYES, Tone.DEEP)
    light = iris.at(scale=side)  # it falls from the left on both eyes
    light.replace(ellipse(-0.3, -0.4, 0.26, 0.27), _ALL_EYE_TONES, Part.WHITE)
    light.replace(ellipse(0.3, 0.4, 0.13, 0.12), _ALL_EYE_TONES, Part.WHITE)
    top = max(lid, -0.25)
    lash = np.concatenate([upper[:-1], [(1.02, top), (1.2, top + 0.05)]])
    inner = lash * (0.96, 1) + (0, 0.18)
    inner[[0, -1]] = lash[[0, -1]]
    pen.fill(np.concatenate([curve(lash), curve(inner)[::-1]]), Part.INK, ink=0.3)
    pen.line(path("1 -.1, 1.16 -.24, 1.24 -.42"), 1.8, 1, 0.1)
    pen.line(path(".85 .7, .4 1, -.1 1.03"), 0.9)
    if lid < -1:
        pen.line(path("-.6 -1.1, -.1 -1.3, .5 -1.2, .85 -.94"), 0.8)


def _draw_closed_eye(pen: Pen, lids: str) -> None:
    if lids == "happy":
        pen.line(path("-.95 .45, -.5 -.12, .05 -.3, .6 -.1, 1.05 .5"), 3, 0.3, 0.5)
        return
    pen.line(path("-.95 .1, -.5 .42, .1 .5, .7 .34, 1.08 0"), 3, 0.3, 0.5)
    for x, y in ((0.7, 0.4), (0.95, 0.15)):
        pen.at(x, y).line(path("0 0, .1 .12, .22 .2"), 1.6, 1, 0.1)


def draw_brows(pen: Pen, style: str) -> None:
    """Draw the brows, which show through the hair as they do in anime."""
    down, angle = BROWS[style]
    for half in pen.halves():
        half.at(0.46, down - 0.36, 0.25, angle).line(path("-.9 .15, 0 -.12, 1 .12"), 1.5, 0.8, 0.2)


_LIP_LINES = {
    "smile": "-.2 -.02, -.1 .07, 0 .09, .1 .07, .2 -.02",
    ":3": "-.22 -.03, -.13 .08, -.03 .05, 0 -.02, .03 .05, .13 .08, .22 -.03",
    "frown": "-.16 .1, -.05 .02, .05 .02, .16 .1",
    "expressionless": "-.13 .04, 0 .045, .13 .04",
}
_OPEN_MOUTHS = {
    "open_mouth": "-.18 -.06!, 0 -.04, .18 -.06!, .13 .13, 0 .19, -.13 .13",
    ":d": "-.29 -.1!, 0 -.05, .29 -.1!, .21 .16, 0 .27, -.21 .16",
    ":o": "0 -.05, .08 .05, 0 .15, -.08 .05",
}
MOUTHS = (*_LIP_LINES, *_OPEN_MOUTHS)


def _draw_mouth(pen: Pen, style: str) -> None:
    if style in _LIP_LINES:
        pen.line(path(_LIP_LINES[style]), 1.4, 0.5, 0.5)
        return
    pen.fill(shape(_OPEN_MOUTHS[style]), Part.MOUTH)
    if style != ":o":
        pen.shade(ellipse(0, 0.23, 0.16, 0.12), Part.MOUTH, tone=Tone.LIGHT)
    if style == ":d":
        pen.replace(ellipse(0, -0.12, 0.23, 0.1), [label_of(Part.MOUTH)], Part.WHITE)


def _draw_glasses(pen: Pen) -> None:
    for half in pen.halves():
        lens = shape(".1 -.06, .45 -.14, .86 -.04, .84 .48, .45 .62, .12 .5")
        rim = np.concatenate([lens, lens[:1]])
        half.line(rim, 3.4, 1, 1)
        half.line(rim, 1.9, 1, 1, Part.ACCESSORY)
    pen.line(path("-.11 .1, 0 .06, .11 .1"), 2.4, 1, 1)
