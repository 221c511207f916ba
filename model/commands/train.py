"""The commands that train, judge and compare models.

As all commands do: parse, call one function, print; heavy imports stay inside the commands.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.common import (
    Overrides,
    RecipeName,
    WorkDir,
    WorkFolder,
    named_folder,
    recipe_of,
    work_of,
)
from pipeline.words import counted, harmless

if TYPE_CHECKING:
    from pipeline.work import Work

Checkpoint = Annotated[
    Path,
    typer.Argument(metavar="CHECKPOINT", help="A run's folder, or a .safetensors file."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
StyleWeights = Annotated[
    str, typer.Option(metavar="PATH", help="The style network's weights, if they have moved.")
]

_CACHE_SIZE = 20.0  # GB
_MAX_CACHE_SIZE = 1e6  # GB


def train(
    recipe: RecipeName,
    work: WorkDir = None,
    run: Annotated[
        str, typer.Option("--run", metavar="NAME", help="Name of the run in WORK/runs.")
    ] = "default",
    model: Annotated[
        str | None,
        typer.Option(help="zhang2017, batchnorm, inception, reference; by default the recipe's."),
    ] = None,
    gan: Annotated[str | None, typer.Option(help="acgan, paper, patch or none.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of the whole run; by default the recipe's.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples a step; by default the recipe's.")
    ] = None,
    best_by: Annotated[
        str | None,
        typer.Option(
            help="Which figure chooses the best checkpoint: mse, chroma_error, regional_error, "
            "paper_error or following."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1.")] = None,
    style_weights: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|imagenet|random", help="The style network's weights; random is for tests."
        ),
    ] = None,
    style_train: Annotated[
        bool,
        typer.Option("--style-train", help="Train the style network too; frozen by default."),
    ] = False,
    shards: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Stream the data set that was pushed there, without a pull."
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where streamed shards are kept; WORK/cache by default."),
    ] = None,
    cache_size: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="GB",
            help=f"The most that the cache may hold; {_CACHE_SIZE:g} by default.",
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT", help="Begin with the weights of another training: fine-tune it."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint.")
    ] = False,
    overrides: Overrides = [],
) -> None:
    """Train a model on a work folder's samples, or on pushed ones."""
    from model.config import train_config
    from model.training.train import train as run_training
    from pipeline.errors import UserError
    from pipeline.settings import to_table
    from pipeline.share.stream import RemoteShards

    if shards is None and (cache is not None or cache_size is not None):
        raise UserError("--cache and --cache-size go with --shards URL: nothing is streamed here.")
    chosen = recipe_of(recipe, overrides)
    flags = {
        "model": model,
        "gan": gan,
        "epochs": epochs,
        "batch_size": batch_size,
        "best_by": best_by,
        "device": device,
        "style_weights": style_weights,
        "style_train": style_train or None,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    config = train_config(chosen.train | given, f"recipe {chosen.name!r}, [train]")
    place = work_of(work, chosen)
    run_dir = place.runs_dir / _run_name(run)
    with ExitStack() as stack:
        source: Path | RemoteShards = place.samples_dir
        if shards is None:
            place.check_store()
        else:
            num_gigabytes = _CACHE_SIZE if cache_size is None else cache_size
            if num_gigabytes > _MAX_CACHE_SIZE:
                raise UserError(
                    f"--cache-size {num_gigabytes}: give at most {_MAX_CACHE_SIZE:.0f} GB."
                )
            num_bytes = int(num_gigabytes * 1e9)
            source = RemoteShards(shards, cache or place.root / "cache", num_bytes)
            stack.callback(source.close)
            if os.environ.get("RANK", "0") == "0":
                print(source.describe(config.shuffle_shards))
        result = run_training(
            config,
            source,
            run_dir,
            style_dir=place.root / "style",
            recipe=to_table(chosen) if shards is None else None,  # or the samples' own
            init=init,
            resume=resume,
        )
    state = "finished" if result.finished else "stopped; --resume goes on"
    steps = counted(result.step, "step")
    best = "none yet" if result.best is None else f"{result.best:.4f}"
    if config.best_by == "following" and result.best is not None:
        best = f"{best} off 1"
    print(f"{run_dir}: {state} after {steps}, best by {config.best_by}: {best}")
    if not result.finished:  # what comes next in a script, or in `demo`, must not take it for done
        raise typer.Exit(130)


def evaluate(
    checkpoint: Checkpoint,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            metavar="WORK",
            parser=named_folder,
            help="Folder with the samples; by default the one that the run lies in.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Beside the checkpoint by default.")
    ] = None,
    fid_weights: Annotated[
        str, typer.Option(metavar="PATH", help="Inception weights for FID and KID.")
    ] = "",
    lpips_weights: Annotated[
        str, typer.Option(metavar="PATH", help="AlexNet weights for LPIPS.")
    ] = "",
    guidance: Annotated[
        float, typer.Option(help="How closely to follow the reference; 1: as in training.")
    ] = 1.0,
    style_weights: StyleWeights = "",
    reference: Annotated[
        list[str],
        typer.Option(
            help="What each picture is coloured after. self: itself; same: itself, recoloured and "
            "warped; character: another drawing of its character; any: any other picture; or the "
            "path of a picture. Repeatable."
        ),
    ] = ["self"],
    overrides: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Set a value of the evaluation: eval.batch_size=8."
        ),
    ] = [],
) -> None:
    """Judge a checkpoint: metrics.json, rows.parquet, grid.png."""
    from model.checkpoint import read_sum, run_dir_of
    from model.config import EvalConfig
    from model.evaluation.evaluate import evaluate as run_evaluation
    from model.evaluation.evaluate import grid_name
    from pipeline.errors import UserError
    from pipeline.schema import SPLITS
    from pipeline.settings import apply_overrides, convert
    from pipeline.work import Work

    if split not in SPLITS:
        raise UserError(f"--split {split}: no such split; there are {', '.join(SPLITS)}.")
    flags = {
        "fid_weights": fid_weights,
        "lpips_weights": lpips_weights,
        "guidance": guidance,
        "style_weights": style_weights,
        "reference": reference,
    }
    tables = apply_overrides({"eval": flags}, overrides)
    if others := sorted(tables.keys() - {"eval"}):
        raise UserError(
            f"--set {others[0]}: an evaluation has eval.KEY only, as eval.batch_size=8."
        )
    config = convert(tables["eval"], EvalConfig, "eval")
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


def work_around(run_dir: Path) -> "Work | None":
    """Return the work folder that has a run's folder among its ``runs``, None where none has."""
    from pipeline.work import Work

    for path in (run_dir, run_dir.resolve()):  # as it was given, or from within: "."
        if path.parent.name == "runs":
            return Work(path.parent.parent)
    return None


def _eval_name(checkpoint: Path, split: str) -> str:
    """Return the name of an evaluation's folder: each checkpoint of a run has its own.

    `export` looks into all folders beside the checkpoint.
    """
    is_chief = checkpoint.is_dir() or checkpoint.stem in ("best", "model")
    return f"eval-{split}" if is_chief else f"eval-{split}-{checkpoint.stem}"


def _run_name(name: str) -> str:
    from pipeline.errors import UserError

    if not name or Path(name).name != name or name.startswith("."):
        raise UserError(f"--run {name!r}: a plain name, not a path.")
    return name


def print_metrics(model: str, split: str, metrics: dict[str, Any]) -> None:
    """Print one setting's figures, of the model and the baselines, and what is not there."""
    seen = ("following", "chroma_error", "regional_error", "paper_error")
    names = ("mse", "psnr", "ssim", "lpips", "fid", "kid", *seen)
    columns = [name for name in names if metrics.get(name) is not None]
    samples = counted(metrics["num_samples"], f"{split} sample")
    file = f" ({harmless(metrics['file'])})" if "file" in metrics else ""
    print(f"{samples}, reference: {metrics['reference']}{file}")
    print_table({model: metrics, **metrics["baselines"]}, columns)
    for name, why in metrics["unavailable"].items():
        print(f"no {name}: {why}")


def print_table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print figures by name, a row an answer."""
    print(" " * 12 + "".join(f"{name:>16}" for name in columns))
    for name, values in rows.items():
        cells = (values.get(column) for column in columns)
        texts = ("-" if c is None else f"{round(c, 4) + 0:.4f}" for c in cells)  # without a -0
        print(f"{name:12}" + "".join(f"{text:>16}" for text in texts))
