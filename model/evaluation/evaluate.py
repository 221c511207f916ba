"""Judging a checkpoint: every measure for the model and for three answers that know nothing.

The baselines go through the same code in the same run: ``mean``, the training set's mean picture;
``grey``, the sketch as it is; ``copy``, the reference as it is. A measure that could not be
computed is null, with its reason under ``unavailable``.
"""

import re
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from model.checkpoint import read_sum
from model.config import REFERENCES, EvalConfig
from model.data.order import epoch_order
from model.data.samples import Samples, spread_places
from model.device import memory_guard
from model.evaluation.baselines import BASELINES, paint_mean, reduce_pictures, reduced
from model.evaluation.fid import load_extractor
from model.evaluation.judge import draw, judge
from model.evaluation.metrics import Answer, bootstrap_following, cross, following, palette
from model.evaluation.perceptual import load_lpips
from model.evaluation.scenes import make_scenes
from model.grid import encode_png
from model.use.colorize import load_colorizer
from pipeline.console import PlainConsole
from pipeline.disk import check_writable, hash_file, replace_together, telling_unwritable
from pipeline.errors import UserError
from pipeline.shards.shard import list_shards

ROWS, METRICS = "rows.parquet", "metrics.json"

MIN_SIDE = 32
"""Of pictures to measure, in pixels."""


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

    ``metrics.json`` has the first setting's figures at its top, and those of all under
    ``settings``; each further one has its ``grid-SETTING.png``. Means have a 95% bootstrap
    interval beside them, over ``num_clusters`` clusters: pictures that share a character or a
    family are one cluster. That of following is over its sketches and references. How much
    trainings differ is in none of them. ``fid_weights`` and ``lpips_weights`` are the SHA-256 of
    these files, None of what was not given.

    Args:
        checkpoint: see ``checkpoint.load_checkpoint``.
        samples_dir: folder of prepared shards; its training split gives the mean picture, and
            without one there is none.
        split: which samples to judge on.
        out_dir: where the files go.
        config: the settings; the defaults if None.
        extractor: of features for FID and KID, in place of ``config.fid_weights``.
        console: where progress is shown; standard output if None.

    Returns:
        What ``metrics.json`` says.

    Raises:
        UserError: on an unusable checkpoint, unusable samples or weights, where the files cannot be
            written, and when memory is full.
    """
    config = config or EvalConfig()
    console = console or PlainConsole(stderr=False)
    colorizer, info = load_colorizer(
        checkpoint,
        device=config.device,
        style_weights=config.style_weights,
        guidance=config.guidance,
    )
    sha256 = read_sum(checkpoint)
    sums: dict[str, str | None] = {"fid_weights": None, "lpips_weights": None}
    if extractor is None and config.fid_weights:
        extractor = load_extractor(Path(config.fid_weights), colorizer.device)
        sums["fid_weights"] = hash_file(Path(config.fid_weights))
    lpips = None
    if config.lpips_weights:
        lpips = load_lpips(Path(config.lpips_weights), colorizer.device)
        sums["lpips_weights"] = hash_file(Path(config.lpips_weights))
    with ExitStack() as stack:
        sketch = config.sketch or info.train.sketch
        splits = [split, *(["train"] if list_shards(samples_dir, "train") else [])]
        samples, *train_sets = (
            stack.enter_context(Samples(samples_dir, one, sketch)) for one in splits
        )
        for found in (samples, *train_sets):
            if found.size != info.size:
                raise UserError(
                    f"{samples_dir}: its {found.split} pictures are {found.size}, and the model "
                    f"was trained on {info.size} (height, width). Prepare them at its size."
                )
        check_reduced(info.size, config.reduce)
        stack.enter_context(memory_guard("eval.batch_size", config.batch_size))
        scenes = make_scenes(samples, config.reference, config.seed)
        grids = [grid_name(number, scene.name) for number, scene in enumerate(scenes)]
        check_writable(*(out_dir / name for name in (*grids, ROWS, METRICS)))
        answers: dict[str, Answer] = {"model": colorizer}
        if train_sets:
            answers["mean"] = paint_mean(train_sets[0], config)
        else:  # the rest may have been pulled alone
            console.print("no `mean` to compare with: the training split is not here.")
        answers |= BASELINES
        answers = {name: reduced(answer, config.reduce) for name, answer in answers.items()}
        order = epoch_order(len(samples), config.seed, 0)
        sketches = samples.load(order[: config.num_sketches]).sketch
        references = samples.load(order[-config.num_references :]).color
        with memory_guard("eval.num_sketches", len(sketches)):  # all of them at once
            crossed = {name: cross(a, sketches, references) for name, a in answers.items()}
        palettes = palette(reduce_pictures(references, config.reduce))
        follows = {
            name: (following(o, palettes), bootstrap_following(o, palettes, config.seed))
            for name, o in crossed.items()
        }
        settings, tables, files = {}, [], {}
        for name, scene in zip(grids, scenes, strict=True):
            if len(scene.pairs) < len(samples):
                console.print(
                    f"{len(scene.pairs)} of {len(samples)} {split} samples have another drawing of "
                    "their character."
                )
            settings[scene.name], table = judge(
                scene, samples, answers, follows, config, extractor, lpips, console
            )
            tables.append(table)
            shown = samples.load(scene.pairs[spread_places(config.num_grid, len(scene.pairs))])
            with memory_guard("eval.num_grid", len(shown.indices)):
                sheet = draw(scene, shown, colorizer)
            files[name] = encode_png(sheet)

    metrics: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "sha256": sha256,
        "model": info.model.name,
        "style": str(info.style),
        "step": info.step,
        "split": split,
        "samples": samples.fingerprint,
        "seed": config.seed,
        "sketch": sketch,
        "guidance": config.guidance,
        "reduce": config.reduce,
        "num_following": [len(sketches), len(references)],
        **sums,
        **settings[scenes[0].name],
        "settings": settings,
    }
    rows = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(tables, promote_options="default"), rows, compression="zstd")
    files[ROWS] = rows.getvalue().to_pybytes()
    files[METRICS] = orjson.dumps(metrics, option=orjson.OPT_INDENT_2)
    with telling_unwritable(out_dir):
        replace_together(out_dir, files)
        _remove_other_grids(out_dir, grids)
    return metrics


def check_reduced(size: tuple[int, int], factor: int) -> None:
    """Refuse an ``eval.reduce`` that leaves no whole pictures, or too small ones.

    Raises:
        UserError: then.
    """
    smallest = min(size) // factor
    if any(side % factor for side in size) or smallest < MIN_SIDE:
        raise UserError(
            f"eval.reduce: {factor} does not make pictures of {MIN_SIDE} pixels or more out of the "
            f"model's {size[1]} x {size[0]}. Give a divisor of its sides."
        )


def grid_name(number: int, setting: str) -> str:
    """Return the name of a setting's grid, the settings being numbered from 0 on."""
    return f"grid-{setting}.png" if number else "grid.png"


def _remove_other_grids(out_dir: Path, names: Collection[str]) -> None:
    """Remove the grids that an earlier evaluation in other settings left."""
    for path in out_dir.glob("grid-*.png"):
        setting = path.stem.removeprefix("grid-")
        is_ours = setting in REFERENCES or re.fullmatch(r"picture(-\d+)?", setting)
        if is_ours and path.name not in names:
            path.unlink()
