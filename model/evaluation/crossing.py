"""Every sketch after every reference, where the true answer is known for each pair.

Real pictures have no such answer: nobody drew this character in that one's colours. Drawn ones
do, so on them a palette that is taken from the wrong place cannot hide.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.data.order import epoch_order
from model.data.samples import Samples
from model.evaluation.baselines import BASELINES
from model.evaluation.metrics import Answer, following, palette, psnr, ratio
from model.evaluation.seen import Floats, Seen
from model.evaluation.tally import RATIOS
from model.grid import Sheet, encode_png, tile
from model.use.colorize import load_colorizer, to_tensor
from pipeline.disk import write_whole
from pipeline.errors import UserError
from pipeline.words import counted

Truth = Callable[[int, int], NDArray[np.uint8]]
"""The post ids of a sketch and of a reference -> the true picture, H x W x 3, RGB."""

NUM_JUDGED = 16
"""Sketches at most, and as many references of other characters."""

NUM_SHOWN = 4

MIN_CHARACTERS = 3
"""One for a sketch and two for references: with a single one, following cannot be measured."""


def judge_crossing(
    checkpoint: Path,
    samples_dir: Path,
    split: str,
    truth: Truth,
    sheet_path: Path,
) -> dict[str, dict[str, float | None]]:
    """Judge a checkpoint on pairs of different characters, and draw a sheet of some, a PNG.

    Of each character in the split one sample is taken.

    Returns:
        following, psnr, and what ``tally.RATIOS`` names, of ``model``, ``grey`` and ``copy``.

    Raises:
        UserError: on an unusable checkpoint or samples, or too few characters.
    """
    with Samples(samples_dir, split) as samples:
        places = _one_of_each_character(samples)[: 2 * NUM_JUDGED]
        if len(places) < MIN_CHARACTERS:
            raise UserError(
                f"{samples_dir}: the {split} split has {counted(len(places), 'character')}, and a "
                f"crossing takes {MIN_CHARACTERS}."
            )
        cut = len(places) // 2
        sketches, references = samples.load(places[:cut]), samples.load(places[cut:])
    truths = torch.stack(
        [
            torch.cat([to_tensor(truth(int(s), int(r))) for r in references.post_ids])
            for s in sketches.post_ids
        ]
    )
    colorizer, _ = load_colorizer(checkpoint)
    answers: dict[str, Answer] = {"model": colorizer, **BASELINES}
    found = {}
    for name, answer in answers.items():
        outputs = torch.stack([answer(sketches.sketch, r[None]) for r in references.color], dim=1)
        found[name] = _measure(outputs, truths, references.color)
        if name == "model":
            sheet = _draw(sketches.sketch, references.color, outputs, truths)
            write_whole(sheet_path, encode_png(sheet))
    return found


def _one_of_each_character(samples: Samples) -> list[int]:
    """Return the places of one sample a character, in an order that has nothing to do with them."""
    seen: dict[str, int] = {}
    for place in epoch_order(len(samples), seed=0, epoch=0):
        seen.setdefault(samples.characters[place], int(place))
    return list(seen.values())


def _measure(outputs: Tensor, truths: Tensor, references: Tensor) -> dict[str, float | None]:
    """Measure outputs against truths, both uint8 n x m x 3 x H x W."""
    pairs = outputs.flatten(0, 1), truths.flatten(0, 1)
    seen = [Seen(pictures) for pictures in pairs]
    palettes = np.stack([palette(of_one) for of_one in outputs])
    return {
        "following": following(palettes, palette(references)),
        **{name: ratio(measure(*seen)) for name, measure in RATIOS.items()},
        "psnr": float(psnr(*pairs).mean()),
    }


def _draw(sketches: Tensor, references: Tensor, outputs: Tensor, truths: Tensor) -> Sheet:
    """Draw a sheet: a sketch a row, and for each reference (first row) output and truth."""
    blank = torch.full_like(references[:1], 255)
    columns = {"sketch": torch.cat([blank, sketches[:NUM_SHOWN].expand(-1, 3, -1, -1)])}
    num_shown = min(NUM_SHOWN, len(references))
    for number, place in enumerate(_most_different(palette(references), num_shown), start=1):
        reference = references[place : place + 1]
        columns[f"after {number}"] = torch.cat([reference, outputs[:NUM_SHOWN, place]])
        columns[f"truth {number}"] = torch.cat([blank, truths[:NUM_SHOWN, place]])
    return tile(columns)


def _most_different(palettes: Floats, num: int) -> list[int]:
    """Return the places of palettes that lie far apart: each is the farthest from all before."""
    chosen = [int(np.argmax(np.linalg.norm(palettes - palettes.mean(axis=0), axis=1)))]
    while len(chosen) < num:
        distances = np.linalg.norm(palettes[:, None] - palettes[chosen], axis=2)
        chosen.append(int(np.argmax(distances.min(axis=1))))
    return chosen
