"""Painters without a model, for the tests of what is done around one."""

import numpy as np

from model.use.painter import Painter
from model.use.pictures import Pixels
from pipeline.settings import Table


def tinting_painter(side: int = 64, recipe: Table | None = None) -> Painter:
    """Return a painter that lays the reference's mean colour over the sketch, as far as guided."""

    def answer(sketch: Pixels, reference: Pixels, guidance: float) -> Pixels:
        tint = np.clip(1 + guidance * (reference.reshape(-1, 3).mean(axis=0) / 255 - 1), 0, 1)
        painted: Pixels = np.rint(sketch[..., None] * tint).astype(np.uint8)
        return painted

    return Painter(answer, (side, side), "tint", recipe or {}, can_be_guided=True)
