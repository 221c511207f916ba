"""Judging a checkpoint: every measure for the model and for three answers that know nothing.

The baselines go through the same code in the same run: ``mean``, the training set's mean picture;
``grey``, the sketch as it is; ``copy``, the reference as it is. A measure that could not be
computed is null, with its reason under ``unavailable``.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from model.augment import same_reference
from model.colorize import load_colorizer
from model.config import EvalConfig
from model.data import Batch, Samples, epoch_order, iterate_batches, spread_places
from model.device import memory_guard
from model.fid import extract_features, fid, kid, load_extractor
from model.grid import save_png, tile
from model.interact import show_progress
from model.metrics import (
    Answer,
    Floats,
    bootstrap,
    chroma_distances,
    chroma_error,
    measure_following,
    mse,
    psnr,
    regional_distances,
    ssim,
)
from model.pairs import pair_up
from pipeline.errors import UserError
from pipeline.rows import replacing

NEEDS_TRUTH = ("mse", "psnr", "ssim", "chroma_error", "regional_error")


@dataclass(slots=True)
class Tally:
    """What was measured of one answer so far; a few numbers a picture."""

    mse: list[Tensor] = field(default_factory=list)
    psnr: list[Tensor] = field(default_factory=list)
    ssim: list[Tensor] = field(default_factory=list)
    distances: list[Floats] = field(default_factory=list)
    regional: list[Floats] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)

    def add(
        self, output: Tensor, truth: Tensor | None, extractor: FeatureExtractorBase | None
    ) -> None:
        """Measure pictures, uint8 N x 3 x H x W, against the true ones where there are any."""
        if extractor is not None:
            self.features.append(extract_features(extractor, output))
        if truth is None:
            return
        self.mse.append(mse(output, truth))
        self.psnr.append(psnr(output, truth))
        self.ssim.append(ssim(output, truth))
        self.distances.append(chroma_distances(output, truth))
        self.regional.append(regional_distances(output, truth))

    def summary(self) -> dict[str, float | None]:
        """Return the means over all pictures; None for each where there is no truth."""
        if not self.mse:
            return dict.fromkeys(NEEDS_TRUTH)
        means = {n: float(torch.cat(getattr(self, n)).mean()) for n in ("mse", "psnr", "ssim")}
        return {
            **means,
            "chroma_error": chroma_error(np.concatenate(self.distances)),
            "regional_error": chroma_error(np.concatenate(self.regional)),
        }

    def intervals(self, seed: int) -> dict[str, list[float] | None]:
        """Return the 95% bootstrap interval of each mean of ``summary``."""
        if not self.mse:
            return {}
        parts = {n: torch.cat(getattr(self, n)).double() for n in ("mse", "psnr", "ssim")}
        return {
            **{n: bootstrap(_over_one(values), seed) for n, values in parts.items()},
            "chroma_error": bootstrap(np.concatenate(self.distances), seed),
            "regional_error": bootstrap(np.concatenate(self.regional), seed),
        }

    def columns(self) -> dict[str, pa.Array]:
        """Return one value a picture of what was measured; null where the truth has no colour."""
        if not self.mse:
            return {}
        columns = {n: torch.cat(getattr(self, n)).numpy() for n in ("mse", "psnr", "ssim")}
        for name, parts in (("chroma_error", self.distances), ("regional_error", self.regional)):
            found, colourless = np.concatenate(parts).T
            ratio = found / np.where(colourless > 0, colourless, 1)
            columns[name] = pa.array(ratio, mask=colourless == 0)
        return columns


def _over_one(values: Tensor) -> Floats:
    return np.stack([values.numpy(), np.ones(len(values))], axis=1)


def evaluate(
    checkpoint: Path,
    samples_dir: Path,
    split: str,
    out_dir: Path,
    config: EvalConfig | None = None,
    *,
    extractor: FeatureExtractorBase | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Judge a checkpoint on a split; writes ``metrics.json``, ``rows.parquet`` and ``grid.png``.

    Means have a 95% bootstrap interval beside them, over the pictures; other runs are not seen.

    Args:
        checkpoint: see ``checkpoint.load_checkpoint``.
        samples_dir: folder of prepared shards; its training split gives the mean picture.
        split: which samples to judge on.
        out_dir: where the three files go.
        config: the settings; the defaults if None.
        extractor: of features for FID and KID, in place of ``config.fid_weights``.
        console: where progress is shown; standard output if None.

    Returns:
        What ``metrics.json`` says.

    Raises:
        UserError: on an unusable checkpoint, unusable samples or weights, and when memory is full.
    """
    config = config or EvalConfig()
    console = console or Console()
    colorizer, info = load_colorizer(
        checkpoint, device=config.device, style_weights=config.style_weights
    )
    if extractor is None and config.fid_weights:
        extractor = load_extractor(Path(config.fid_weights), colorizer.device)
    with ExitStack() as stack:
        samples = stack.enter_context(Samples(samples_dir, split, info.train.sketch))
        train_set = stack.enter_context(Samples(samples_dir, "train", info.train.sketch))
        for found in (samples, train_set):
            if found.size != info.size:
                raise UserError(
                    f"{samples_dir}: its {found.split} pictures are {found.size}, and the model "
                    f"was trained on {info.size} (height, width). Prepare them at its size."
                )
        stack.enter_context(memory_guard("eval.batch_size", config.batch_size))
        pairs = pair_up(samples, config.reference, config.seed)
        has_truth = config.reference != "any"
        answers: dict[str, Answer] = {
            "model": colorizer,
            **baselines(mean_picture(train_set, config)),
        }
        tallies = {name: Tally() for name in answers}
        real: list[Tensor] = []
        advance = stack.enter_context(show_progress(console, "eval", "pictures", len(pairs)))
        for batch in iterate_batches(
            samples, pairs, config.batch_size, num_threads=config.decode_threads
        ):
            truth, reference = set_scene(batch, config)
            for name, answer in answers.items():
                output = answer(batch.sketch, reference)
                tallies[name].add(output, truth if has_truth else None, extractor)
            if extractor is not None:
                real.append(extract_features(extractor, truth))
            advance(len(batch.indices))

        order = epoch_order(len(samples), config.seed, 0)
        sketches = samples.load(order[: config.num_sketches]).sketch
        palettes = samples.load(order[-config.num_references :]).color
        results: dict[str, dict[str, Any]] = {}
        for name, answer in answers.items():
            results[name] = tallies[name].summary()
            results[name]["following"] = measure_following(answer, sketches, palettes)
            results[name] |= _fid_and_kid(real, tallies[name].features, config.seed)
            results[name]["intervals"] = tallies[name].intervals(config.seed)

        metrics: dict[str, Any] = {
            "checkpoint": str(checkpoint),
            "model": info.model.name,
            "style": str(info.style),
            "step": info.step,
            "split": split,
            "reference": config.reference,
            "num_samples": len(pairs),
            "num_following": [len(sketches), len(palettes)],
            **results.pop("model"),
            "baselines": results,
        }
        reasons = _reasons(extractor, has_truth)
        metrics["unavailable"] = {n: reasons[n] for n in reasons if metrics[n] is None}
        post_ids, reference_ids = samples.post_ids[pairs].T
        rows = pa.table(
            {"post_id": post_ids, "reference_id": reference_ids, **tallies["model"].columns()}
        )
        shown = samples.load(pairs[spread_places(config.num_grid, len(pairs))])

    truth, reference = set_scene(shown, config)
    columns = {
        "sketch": shown.sketch,
        "reference": reference,
        "output": colorizer(shown.sketch, reference),
    }
    if has_truth:
        columns["truth"] = truth
    save_png(out_dir / "grid.png", tile(columns))
    with replacing(out_dir / "rows.parquet") as temporary:
        pq.write_table(rows, temporary, compression="zstd")
    with replacing(out_dir / "metrics.json") as temporary:
        temporary.write_bytes(orjson.dumps(metrics, option=orjson.OPT_INDENT_2))
    return metrics


def set_scene(batch: Batch, config: EvalConfig) -> tuple[Tensor, Tensor]:
    """Return the true pictures and the references of a setting, uint8 N x 3 x H x W."""
    if config.reference == "same":
        return same_reference(batch.color, batch.indices, seed=config.seed)
    return batch.color, batch.reference


def mean_picture(samples: Samples, config: EvalConfig) -> Tensor:
    """Return the mean of all pictures, uint8 1 x 3 x H x W."""
    total = torch.zeros(1, 3, *samples.size, dtype=torch.float64)
    places = np.arange(len(samples))
    for batch in iterate_batches(
        samples, places, config.batch_size, num_threads=config.decode_threads
    ):
        total += batch.color.sum(0, keepdim=True, dtype=torch.float64)
    return (total / len(samples)).round().to(torch.uint8)


def baselines(mean: Tensor) -> dict[str, Answer]:
    """Return the answers that know nothing, by name; ``mean`` is uint8 1 x 3 x H x W."""
    return {
        "mean": lambda sketch, reference: mean.expand(len(sketch), -1, -1, -1),
        "grey": lambda sketch, reference: sketch.expand(-1, 3, -1, -1),
        "copy": lambda sketch, reference: reference.expand(len(sketch), -1, -1, -1),
    }


def _fid_and_kid(real: list[Tensor], found: list[Tensor], seed: int) -> dict[str, float | None]:
    num_pictures = sum(len(features) for features in real)
    if num_pictures < 2:
        return {"fid": None, "kid": None}
    a, b = torch.cat(real), torch.cat(found)
    return {"fid": fid(a, b), "kid": kid(a, b, seed)}


def _reasons(extractor: FeatureExtractorBase | None, has_truth: bool) -> dict[str, str]:
    """Say why a measure is null where it is."""
    inception = "no Inception weights: give --fid-weights PATH"
    if extractor is not None:
        inception = "needs at least two pictures"
    no_truth = dict.fromkeys(NEEDS_TRUTH, "another character's colours have no true answer")
    return {
        "chroma_error": "the true pictures have no colour",
        "regional_error": "the true pictures have no colour",
        **({} if has_truth else no_truth),
        "following": "the references all have one palette",
        "fid": inception,
        "kid": inception,
    }
