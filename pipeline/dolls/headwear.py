"""Headwear of the dolls, by Danbooru's tags: on the head's unit and origin."""

import numpy as np

from pipeline.dolls.canvas import Draw, Part, Pen, Tone, arc, ellipse, path, polygon, shape
from pipeline.dolls.ornaments import draw_blossom, draw_bow


def _draw_beret(pen: Pen) -> None:
    crown = "-1 -.66, -1.16 -1, -.7 -1.5, .2 -1.6, 1 -1.28, 1.1 -.84, .84 -.66, 0 -.88"
    pen.fill(shape(crown), Part.ACCESSORY)
    pen.shade(shape("-1.3 -.6, -1 -.9, 0 -1.1, 1 -1.06, 1.3 -.8, 0 -.6"), Part.ACCESSORY)
    pen.line(path("-.1 -1.6, -.1 -1.7, -.16 -1.8"), 3, 1, 1)


def _draw_cat_ears(pen: Pen) -> None:
    for half in pen.halves():
        half.fill(shape(".26 -1.12!, .52 -1.5, .84 -1.76!, 1 -1.2, 1.02 -.66!"), Part.HAIR)
        inner = shape(".46 -1.14!, .6 -1.34, .78 -1.52!, .86 -1.2, .88 -.84!")
        half.fill(inner, Part.SKIN, Tone.DEEP, ink=None)


def _draw_hairband(pen: Pen) -> None:
    band = np.concatenate([arc(1.15, 1.21, -0.04, 76), arc(1.03, 0.98, -0.04, 76)[::-1]])
    pen.fill(band, Part.ACCESSORY)


def _draw_headdress(pen: Pen) -> None:
    _draw_hairband(pen)
    for x, y in arc(1.12, 1.2, -0.06, 64)[::2]:
        pen.at(x, y).fill(ellipse(0, 0, 0.18, 0.16), Part.WHITE)


def _draw_witch_hat(pen: Pen) -> None:
    cone = shape("-.86 -.78!, -.52 -1.3, -.1 -1.72, .4 -1.84!, .34 -1.5, .58 -1.14, .86 -.78!")
    pen.fill(cone, Part.ACCESSORY)
    pen.shade(polygon(".1 -2.2, .2 -.8, 1 -.8, .5 -2.2"), Part.ACCESSORY)
    pen.line(path("-.72 -1, 0 -1.1, .72 -1"), 6, 1, 1, Part.ACCENT)
    brim = "-1.5 -.6!, -.9 -.86, 0 -.94, .9 -.86, 1.5 -.6!, .8 -.58, 0 -.64, -.8 -.58"
    pen.fill(shape(brim), Part.ACCESSORY)


def _draw_headphones(pen: Pen) -> None:
    pen.line(arc(1.2, 1.3, -0.02, 84), 5, 1, 1)
    pen.line(arc(1.2, 1.3, -0.02, 84), 3, 1, 1, Part.ACCESSORY)
    for half in pen.halves():
        half.fill(ellipse(1.1, 0.15, 0.2, 0.32), Part.ACCESSORY)
        half.fill(ellipse(1.14, 0.15, 0.11, 0.2), Part.ACCENT)


def _draw_crown(pen: Pen) -> None:
    outline = "-.42 -1.06, -.5 -1.5, -.24 -1.28, 0 -1.62, .24 -1.28, .5 -1.5, .42 -1.06, 0 -.98"
    pen.fill(polygon(outline), Part.ACCESSORY)
    pen.shade(polygon("0 -1.7, .6 -1.6, .5 -1, .1 -.9"), Part.ACCESSORY)
    for x in (-0.24, 0, 0.24):
        pen.fill(ellipse(x, -1.14, 0.06, 0.06), Part.ACCENT, ink=0.7)


def _draw_hairclips(pen: Pen) -> None:
    for x in (0, 0.14):
        clip = path(".48 -.5, .6 -.36, .72 -.22")
        pen.at(x).line(clip, 4.4, 1, 1)
        pen.at(x).line(clip, 2.4, 1, 1, Part.ACCESSORY)


HEADWEAR: dict[str, Draw] = {
    "": lambda pen: None,
    "beret": _draw_beret,
    "cat_ears": _draw_cat_ears,
    "hair_bow": lambda pen: draw_bow(pen.at(0, -1.18, 0.56), Part.ACCESSORY),
    "hair_ribbon": lambda pen: draw_bow(pen.at(0.78, -0.76, 0.38), Part.ACCESSORY),
    "hairband": _draw_hairband,
    "maid_headdress": _draw_headdress,
    "hair_flower": lambda pen: draw_blossom(pen.at(0.74, -0.64), Part.ACCESSORY, Part.ACCENT),
    "witch_hat": _draw_witch_hat,
    "headphones": _draw_headphones,
    "crown": _draw_crown,
    "hairclip": _draw_hairclips,
}


def draw_headwear(pen: Pen, style: str) -> None:
    """Draw a hat or ornament over the front hair; hats shade the hair below them."""
    if style in ("beret", "witch_hat"):
        brim = shape("-1.3 -1, 0 -1.2, 1.3 -1, 1.2 -.46, 0 -.5, -1.2 -.46")
        pen.shade(brim, Part.HAIR, Tone.BASE, Tone.LIGHT)
    HEADWEAR[style](pen)
