"""Judging a checkpoint: every measure for the model and for three answers that know nothing.

The baselines go through the same code in the same run: ``mean``, the training set's mean picture;
``grey``, the sketch as it is; ``copy``, the reference as it is. A measure that could not be
computed is null, with its reason under ``unavailable``.
"""

from collections import defaultdict
from collections.abc import Iterator
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

from model.colorize import load_colorizer
from model.config import EvalConfig
from model.data import Batch, Indices, Samples, epoch_order, iterate_batches
from model.device import memory_guard
from model.fid import extract_features, fid, kid, load_extractor
from model.grid import save_png, tile
from model.interact import show_progress
from model.metrics import (
    Answer,
    Floats,
    chroma_distances,
    chroma_error,
    measure_following,
    mse,
    psnr,
    ssim,
)
from pipeline.errors import UserError
from pipeline.rows import replacing


@dataclass(slots=True)
class Tally:
    """What was measured of one answer so far; a few numbers a picture."""

    mse: list[Tensor] = field(default_factory=list)
    psnr: list[Tensor] = field(default_factory=list)
    ssim: list[Tensor] = field(default_factory=list)
    distances: list[Floats] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)

    def add(self, output: Tensor, truth: Tensor, extractor: FeatureExtractorBase | None) -> None:
        """Measure pictures, uint8 N x 3 x H x W, against the true ones."""
        self.mse.append(mse(output, truth))
        self.psnr.append(psnr(output, truth))
        self.ssim.append(ssim(output, truth))
        self.distances.append(chroma_distances(output, truth))
        if extractor is not None:
            self.features.append(extract_features(extractor, output))

    def summary(self) -> dict[str, float | None]:
        """Return the means over all pictures."""
        means = {n: float(torch.cat(getattr(self, n)).mean()) for n in ("mse", "psnr", "ssim")}
        return {**means, "chroma_error": chroma_error(np.concatenate(self.distances))}

    def rows(self, post_ids: Indices) -> pa.Table:
        """Return one row a picture; ``chroma_error`` is null where the true one has no colour."""
        found, colourless = np.concatenate(self.distances).T
        ratio = found / np.where(colourless > 0, colourless, 1)
        return pa.table(
            {
                "post_id": post_ids,
                **{n: torch.cat(getattr(self, n)).numpy() for n in ("mse", "psnr", "ssim")},
                "chroma_error": pa.array(ratio, mask=colourless == 0),
            }
        )


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
        samples = stack.enter_context(Samples(samples_dir, split))
        train_set = stack.enter_context(Samples(samples_dir, "train"))
        for found in (samples, train_set):
            if found.size != info.size:
                raise UserError(
                    f"{samples_dir}: its {found.split} pictures are {found.size}, and the model "
                    f"was trained on {info.size} (height, width). Prepare them at its size."
                )
        stack.enter_context(memory_guard("eval.batch_size", config.batch_size))
        places, references = pair_up(samples, config.reference)
        answers: dict[str, Answer] = {
            "model": colorizer,
            **baselines(mean_picture(train_set, config)),
        }
        tallies = {name: Tally() for name in answers}
        real: list[Tensor] = []
        advance = stack.enter_context(show_progress(console, "eval", "pictures", len(places)))
        for batch, reference in _iterate_pairs(samples, places, references, config):
            for name, answer in answers.items():
                tallies[name].add(answer(batch.sketch, reference), batch.color, extractor)
            if extractor is not None:
                real.append(extract_features(extractor, batch.color))
            advance(len(batch.indices))

        order = epoch_order(len(samples), config.seed, 0)
        sketches = samples.load(order[: config.num_sketches]).sketch
        palettes = samples.load(order[-config.num_references :]).color
        results: dict[str, dict[str, float | None]] = {}
        for name, answer in answers.items():
            results[name] = tallies[name].summary()
            results[name]["following"] = measure_following(answer, sketches, palettes)
            results[name] |= _fid_and_kid(real, tallies[name].features, config.seed)

        metrics: dict[str, Any] = {
            "checkpoint": str(checkpoint),
            "model": info.model.name,
            "style": str(info.style),
            "step": info.step,
            "split": split,
            "reference": config.reference,
            "num_samples": len(places),
            "num_following": [len(sketches), len(palettes)],
            **results.pop("model"),
            "baselines": results,
        }
        reasons = _reasons(extractor)
        metrics["unavailable"] = {n: reasons[n] for n in reasons if metrics[n] is None}
        rows = tallies["model"].rows(samples.post_ids[places])
        shown = samples.load(places[: config.num_grid])
        reference = samples.load(references[: config.num_grid]).color

    output = colorizer(shown.sketch, reference)
    columns = {"sketch": shown.sketch, "reference": reference}
    save_png(out_dir / "grid.png", tile({**columns, "output": output, "truth": shown.color}))
    with replacing(out_dir / "rows.parquet") as temporary:
        pq.write_table(rows, temporary, compression="zstd")
    with replacing(out_dir / "metrics.json") as temporary:
        temporary.write_bytes(orjson.dumps(metrics, option=orjson.OPT_INDENT_2))
    return metrics


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


def pair_up(samples: Samples, reference: str) -> tuple[Indices, Indices]:
    """Return which samples are coloured, and after which ones.

    ``self``: each after itself. ``same_character``: each after the next post with exactly the same
    character tags that is of another family (a variant of the same drawing would give the answer
    away); samples that have none are left out.

    Raises:
        UserError: where no sample has another of its character.
    """
    if reference == "self":
        return np.arange(len(samples)), np.arange(len(samples))
    casts: defaultdict[str, list[int]] = defaultdict(list)
    for place, characters in enumerate(samples.characters):
        if characters:
            casts[characters].append(place)
    pairs = []
    for cast in casts.values():
        for i, place in enumerate(cast):
            others = cast[i + 1 :] + cast[:i]
            family = samples.families[place]
            other = next((o for o in others if samples.families[o] != family), None)
            if other is not None:
                pairs.append((place, other))
    if not pairs:
        raise UserError(
            f"the {samples.split} split has no two drawings of one character. "
            "Use --set eval.reference=self."
        )
    places, references = np.array(sorted(pairs), dtype=np.int64).T
    return places, references


def _iterate_pairs(
    samples: Samples, places: Indices, references: Indices, config: EvalConfig
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield batches of samples, each with its references, uint8 N x 3 x H x W."""
    size, num_threads = config.batch_size, config.decode_threads
    batches = iterate_batches(samples, places, size, num_threads=num_threads)
    if np.array_equal(places, references):
        yield from ((batch, batch.color) for batch in batches)
        return
    others = iterate_batches(samples, references, size, num_threads=num_threads)
    for batch, other in zip(batches, others, strict=True):
        yield batch, other.color


def _fid_and_kid(real: list[Tensor], found: list[Tensor], seed: int) -> dict[str, float | None]:
    num_pictures = sum(len(features) for features in real)
    if num_pictures < 2:
        return {"fid": None, "kid": None}
    a, b = torch.cat(real), torch.cat(found)
    return {"fid": fid(a, b), "kid": kid(a, b, seed)}


def _reasons(extractor: FeatureExtractorBase | None) -> dict[str, str]:
    """Say why a measure is null where it is."""
    inception = "no Inception weights: give --fid-weights PATH"
    if extractor is not None:
        inception = "needs at least two pictures"
    return {
        "chroma_error": "the true pictures have no colour",
        "following": "the references all have one palette",
        "fid": inception,
        "kid": inception,
    }
