"""The command that trains a model."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from model.commands.common import DEVICES, say_what_is_missing
from pipeline.commands.common import Overrides, RecipeName, WorkDir, path_option, work_of
from pipeline.words import counted

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
        typer.Option(
            metavar="NAME",
            help="zhang2017, batchnorm, inception or reference; by default the recipe's.",
        ),
    ] = None,
    gan: Annotated[
        str | None,
        typer.Option(
            metavar="acgan|paper|patch|none", help="The adversary; by default the recipe's."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Epochs of the whole run; by default the recipe's."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Samples a step; by default the recipe's."),
    ] = None,
    best_by: Annotated[
        str | None,
        typer.Option(
            metavar="FIGURE",
            help="Which figure chooses the best checkpoint: mse, chroma_error, regional_error, "
            "paper_error or following.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar=DEVICES, help="Where to compute; by default the recipe's.")
    ] = None,
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
        path_option(metavar="DIR", help="Where streamed shards are kept; WORK/cache by default."),
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
        path_option(
            metavar="CHECKPOINT", help="Begin with the weights of another training: fine-tune it."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint.")
    ] = False,
    overrides: Overrides = [],
) -> None:
    """Train a model on a work folder's samples, or on pushed ones."""
    from model.config import STYLELESS, TrainConfig, train_config
    from pipeline.errors import UserError
    from pipeline.recipe_file import load_recipe
    from pipeline.settings import to_table
    from pipeline.share.stream import RemoteShards

    if shards is None and (cache is not None or cache_size is not None):
        raise UserError("--cache and --cache-size go with --shards URL: nothing is streamed here.")
    chosen = load_recipe(recipe, overrides, {"train": TrainConfig})
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
    if style_weights is not None and config.model in STYLELESS:
        raise UserError(
            f"--style-weights: the model {config.model!r} has no style network; leave them out."
        )
    place = work_of(work, chosen)
    run_dir = place.runs_dir / _run_name(run)
    is_first = os.environ.get("RANK", "0") == "0"  # of those that torchrun started; one speaks
    from model.training.train import train as run_training  # and torch, once all words are right

    with ExitStack() as stack:
        source: Path | RemoteShards = place.samples_dir
        if shards is None:
            place.check_store()
            if is_first:
                say_what_is_missing(place, "train", "val")
        else:
            num_gigabytes = _CACHE_SIZE if cache_size is None else cache_size
            if num_gigabytes > _MAX_CACHE_SIZE:
                raise UserError(
                    f"--cache-size {num_gigabytes}: give at most {_MAX_CACHE_SIZE:.0f} GB."
                )
            num_bytes = int(num_gigabytes * 1e9)
            source = RemoteShards(shards, cache or place.root / "cache", num_bytes)
            stack.callback(source.close)
            if is_first:
                print(source.describe(config.shuffle_shards))
        result = run_training(
            config,
            source,
            run_dir,
            style_dir=place.style_dir,
            recipe=to_table(chosen),
            init=init,
            resume=resume,
        )
    state = "finished" if result.finished else "stopped"
    steps = counted(result.step, "step")
    best = "none yet" if result.best is None else f"{result.best:.4f}"
    if config.best_by == "following" and result.best is not None:
        best = f"{best} off 1"
    if is_first:
        print(f"{run_dir}: {state} after {steps}, best by {config.best_by}: {best}")
    if not result.finished:  # what comes next in a script, or in `demo`, must not take it for done
        raise typer.Exit(130)


def _run_name(name: str) -> str:
    from pipeline.errors import UserError

    if not name or Path(name).name != name or name.startswith("."):
        raise UserError(f"--run {name!r}: a plain name, not a path.")
    return name
