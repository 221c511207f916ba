"""Draw ``docs/sketches.png``: the sketch methods side by side, on drawn dolls.

    python -m docs.make_sketches

The same versions draw the same figure; ``--out`` puts it elsewhere.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pipeline.dolls.data_set import make_dolls, picture_of
from pipeline.pictures.image import Picture, resize
from pipeline.pictures.sketch import draw_sketch
from pipeline.recipe import SketchSettings, XdogSettings

SIDE, GAP, HEAD = 256, 12, 30
DOLLS = (0, 1, 4)  # a close one, a whole one, a fair one

METHODS = {
    "dodge, sigma 3.5": SketchSettings("dodge"),
    "xdog, sigma 0.8": SketchSettings("xdog"),
    "xdog, sigma 1.2": SketchSettings("xdog", xdog=XdogSettings(sigma=1.2)),
}


def draw_figure() -> Picture:
    """Return the figure: a row a doll, its picture first, a column a method."""
    dolls = make_dolls(max(DOLLS) + 1, 1)
    pictures = [resize(picture_of(dolls[index]), SIDE, "pad") for index in DOLLS]
    titles = ("picture", *METHODS)
    width = GAP + len(titles) * (SIDE + GAP)
    figure = np.full((HEAD + len(pictures) * (SIDE + GAP), width, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        left = GAP + column * (SIDE + GAP)
        place, font = (left, HEAD - 11), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(figure, title, place, font, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
        for row, picture in enumerate(pictures):
            top = HEAD + row * (SIDE + GAP)
            shown = picture
            if title in METHODS:
                shown = np.repeat(draw_sketch(picture, METHODS[title])[..., None], 3, axis=2)
            figure[top : top + SIDE, left : left + SIDE] = shown
            cv2.rectangle(figure, (left - 1, top - 1), (left + SIDE, top + SIDE), (200,) * 3)
    return figure


def main() -> None:
    """Write the figure as a PNG of 256 colours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("sketches.png"))
    out = parser.parse_args().out
    Image.fromarray(draw_figure()).quantize(256).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
