"""Hair of the dolls: what hangs behind the body, and what frames the face.

Coordinates are the head's: x to the right, y down, the face 0.93 wide to each side, the chin at
(0, 1), the top of the skull at (0, -1). Styles go by Danbooru's tags.
"""

from functools import cache
from itertools import pairwise

import numpy as np

from pipeline.dolls.canvas import (
    Draw,
    Part,
    Pen,
    Points,
    Tone,
    Warp,
    arc,
    curve,
    ellipse,
    path,
    polygon,
    ribbon,
    shape,
    symmetric,
)
from pipeline.dolls.character import Character

_SKULL = "0 -1.22, .66 -1.05, 1.08 -.52, 1.15 .1, "


def sway(wind: float) -> Warp:
    """Return the warp by which a wind of -1 to 1 blows hair, the more the further down it hangs."""

    def blow(points: Points) -> Points:
        hang = np.maximum(points[:, 1] + 0.2, 0)
        return points + np.stack([0.18 * wind * hang**1.5, -0.04 * abs(wind) * hang], axis=1)

    return blow


def _hanging(outline: str, *strands: str) -> Draw:
    """Return what draws hair by the right halves of its outline and of the strands in it."""

    def draw(pen: Pen) -> None:
        pen.fill(symmetric(outline), Part.HAIR)
        for half in pen.halves():
            for strand in strands:
                half.line(path(strand), 0.8)

    return draw


_short = _hanging(_SKULL + "1.16 .5, 1.08 .92!, .86 .7!, .7 1.04!, .5 .8!, .3 1.02!, .15 .85, 0 .9")


def _tail(pen: Pen, middle: Points, half_width: float) -> None:
    """Draw a hanging tail along a middle line, fullest near its root and pointed at its end."""
    t = np.linspace(0, 1, len(middle))
    fullness = half_width * (0.3 + 0.7 * np.sin(np.pi * np.minimum(t + 0.15, 1)) ** 0.8)
    fullness *= 1 - t**6
    one, other = ribbon(middle, fullness)
    pen.fill(np.concatenate([one, other[::-1]]), Part.HAIR)
    inner, _ = ribbon(middle, fullness * 0.4)
    pen.shade(np.concatenate([one, inner[::-1]]), Part.HAIR)
    for share in (-0.5, 0.05, 0.55):
        strand, _ = ribbon(middle, fullness * share)
        pen.line(strand[3:-3], 0.8)


def _twintails(pen: Pen) -> None:
    _short(pen)
    for half in pen.halves():
        _tail(half, path(".94 -.66, 1.42 -.62, 1.66 .2, 1.54 1.1, 1.78 2"), 0.38)
        half.fill(ellipse(1, -0.68, 0.13, 0.17), Part.ACCESSORY)


def _low_twintails(pen: Pen) -> None:
    _short(pen)
    for half in pen.halves():
        _tail(half, path(".86 .62, 1.2 .92, 1.26 1.5, 1.1 2.15"), 0.28)
        half.fill(ellipse(0.96, 0.72, 0.13, 0.11), Part.ACCESSORY)


def _ponytail(pen: Pen) -> None:
    _tail(pen, path(".3 -1.1, 1.02 -1.4, 1.6 -.7, 1.5 .5, 1.74 1.5"), 0.42)
    _short(pen)
    pen.fill(ellipse(0.54, -1.2, 0.16, 0.15), Part.ACCESSORY)


def _side_ponytail(pen: Pen) -> None:
    _short(pen)
    _tail(pen, path(".98 -.3, 1.42 -.14, 1.56 .7, 1.34 1.7"), 0.38)
    pen.fill(ellipse(1.08, -0.26, 0.14, 0.17), Part.ACCESSORY)


def _double_bun(pen: Pen) -> None:
    for half in pen.halves():
        bun = half.at(0.84, -1.02, 0.42)
        bun.fill(ellipse(0, 0, 1, 1), Part.HAIR)
        bun.shade(ellipse(-0.3, 0.5, 0.95, 0.75), Part.HAIR)
        bun.line(path("-.6 -.5, .2 -.6, .6 0, .3 .5, -.2 .2"), 0.9)
    _short(pen)


def _drill_hair(pen: Pen) -> None:
    _short(pen)
    for half in pen.halves():
        for i in range(6):
            coil = half.at(1.24 + 0.04 * i, 0.15 + 0.33 * i, 0.37 * (1 - 0.11 * i), -14, 0.75)
            coil.fill(ellipse(0, 0, 1, 1), Part.HAIR)
            coil.shade(ellipse(-0.3, 0.55, 1, 0.75), Part.HAIR)
        half.fill(ellipse(1.1, -0.2, 0.18, 0.14), Part.ACCESSORY)


def _twin_braids(pen: Pen) -> None:
    _short(pen)
    for half in pen.halves():
        for i in range(5):
            knot = half.at(1 + 0.03 * i, 0.85 + 0.3 * i, 0.23)
            knot.fill(shape("-.9 -.6, 0 -.4, .9 -.6, .85 .3, 0 1, -.85 .3"), Part.HAIR)
            knot.shade(ellipse(-0.6, 0.3, 0.6, 0.9), Part.HAIR)
        half.fill(shape(".96 2.25, 1.3 2.25, 1.36 2.5, 1.16 2.72!, .98 2.5"), Part.HAIR)
        half.fill(ellipse(1.14, 2.27, 0.18, 0.08), Part.ACCESSORY)


HAIR: dict[str, Draw] = {
    "short_hair": _short,
    "bob_cut": _hanging(
        _SKULL + "1.26 .55, 1.22 .95, 1 1.16!, .6 1.14, 0 1.1", ".98 .3, 1.08 .7, .98 1.06"
    ),
    "long_hair": _hanging(
        _SKULL + "1.24 1.2, 1.32 2.3!, 1.04 2!, .84 2.48!, .56 2.08!, .3 2.5!, .14 2.2, 0 2.3",
        ".98 .7, 1.12 1.4, 1.1 2.1",
        ".68 1, .8 1.6, .72 2.2",
    ),
    "hime_cut": _hanging(
        _SKULL + "1.17 1.2, 1.2 2.4!, .6 2.46, 0 2.48",
        ".98 .8, 1 1.6, 1 2.36",
        ".7 1, .72 1.7, .7 2.4",
    ),
    "wavy_hair": _hanging(
        _SKULL + "1.2 .5, 1.44 .92, 1.24 1.3, 1.54 1.74, 1.36 2.1, 1.4 2.34!, 1.04 2.18, "
        ".74 2.42!, .4 2.24, 0 2.36",
        ".98 .6, 1.2 1, 1.02 1.4, 1.26 1.8, 1.2 2.1",
        ".7 1, .86 1.3, .72 1.7, .88 2.1",
    ),
    "spiked_hair": _hanging(
        "0 -1.5!, .2 -1.14!, .66 -1.44!, .7 -1.04!, 1.22 -1!, 1.08 -.56!, 1.54 -.26!, "
        "1.18 0!, 1.46 .44!, 1.08 .4!, 1.2 .96!, .84 .74!, .68 1.12!, .4 .9!"
    ),
    "twintails": _twintails,
    "low_twintails": _low_twintails,
    "ponytail": _ponytail,
    "side_ponytail": _side_ponytail,
    "double_bun": _double_bun,
    "drill_hair": _drill_hair,
    "twin_braids": _twin_braids,
}

FRINGES: dict[str, str] = {
    "blunt_bangs": "-.8 .06, -.54 -.06, -.48 .06, -.2 -.04, -.14 .07, .18 -.04, .22 .06, "
    ".5 -.06, .56 .06, .78 -.04",
    "bangs": "-.74 .26, -.56 -.22, -.32 .14, -.16 -.28, .06 .08, .22 -.24, .46 .15, .58 -.2, "
    ".78 .26, .84 -.05",
    "swept_bangs": "-.84 .42, -.66 -.12, -.5 .26, -.28 -.3, -.06 .14, .1 -.5, .48 -.06, "
    ".62 -.4, .86 .22, .9 -.1",
    "parted_bangs": "-.86 .48, -.72 -.08, -.5 .2, 0 -.92, .5 .2, .72 -.08, .86 .48, .92 0",
    "hair_between_eyes": "-.8 .24, -.58 -.28, -.38 .06, -.2 -.36, 0 .48, .16 -.36, .36 .06, "
    ".58 -.28, .78 .24, .84 -.05",
    "hair_over_one_eye": "-.92 .95, -.62 .4, -.46 .84, -.1 -.02, 0 .28, .16 -.44, .5 0, "
    ".62 -.34, .86 .25, .9 -.1",
    "crossed_bangs": "-.82 .34, -.62 -.34, -.44 -.06, -.34 -.56, .2 .28, .24 -.4, .48 .14, "
    ".62 -.26, .84 .3, .88 -.05",
}
"""Lower edge of each fringe from the left temple to the right: tip, valley, tip, valley."""

SIDELOCKS: dict[str, str] = {
    "": "",
    "sidelocks": ".74 -.3, 1.06 -.4, 1.14 .2, 1.08 .6, .84 .92!, .9 .5, .84 .2",
    "long_sidelocks": ".74 -.3, 1.06 -.4, 1.15 .25, 1.12 1, .86 1.52!, .9 .95, .84 .25",
}


@cache
def _lower_edge(fringe: str) -> Points:
    """Return a fringe's lower edge: each lock a leaf, its sides bulging and its tip sharp."""
    corners = np.concatenate([[(-1.02, 0.12)], polygon(FRINGES[fringe]), [(1.02, 0.12)]])
    points = [corners[:1]]
    for i, (a, b) in enumerate(pairwise(corners)):
        length = np.hypot(*(b - a))
        at = 0.55 if i % 2 == 0 else 0.45
        bulge = (-0.1 if i % 2 == 0 else 0.1) * length
        points += [(a + (b - a) * at + (bulge, 0.03 * length))[None], b[None], b[None]]
    return curve(np.concatenate(points[:-1]))


def draw_back_hair(pen: Pen, style: str) -> None:
    """Draw what hangs behind the face and the body, darker where the head shades it."""
    HAIR[style](pen)
    pen.shade(ellipse(0, 0.95, 0.78, 0.95), Part.HAIR)


def draw_fringe_shadow(pen: Pen, fringe: str) -> None:
    """Draw the shadow that a fringe throws on the bare face; the eyes come after it."""
    outline = np.concatenate([_lower_edge(fringe), [(1.1, -1.1), (-1.1, -1.1)]])
    pen.at(0.03, 0.11).shade(outline, Part.SKIN)


def draw_front_hair(pen: Pen, character: Character, wind: float) -> None:
    """Draw what frames the face: side locks, the fringe with its gloss, a loose strand on top."""
    if character.sidelocks:
        for half in pen.warped(sway(wind)).halves():
            half.fill(shape(SIDELOCKS[character.sidelocks]), Part.HAIR)
            half.line(path(".97 .1, 1.02 .4, .96 .7"), 0.7)
    edge = _lower_edge(character.fringe)
    pen.fill(np.concatenate([edge, arc(1.12, 1.18, -0.04, 82)[::-1]]), Part.HAIR)
    pen.shade(_gloss(), Part.HAIR, tone=Tone.LIGHT)
    for x, y in polygon(FRINGES[character.fringe])[1:-1:2]:
        strand = np.array([(x, y - 0.02), (0.94 * x, y - 0.2), (0.74 * x, 0.5 * y - 0.5)])
        pen.line(curve(strand), 0.9, start=1, stop=0)
    pen.line(path(".02 -1.2, -.06 -1, -.05 -.84"), 0.8)
    pen.line(path(".02 -1.2, .2 -1.04, .28 -.88"), 0.7)
    tips = np.concatenate([np.add(edge, (0, 0.05)), np.add(edge, (0, -0.12))[::-1]])
    pen.shade(tips, Part.HAIR)
    if character.ahoge:
        hook = shape("-.04 -1.2!, -.16 -1.5, .18 -1.72, .52 -1.5!, .22 -1.52, .1 -1.2!")
        pen.fill(hook, Part.HAIR)


@cache
def _gloss() -> Points:
    """Return the band of light around the crown, jagged below."""
    x = np.linspace(-0.88, 0.88, 21)
    upper = np.stack([x, 0.2 * x**2 - 0.68], axis=1)
    depth = np.where(np.arange(21) % 2, 0.22, 0.09) * (1 - (x / 0.98) ** 4)
    lower = upper + np.stack([np.zeros(21), depth], axis=1)
    return np.concatenate([upper, lower[::-1]])
