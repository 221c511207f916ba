"""Draw docs/sheet.png: a contact sheet of ``colorize``, dolls after other dolls.

    python -m docs.make_sheet CHECKPOINT

The dolls are the examples of ``app``, which no data set of ordinary size has.
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console

from model.use.colorize_files import colorize_many
from model.use.load import load_painter
from model.use.picture_files import read_sketch
from pipeline.dolls.data_set import draw_examples
from pipeline.pictures.sketch import line_drawer

OUT = Path(__file__).with_name("sheet.png")
NUM_REFERENCES = 6


def main() -> None:
    """Colour, and write the sheet at half its size as a PNG of 256 colours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    painter = load_painter(parser.parse_args().checkpoint, device="cpu")
    draw_lines = line_drawer("dodge", painter.recipe.get("prepare", {}))
    with tempfile.TemporaryDirectory() as folder:
        sketches, references = draw_examples(draw_lines, Path(folder))
        out = Path(folder) / "out"
        shown = references[:NUM_REFERENCES]
        colorize_many(painter, sketches, shown, out, Console(quiet=True), read_sketch)
        with Image.open(out / "contact-sheet-1.png") as sheet:
            sheet.reduce(2).quantize(256).save(OUT, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
