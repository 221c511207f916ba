"""Draw ``docs/sketches.png``: the sketch methods side by side, on drawn dolls.

    python -m docs.make_sketches

The same versions draw the same figure; ``--out`` puts it elsewhere.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from model.grid import lay_out
from pipeline.dolls.data_set import make_dolls, picture_of
from pipeline.pictures.image import Picture, resize
from pipeline.pictures.sketch import draw_sketch
from pipeline.recipe import SketchSettings, XdogSettings

SIDE = 256
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
    columns = {"picture": pictures}
    for title, settings in METHODS.items():
        lines = (draw_sketch(picture, settings) for picture in pictures)
        columns[title] = [np.repeat(sketch[..., None], 3, axis=2) for sketch in lines]
    return lay_out(columns)


def main() -> None:
    """Write the figure as a PNG of 256 colours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("sketches.png"))
    out = parser.parse_args().out
    Image.fromarray(draw_figure()).quantize(256).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
