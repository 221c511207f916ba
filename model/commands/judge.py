"""The commands that judge a model, and compare several: eval, runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from model.commands.common import (
    Checkpoint,
    Device,
    Guidance,
    StyleWeights,
    say_what_is_missing,
    work_around,
)
from pipeline.commands.common import WorkFolder, path_option
from pipeline.words import counted, harmless


def evaluate(
    checkpoint: Checkpoint,
    work: Annotated[
        Path | None,
        path_option(
            "--work",
            metavar="WORK",
            help="Folder with the samples; by default the one that the run lies in.",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="train|val|test", help="Whose pictures to judge on.")
    ] = "test",
    out: Annotated[
        Path | None, path_option(metavar="DIR", help="Beside the checkpoint by default.")
    ] = None,
    fid_weights: Annotated[
        str, typer.Option(metavar="PATH", help="Inception weights for FID and KID.")
    ] = "",
    lpips_weights: Annotated[
        str, typer.Option(metavar="PATH", help="AlexNet weights for LPIPS.")
    ] = "",
    guidance: Guidance = 1.0,
    device: Device = "auto",
    style_weights: StyleWeights = "",
    reference: Annotated[
        list[str],
        typer.Option(
            metavar="SETTING|PATH",
            help="What each picture is coloured after. self: itself; same: itself, recoloured and "
            "warped; character: another drawing of its character; any: any other picture; or the "
            "path of a picture. Repeatable.",
        ),
    ] = ["self"],
    overrides: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a value of the evaluation: eval.batch_size=8. Repeatable.",
        ),
    ] = [],
) -> None:
    """Judge a checkpoint: metrics.json, rows.parquet, grid.png."""
    from dataclasses import make_dataclass

    from model.checkpoint import read_sum, run_dir_of
    from model.config import EvalConfig
    from model.evaluation.evaluate import evaluate as run_evaluation
    from model.evaluation.evaluate import grid_name
    from pipeline.errors import UserError
    from pipeline.settings import apply_overrides, convert
    from pipeline.shards.shard import check_split
    from pipeline.work import Work

    check_split(split, f"--split {split}")
    flags = {
        "fid_weights": fid_weights,
        "lpips_weights": lpips_weights,
        "guidance": guidance,
        "device": device,
        "style_weights": style_weights,
        "reference": reference,
    }
    tables = apply_overrides({"eval": flags}, overrides)
    where = " ".join(f"--set {override}" for override in overrides) or "eval"
    config: EvalConfig = convert(
        tables, make_dataclass("Settings", [("eval", EvalConfig)]), where
    ).eval
    run_dir = run_dir_of(checkpoint)
    out_dir = out if out is not None else run_dir / _eval_name(checkpoint, split)
    if (place := Work(work) if work is not None else work_around(run_dir)) is None:
        read_sum(checkpoint)  # where there is none, that is what to say
        raise UserError(f"{checkpoint}: is not in a WORK/runs/NAME; say with --work whose samples.")
    place.check_store()
    if not place.samples_dir.is_dir():  # it was streamed, say
        raise UserError(
            f"{place.root}: has no samples. Pull them there, or say with --work whose samples."
        )
    say_what_is_missing(place, split)
    metrics = run_evaluation(checkpoint, place.samples_dir, split, out_dir, config)
    for block in metrics["settings"].values():
        print_metrics(metrics["model"], split, block)
    grids = (grid_name(number, name) for number, name in enumerate(metrics["settings"]))
    print(f"{out_dir}: {', '.join(['metrics.json', 'rows.parquet', *grids])}")


def runs(
    work: WorkFolder,
    curves: Annotated[
        bool,
        typer.Option("--curves", help="Draw learning curves as PNG files beside the runs."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Compare the training runs of a work folder."""
    from dataclasses import asdict

    from model.training.curves import draw_curves
    from model.training.runs import read_runs, tabulate
    from pipeline.console import PlainConsole

    runs_dir = work / "runs"
    found = read_runs(runs_dir)
    pictures = draw_curves(found, runs_dir) if curves else []
    if as_json:
        print(json.dumps([asdict(run) for run in found], indent=2))
        return
    console = PlainConsole(stderr=False)
    console.width = 1000  # a narrow terminal breaks lines itself; columns cut to fit say nothing
    console.print(tabulate(found))
    for path in pictures:
        print(path)


def _eval_name(checkpoint: Path, split: str) -> str:
    """Return the name of an evaluation's folder: each checkpoint of a run has its own.

    `export` looks into all folders beside the checkpoint.
    """
    is_chief = checkpoint.is_dir() or checkpoint.stem in ("best", "model")
    return f"eval-{split}" if is_chief else f"eval-{split}-{checkpoint.stem}"


def print_metrics(model: str, split: str, metrics: dict[str, Any]) -> None:
    """Print one setting's figures, of the model and the baselines, and what is not there."""
    from model.evaluation.remarks import remarks

    seen = ("following", "chroma_error", "regional_error", "paper_error")
    names = ("mse", "psnr", "ssim", "lpips", "fid", "kid", *seen)
    measures = [name for name in names if metrics.get(name) is not None]
    samples = counted(metrics["num_samples"], f"{split} sample")
    file = f" ({harmless(metrics['file'])})" if "file" in metrics else ""
    print(f"{samples}, reference: {metrics['reference']}{file}")
    print_table({model: metrics, **metrics["baselines"]}, measures)
    reasons = metrics["unavailable"]
    for why in dict.fromkeys(reasons.values()):
        print(f"no {', '.join(name for name in names if reasons.get(name) == why)}: {why}")
    for text in remarks(metrics).values():
        print(text)


def print_table(answers: Mapping[str, Mapping[str, Any]], measures: Sequence[str]) -> None:
    """Print figures by name, a measure a row: as columns they are too wide for a terminal."""
    print(" " * 14 + "".join(f"{name:>11}" for name in answers))
    for measure in measures:
        cells = (figures.get(measure) for figures in answers.values())
        texts = ("-" if c is None else f"{round(c, 4) + 0:.4f}" for c in cells)  # without a -0
        print(f"{measure:14}" + "".join(f"{text:>11}" for text in texts))
