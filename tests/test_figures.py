from pathlib import Path

import numpy as np
from PIL import Image

from docs.make_sketches import draw_figure

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_figure_of_the_sketches_is_the_one_that_its_script_draws() -> None:
    path = DOCS / "sketches.png"
    assert path.stat().st_size < 300_000
    shown = np.asarray(Image.open(path).convert("RGB")).astype(int)
    drawn = draw_figure().astype(int)
    assert shown.shape == drawn.shape
    assert np.abs(shown - drawn).mean() < 2  # 256 colours, and other versions' edges
