"""The commands that look at training runs.

As in ``cli.py``: parse, call one function, print; heavy imports stay inside the commands.
"""

import json
from pathlib import Path
from typing import Annotated

import typer


def runs(
    work: Annotated[Path, typer.Argument(metavar="WORK", help="A work folder.")],
    curves: Annotated[
        bool, typer.Option("--curves", help="Draw learning curves as PNG beside the runs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Compare the training runs of a work folder in a table, and their learning curves."""
    from dataclasses import asdict

    from rich.console import Console

    from model.curves import draw_curves
    from model.runs import read_runs, tabulate

    runs_dir = work / "runs"
    found = read_runs(runs_dir)
    pictures = draw_curves(found, runs_dir) if curves else []
    if as_json:
        print(json.dumps([asdict(run) for run in found], indent=2))
        return
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:  # a pipe has no width to keep to
        console.width = 1000
    console.print(tabulate(found))
    for path in pictures:
        print(path)
