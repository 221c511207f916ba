"""Clothes of the dolls, by Danbooru's tags.

They are in the body's coordinates, where the head's unit and origin are kept: shoulders at y 1.15,
waist at 1.95, soles at 3.4.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from pipeline.dolls.canvas import (
    Draw,
    Part,
    Pen,
    Points,
    Tone,
    curve,
    ellipse,
    label_of,
    path,
    polygon,
    ribbon,
    shape,
    symmetric,
)
from pipeline.dolls.ornaments import draw_blossom, draw_bow


@dataclass(frozen=True, slots=True)
class Outfit:
    """How an outfit is drawn.

    Attributes:
        draw: draws torso and skirt.
        sleeve: part of the sleeves.
        cuff: part of the cuffs.
        long_sleeves: whether they reach the wrists or end above the elbows.
        widths: half widths of a sleeve at shoulder, middle and end.
        draw_back: draws what lies behind the neck.
    """

    draw: Draw
    sleeve: Part
    cuff: Part
    long_sleeves: bool
    widths: tuple[float, float, float]
    draw_back: Draw = lambda pen: None


def _draw_torso(pen: Pen, part: Part, outline: str = "") -> None:
    outline = outline or ".14 1.06!, .44 1.12, .56 1.26, .48 1.5, .42 1.95, .44 2.1!"
    pen.fill(symmetric(outline), part)
    pen.shade(polygon("-.7 1, -.32 1.3, -.27 2.2, -.7 2.2"), part)


def _draw_skirt(
    pen: Pen, part: Part, top: float, length: float, flare: float, num_pleats: int
) -> Points:
    """Draw a pleated skirt; returns its hem from right to left, for a trim."""
    bottom = top + length
    x = np.linspace(1, -1, 13)
    hem = np.stack([flare * x, bottom + 0.05 - 0.11 * x**2], axis=1)
    sides = np.array([(-0.42, top), (0.42, top), (0.62, top + 0.4 * length)])
    pen.fill(np.concatenate([sides, hem, sides[2:] * (-1, 1)]), part)
    for t in np.linspace(-1, 1, num_pleats + 1)[1:-1]:
        upper, lower = (0.4 * t, top + 0.1), (0.97 * flare * t, bottom + 0.05 - 0.11 * t**2)
        pen.shade(np.array([upper, lower, (lower[0] - 0.1, lower[1])]), part)
        pen.line(curve(np.array([upper, (0.6 * t, top + 0.5 * length), lower])), 0.8, 0.1, 1)
    pen.shade(
        np.array([(-1, top - 0.1), (1, top - 0.1), (0.6, top + 0.1), (-0.6, top + 0.1)]), part
    )
    return hem


def _trim(pen: Pen, hem: Points, part: Part) -> None:
    pen.line(hem * (0.97, 1) - (0, 0.1), 2.6, 1, 1, part)


def _draw_sailor(pen: Pen) -> None:
    _draw_torso(pen, Part.WHITE)
    _trim(pen, _draw_skirt(pen, Part.CLOTHES, 1.92, 0.62, 0.86, 7), Part.WHITE)
    for half in pen.halves():
        half.fill(
            polygon(".12 1, .4 1.08, .54 1.24, .4 1.44, 0 1.64, 0 1.5, .14 1.2"), Part.CLOTHES
        )
        half.line(path(".47 1.24, .36 1.38, .05 1.56"), 1.1, 1, 1, Part.WHITE)
    draw_bow(pen.at(0, 1.6, 0.27), Part.ACCENT)


def _draw_hoodie(pen: Pen) -> None:
    _draw_skirt(pen, Part.ACCENT, 2.0, 0.44, 0.68, 5)
    _draw_torso(pen, Part.CLOTHES, ".18 1.04, .48 1.1, .62 1.28, .56 1.6, .58 2.04, .5 2.16!")
    pen.fill(polygon("-.5 2.05, .5 2.05, .49 2.17, -.49 2.17"), Part.CLOTHES, Tone.SHADE)
    pen.fill(polygon("-.22 1.7, .22 1.7, .36 1.98, -.36 1.98"), Part.CLOTHES)
    pen.fill(symmetric("0 1.24, .3 1, .48 1.1, .38 1.36, .12 1.46"), Part.CLOTHES)
    pen.shade(ellipse(0, 1.1, 0.22, 0.22), Part.CLOTHES)
    for half in pen.halves():
        half.line(path(".12 1.36, .16 1.54, .14 1.72"), 2, 1, 1, Part.ACCENT)


def _draw_hood(pen: Pen) -> None:
    pen.fill(ellipse(0, 1.02, 0.68, 0.3), Part.CLOTHES, Tone.SHADE)


def _draw_dress(pen: Pen) -> None:
    _trim(pen, _draw_skirt(pen, Part.CLOTHES, 1.75, 1.0, 0.98, 6), Part.ACCENT)
    _draw_torso(pen, Part.CLOTHES, ".14 1.06!, .44 1.12, .54 1.26, .46 1.5, .42 1.85!")
    pen.fill(symmetric("0 1.06, .24 1.04, .34 1.16, .22 1.28, .06 1.18!"), Part.WHITE)
    pen.fill(polygon("-.43 1.74, .43 1.74, .45 1.9, -.45 1.9"), Part.ACCENT)
    draw_bow(pen.at(0, 1.36, 0.2), Part.ACCENT)


def _draw_blazer(pen: Pen) -> None:
    hem = _draw_skirt(pen, Part.ACCENT, 1.92, 0.62, 0.84, 7)
    pen.line(hem * (0.9, 1) - (0, 0.17), 1, 1, 1, Part.WHITE)
    pen.line(hem * (0.8, 1) - (0, 0.34), 1, 1, 1, Part.WHITE)
    _draw_torso(pen, Part.CLOTHES)
    pen.fill(polygon("-.22 1.06, .22 1.06, .03 1.8, -.03 1.8"), Part.WHITE)
    pen.fill(polygon("-.06 1.18, .06 1.18, .1 1.6, 0 1.74, -.1 1.6"), Part.ACCENT)
    for half in pen.halves():
        half.fill(
            polygon(".14 1.03, .32 1.09, .38 1.36, .25 1.42, .03 1.8, .04 1.64"), Part.CLOTHES
        )
        half.line(path(".24 1.9, .32 1.91, .4 1.9"), 0.9)
    pen.line(path("0 1.8, .01 1.95, 0 2.1"), 0.8)
    for y in (1.86, 2.0):
        pen.fill(ellipse(0.1, y, 0.04, 0.04), Part.ACCESSORY, ink=0.6)


def _draw_overalls(pen: Pen) -> None:
    _draw_torso(pen, Part.WHITE)
    for y in (1.17, 1.33, 1.49, 1.65, 1.81):
        row, stripe = pen.at(0, y), polygon("-.7 0, .7 0, .7 .08, -.7 .08")
        row.replace(stripe, [label_of(Part.WHITE)], Part.ACCENT)
        row.replace(stripe, [label_of(Part.WHITE, Tone.SHADE)], Part.ACCENT, Tone.SHADE)
    _draw_skirt(pen, Part.CLOTHES, 1.82, 0.64, 0.74, 3)
    pen.fill(polygon("-.3 1.5, .3 1.5, .37 1.92, -.37 1.92"), Part.CLOTHES)
    pen.fill(polygon("-.15 1.62, .15 1.62, .12 1.82, -.12 1.82"), Part.CLOTHES, Tone.SHADE)
    for half in pen.halves():
        half.fill(polygon(".17 1.08, .3 1.1, .3 1.54, .17 1.54"), Part.CLOTHES)
        half.fill(ellipse(0.235, 1.54, 0.06, 0.06), Part.ACCESSORY, ink=0.7)


def _draw_kimono(pen: Pen) -> None:
    outline = ".14 1.04!, .44 1.1, .54 1.28, .46 1.8, .54 2.4, .5 2.98!"
    _draw_torso(pen, Part.CLOTHES, outline)
    pen.shade(polygon("-.7 2.1, -.3 2.1, -.3 3.1, -.7 3.1"), Part.CLOTHES)
    pen.line(path(".08 2, .16 2.5, .1 2.96"), 0.9)
    pen.fill(polygon("-.25 1.02, -.12 1.02, .2 1.62, .07 1.66"), Part.WHITE)
    pen.fill(polygon(".25 1.02, .12 1.02, -.18 1.62, -.04 1.66"), Part.WHITE)
    pen.fill(polygon("-.47 1.58, .47 1.58, .46 1.98, -.46 1.98"), Part.ACCENT)
    pen.line(path("-.46 1.78, 0 1.8, .46 1.78"), 1.8, 1, 1, Part.ACCESSORY)
    for x, y in ((0.3, 2.3), (-0.28, 2.56), (0.32, 2.76), (-0.1, 2.18), (0.3, 1.4)):
        draw_blossom(pen.at(x, y, 0.4), Part.ACCENT, None)


def _draw_sweater(pen: Pen) -> None:
    _draw_skirt(pen, Part.ACCENT, 1.92, 0.6, 0.82, 6)
    _draw_torso(pen, Part.CLOTHES, ".14 1.06!, .46 1.12, .58 1.28, .5 1.5, .5 1.9, .46 2.1!")
    pen.fill(symmetric("0 .92, .22 .95, .26 1.12, .1 1.2"), Part.CLOTHES)
    for x in (-0.2, 0, 0.2):
        pen.at(x).line(path("0 1.28, .05 1.4, 0 1.52, .05 1.64, 0 1.76, .05 1.88"), 0.8)
    pen.fill(polygon("-.47 1.96, .47 1.96, .46 2.1, -.46 2.1"), Part.CLOTHES, Tone.SHADE)


def _draw_maid(pen: Pen) -> None:
    _trim(pen, _draw_skirt(pen, Part.CLOTHES, 1.75, 0.95, 0.98, 7), Part.WHITE)
    _draw_torso(pen, Part.CLOTHES, ".14 1.06!, .44 1.12, .54 1.26, .46 1.5, .42 1.85!")
    pen.fill(symmetric(".1 1.86, .36 1.86, .52 2.3, .38 2.52, .1 2.6"), Part.WHITE)
    pen.fill(polygon("-.28 1.3, .28 1.3, .32 1.86, -.32 1.86"), Part.WHITE)
    pen.shade(polygon("-.6 1.2, -.18 1.3, -.24 2.7, -.7 2.7"), Part.WHITE)
    for half in pen.halves():
        half.fill(shape(".24 1.08, .5 1.08, .64 1.28, .48 1.5, .28 1.76"), Part.WHITE)
    pen.fill(polygon("-.42 1.78, .42 1.78, .43 1.91, -.43 1.91"), Part.WHITE, Tone.SHADE)
    draw_bow(pen.at(0, 1.22, 0.22), Part.ACCENT)


def _draw_cape(pen: Pen) -> None:
    _trim(pen, _draw_skirt(pen, Part.ACCENT, 1.8, 0.75, 0.86, 6), Part.WHITE)
    _draw_torso(pen, Part.WHITE)
    for y in (1.62, 1.84):
        pen.fill(ellipse(0, y, 0.05, 0.05), Part.ACCESSORY, ink=0.7)
    pen.fill(symmetric("0 1.04, .3 1.02, .6 1.2, .84 1.66!, .4 1.62, .05 1.36!"), Part.CLOTHES)
    pen.shade(polygon("-1 1, -.42 1.1, -.5 1.8, -1 1.8"), Part.CLOTHES)
    draw_bow(pen.at(0, 1.2, 0.22), Part.ACCESSORY)


OUTFITS: dict[str, Outfit] = {
    "serafuku": Outfit(_draw_sailor, Part.WHITE, Part.CLOTHES, False, (0.15, 0.19, 0.2)),
    "hoodie": Outfit(_draw_hoodie, Part.CLOTHES, Part.ACCENT, True, (0.16, 0.19, 0.18), _draw_hood),
    "dress": Outfit(_draw_dress, Part.CLOTHES, Part.ACCENT, False, (0.14, 0.25, 0.15)),
    "blazer": Outfit(_draw_blazer, Part.CLOTHES, Part.WHITE, True, (0.15, 0.16, 0.15)),
    "overalls": Outfit(_draw_overalls, Part.ACCENT, Part.WHITE, False, (0.14, 0.17, 0.18)),
    "kimono": Outfit(_draw_kimono, Part.CLOTHES, Part.WHITE, True, (0.15, 0.2, 0.3)),
    "sweater": Outfit(_draw_sweater, Part.CLOTHES, Part.ACCENT, True, (0.15, 0.18, 0.19)),
    "maid": Outfit(_draw_maid, Part.CLOTHES, Part.WHITE, False, (0.14, 0.26, 0.15)),
    "capelet": Outfit(_draw_cape, Part.WHITE, Part.CLOTHES, True, (0.14, 0.16, 0.17)),
}


def draw_limb(pen: Pen, middle: Points, half_widths: tuple[float, ...], part: Part) -> Points:
    """Draw an arm, a leg or a sleeve along ``middle``, shaded on one side; returns its outline."""
    widths = _limb_widths(len(middle), half_widths)
    one, other = ribbon(middle, widths)
    outline = np.concatenate([one, other[::-1]])
    pen.fill(outline, part)
    pen.shade(np.concatenate([other, ribbon(middle, widths * 0.3)[1][::-1]]), part)
    return outline


@cache
def _limb_widths(num_points: int, half_widths: tuple[float, ...]) -> Points:
    along = np.linspace(0, 1, num_points)
    return np.interp(along, np.linspace(0, 1, len(half_widths)), half_widths)
