"""What commands of the model's side share: options, the work folder around a run, its samples."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.common import named_path

if TYPE_CHECKING:
    from pipeline.work import Work

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", parser=named_path, help="A run's folder, or a .safetensors file."
    ),
]
DEVICES = "auto|cpu|cuda|cuda:1"
Device = Annotated[str, typer.Option(metavar=DEVICES, help="Where to compute.")]
Guidance = Annotated[
    float,
    typer.Option(
        metavar="NUMBER",
        help="How closely to follow the reference: 0 not at all, 1 as in training, up to 3.",
    ),
]
StyleWeights = Annotated[
    str, typer.Option(metavar="PATH", help="The style network's weights, if they have moved.")
]


def work_around(run_dir: Path) -> "Work | None":
    """Return the work folder that has a run's folder among its ``runs``, None where none has."""
    from pipeline.work import Work

    for path in (run_dir, Path(os.path.realpath(run_dir))):  # as it was given, or from within: "."
        if path.parent.name == "runs":
            return Work(path.parent.parent)
    return None


def say_what_is_missing(work: "Work", *splits: str) -> None:
    """Say it where planned shards of some splits have no samples, as after a stopped `prepare`.

    Samples need no plan beside them: without one, or with a damaged one, there is nothing to say.
    """
    from pipeline.commands.common import console
    from pipeline.errors import UserError
    from pipeline.planning.plan import planned_shards
    from pipeline.shards.shard import list_shards, parse_shard_name
    from pipeline.words import counted

    try:
        names = planned_shards(work.plan_path)
    except UserError:
        return
    planned = {name for name in names if parse_shard_name(name)[0] in splits}
    num_missing = len(planned - set(list_shards(work.samples_dir)))
    if 0 < num_missing < len(planned):  # of none at all its reader tells
        shards = counted(len(planned), "planned shard")
        console().print(
            f"{work.samples_dir}: lacks {num_missing} of {shards} of {' and '.join(splits)}; this "
            "goes on without. `prepare`, or `pull`, brings the rest."
        )
