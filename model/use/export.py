"""A trained model to carry away: weights, settings, an ONNX file, and a card that says what it is.

What goes out names no path of this machine: the samples' sum and the lock's say which pictures it
was trained on, not where they lay.
"""

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from model.checkpoint import (
    CheckpointInfo,
    encode_checkpoint,
    find_checkpoint,
    pack,
    read_sum,
    run_dir_of,
)
from model.data.samples import to_bytes
from model.foreign import Metrics
from model.use.card import render_card
from model.use.colorize import load_colorizer
from model.use.export_onnx import Exported, draw_pair, export_onnx
from model.use.painter_onnx import VERSION, OnnxInfo
from pipeline.disk import check_plain, check_writable, reason, replace_together, telling_unwritable
from pipeline.errors import UserError
from pipeline.settings import Table
from pipeline.shards.rows import read_seal

WEIGHTS, CONFIG, ONNX, CARD = "model.safetensors", "config.json", "model.onnx", "README.md"


@dataclass(frozen=True, slots=True)
class Export:
    """What was written.

    Attributes:
        files: their names and sizes in bytes.
        difference: of the ONNX file's answers from the model's; None without such a file.
        evaluations: the ``metrics.json`` whose figures are in the card.
        passed_over: those that are of another checkpoint.
    """

    files: dict[str, int]
    difference: float | None
    evaluations: list[Path]
    passed_over: list[Path]


def export(
    checkpoint: Path,
    out_dir: Path,
    *,
    lock_path: Path | None = None,
    metrics_paths: Iterable[Path] = (),
    style_weights: str = "",
    onnx: bool = True,
) -> Export:
    """Write a checkpoint's model into a folder, to be shared or used elsewhere.

    ``model.safetensors`` is a checkpoint without what only training needs, ``config.json`` says
    what it is, ``model.onnx`` colours without torch, and ``README.md`` is the card.

    Args:
        checkpoint: see ``checkpoint.load_checkpoint``.
        out_dir: made where it is missing; files of these names in it are replaced. Not where the
            checkpoint lies: what a run or an earlier export has there beside it would be lost.
        lock_path: of the data set's lock.
        metrics_paths: of evaluations for the card; if none, those in the run's folder.
        style_weights: see ``colorize.load_colorizer``.
        onnx: whether to write the ONNX file.

    Raises:
        UserError: on an unusable checkpoint, lock or evaluation, for a model that paints what is
            no number, where the folder is the checkpoint's or cannot be written, or where the ONNX
            file would not compute the same; then nothing is written.
    """
    if os.path.realpath(out_dir) == os.path.realpath(run_dir_of(checkpoint)):
        raise UserError(
            f"--out {out_dir}: the model that is exported lies there, and what its {CONFIG} and "
            "card say would be lost. Give another folder."
        )
    check_writable(*(out_dir / name for name in (WEIGHTS, CONFIG, ONNX, CARD)))
    colorizer, info = load_colorizer(checkpoint, device="cpu", style_weights=style_weights)
    colorizer(*map(to_bytes, draw_pair(0, info.size)))  # nobody can use one that paints no numbers
    info = without_paths(info)
    evaluations, passed_over = _find_evaluations(checkpoint, info, list(metrics_paths))
    lock = read_seal(lock_path) if lock_path is not None else ""
    exported: Exported | None = None
    if onnx:
        can_be_guided = info.train.drop_reference > 0
        about = OnnxInfo(VERSION, info.model.name, info.size, info.recipe, can_be_guided)
        exported = export_onnx(colorizer, about)
    card = render_card(
        f"{info.model.name} on {info.recipe.get('name', 'pictures')}",
        info,
        stem=find_checkpoint(checkpoint).stem,
        evaluations=list(evaluations.values()),
        lock=lock,
        onnx_name=ONNX if exported else "",
        difference=exported.difference if exported else 0.0,
    )
    kept = pack("generator", colorizer.generator.state_dict())
    if info.train.style_train:  # it is nowhere else
        kept |= pack("style", colorizer.style_network.state_dict())
    weights, config = encode_checkpoint(WEIGHTS, kept, info)
    files = {WEIGHTS: weights, CONFIG: config}
    files |= {ONNX: exported.content} if exported else {}
    files[CARD] = card.encode()
    with telling_unwritable(out_dir):
        replace_together(out_dir, files)
        if exported is None:
            (out_dir / ONNX).unlink(missing_ok=True)  # an earlier one is of another model
    return Export(
        {name: len(content) for name, content in files.items()},
        exported.difference if exported else None,
        list(evaluations),
        passed_over,
    )


def without_paths(info: CheckpointInfo) -> CheckpointInfo:
    """Return what a checkpoint says, without where things lie on this machine."""
    recipe = dict(info.recipe)
    if "source" in recipe:
        recipe["source"] = {k: v for k, v in recipe["source"].items() if k == "layout"}
    if "select" in recipe:
        recipe["select"] = {k: v for k, v in recipe["select"].items() if k != "nsfw_ids"}
    if "prepare" in recipe:
        recipe["prepare"] = _without_models(recipe["prepare"])
    if "train" in recipe:
        recipe["train"] = {k: v for k, v in recipe["train"].items() if k != "style_weights"}
    weights = Path(info.model.style_weights).name
    return dataclasses.replace(
        info,
        model=dataclasses.replace(info.model, style_weights=weights),
        train=dataclasses.replace(info.train, style_weights=weights),
        recipe=recipe,
    )


def _without_models(prepare: Table) -> Table:
    """Return ``[prepare]`` with the names of sketch networks in place of their paths."""

    def rename(sketch: Table) -> Table:
        network = sketch.get("onnx", {})
        return {**sketch, "onnx": {**network, "model": Path(network.get("model", "")).name}}

    changed = {n: rename(sketch) for n, sketch in prepare.get("sketches", {}).items()}
    return {**prepare, "sketch": rename(prepare.get("sketch", {})), "sketches": changed}


def _find_evaluations(
    checkpoint: Path, info: CheckpointInfo, given: list[Path]
) -> tuple[dict[Path, Table], list[Path]]:
    """Return the evaluations of this checkpoint, and the paths of others that lie beside it.

    Those of earlier versions lack the checkpoint's sum; model and step are compared then.
    """
    sha256 = read_sum(checkpoint)
    found, others = {}, []
    for path in given or sorted(run_dir_of(checkpoint).glob("*/metrics.json")):
        metrics = _read_metrics(path)
        same_step = (metrics["model"], metrics["step"]) == (info.model.name, info.step)
        if same_step and metrics.get("sha256", sha256) == sha256:
            found[path] = metrics
        elif given and same_step:
            raise UserError(
                f"{path}: judges another checkpoint of step {info.step}, of SHA-256 "
                f"{metrics['sha256']}; this one's is {sha256}."
            )
        elif given:
            raise UserError(
                f"{path}: judges the model {metrics['model']!r} at step {metrics['step']}, "
                f"and this one is {info.model.name!r} at step {info.step}."
            )
        else:
            others.append(path)
    return found, others


def _read_metrics(path: Path) -> Table:
    check_plain(path)
    try:  # by its type: what else it holds, which may be a stranger's, takes no memory
        return dict(msgspec.json.decode(path.read_bytes(), type=Metrics))
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: is not what `eval` writes: {error}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as metrics: {reason(error)}.") from error
