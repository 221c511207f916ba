"""What dolls wear on clothes as well as in their hair."""

from pipeline.dolls.canvas import Part, Pen, ellipse, path, shape


def draw_bow(pen: Pen, part: Part) -> None:
    """Draw a ribbon bow about 1 wide to each side, around the origin."""
    for half in pen.halves():
        half.fill(shape(".1 .1!, .3 .8, .56 1.2!, .66 .8, .84 .78!, .4 0"), part)
        half.fill(shape(".1 -.1, .6 -.6, 1.06 -.5, 1.12 .1, .95 .5, .5 .35, .1 .1"), part)
        half.shade(ellipse(0.3, 0.05, 0.25, 0.28), part)
        half.line(path(".2 0, .4 -.02, .64 -.12"), 0.9)
    pen.fill(shape("-.2 -.22, .2 -.22, .22 .22, -.22 .22"), part)


def draw_blossom(pen: Pen, petals: Part, heart: Part | None) -> None:
    """Draw a flower of radius 0.3; without a heart it is a print, and has no lines."""
    ink = None if heart is None else 1
    for angle in range(5):
        pen.at(angle=72 * angle).fill(ellipse(0, -0.16, 0.13, 0.14), petals, ink=ink)
    pen.fill(ellipse(0, 0, 0.1, 0.1), heart or Part.ACCESSORY, ink=ink)
