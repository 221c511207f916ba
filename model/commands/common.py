"""What commands of the model's side share: their options, and the work folder around a run."""

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
