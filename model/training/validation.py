"""Validation: when it is due, what it measures, which checkpoint is best, what is shown."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch

from model.config import TrainConfig
from model.data.augment import same_reference
from model.data.features import StyleFeatures
from model.data.samples import Samples, iterate_batches, spread_places, to_bytes, to_unit
from model.device import memory_guard
from model.evaluation.metrics import Answer, measure_following, mse, ratio, to_psnr
from model.evaluation.seen import Floats, Seen
from model.evaluation.tally import RATIOS
from model.grid import Sheet, tile
from model.ranks import Ranks
from model.training.steps import Autocast
from model.use.colorize import Colorizer
from pipeline.errors import UserError


def validation_marks(steps_per_epoch: int, epochs: int, num_per_epoch: float) -> frozenset[int]:
    """Return after which steps of a run to validate: evenly spread, the last one included.

    Half a validation an epoch is one in two epochs.
    """
    numbers = range(1, math.floor(epochs * num_per_epoch) + 1)
    spread = (max(1, round(steps_per_epoch * number / num_per_epoch)) for number in numbers)
    return frozenset([*spread, steps_per_epoch * epochs])


@torch.no_grad()
def validate(
    colorizer: Colorizer,
    samples: Samples,
    features: StyleFeatures,
    config: TrainConfig,
    autocast: Autocast,
    ranks: Ranks,
) -> dict[str, float]:
    """Return ``mse`` and ``psnr`` over all samples, and over some the measures that see colour.

    The former are means over each picture after itself; those of ``tally.RATIOS`` are after
    itself jittered and warped, the truth being jittered alike (``augment.same_reference``), so
    that neither copying places nor knowing the picture is enough.
    """
    generator, device = colorizer.generator.eval(), colorizer.device
    totals = torch.zeros(2, dtype=torch.float64)
    places = np.arange(ranks.rank, len(samples), ranks.world_size)
    for batch in iterate_batches(
        samples, places, config.batch_size, num_threads=config.decode_threads
    ):
        style = features(batch, to_unit(batch.color, device))
        with autocast:
            outputs = generator(to_unit(batch.sketch, device), style)
        errors = mse(to_bytes(outputs.picture), batch.color.to(device)).cpu()
        totals += torch.stack([errors.sum(), to_psnr(errors).sum()])
    generator.train()
    means = (ranks.sum(totals) / len(samples)).tolist()
    measured = dict(zip(("mse", "psnr"), means, strict=True))
    return measured | _measure_colors(colorizer, samples, config)


def _measure_colors(answer: Answer, samples: Samples, config: TrainConfig) -> dict[str, float]:
    """Return the measures that see colour, without those that these samples do not allow."""
    parts: dict[str, list[Floats]] = {name: [] for name in RATIOS}
    places = spread_places(config.num_chroma, len(samples))
    for batch in iterate_batches(samples, places, config.batch_size):
        truth, reference = same_reference(batch.color, batch.indices, seed=0)
        output, true = Seen(answer(batch.sketch, reference)), Seen(truth)
        for name, measure in RATIOS.items():
            parts[name].append(measure(output, true))
    measured = {name: ratio(np.concatenate(found)) for name, found in parts.items()}
    some = samples.load(spread_places(config.num_following, len(samples)))  # of many palettes
    if len(some.indices) > 1:
        with _at_once("num_following", len(some.indices), config):
            measured["following"] = measure_following(answer, some.sketch, some.color)
    return {name: value for name, value in measured.items() if value is not None}


def check_best_by(samples: Samples, config: TrainConfig) -> None:
    """Check that validations can measure ``best_by``, which depends on the samples alone.

    Raises:
        UserError: where they cannot.
    """
    if config.best_by == "mse":
        return
    for some in (replace(config, num_chroma=1), config):  # the first one with colour is enough
        measured = _measure_colors(lambda _, reference: reference, samples, some)
        if config.best_by in measured:
            return
    criterion(measured, config.best_by)


_UNTOLD = {
    "paper_error": "have no white paper",
    "following": "are too few, or all have one palette",
}
"""What of the samples is why they do not tell a measure; of the others it is their colour."""


def criterion(metrics: dict[str, float], best_by: str) -> float:
    """Return what the kept checkpoint has least of.

    Raises:
        UserError: where that could not be measured on the validation set.
    """
    if best_by not in metrics:
        why = _UNTOLD.get(best_by, "have no colour")
        raise UserError(
            f"the validation samples do not tell {best_by}: they {why}. Use --set "
            "train.best_by=mse."
        )
    value = metrics[best_by]
    return abs(value - 1) if best_by == "following" else value


def draw_samples(colorizer: Colorizer, samples: Samples, config: TrainConfig) -> Sheet:
    """Return a sheet of some samples: sketch, reference, output, truth."""
    some = samples.load(spread_places(config.num_grid, len(samples)))
    truth, reference = some.color, some.color
    if not config.is_self_reference():
        truth, reference = same_reference(some.color, some.indices, seed=0)
    with _at_once("num_grid", len(some.indices), config):
        output = colorizer(some.sketch, reference)
        columns = {"sketch": some.sketch, "reference": reference, "output": output}
        return tile(columns | {"truth": truth})


def _at_once(name: str, num: int, config: TrainConfig) -> AbstractContextManager[None]:
    """Return a ``memory_guard`` for so many pictures; where batches have more, these are to blame.

    ``name`` is of the setting that decides their number.
    """
    return memory_guard(f"train.{name}", num) if num > config.batch_size else nullcontext()
