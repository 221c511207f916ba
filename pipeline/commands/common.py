"""What commands share: their options, and the few lines that several of them need."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pipeline.errors import DamagedError, UserError, install
from pipeline.urls import check_no_home
from pipeline.words import counted, harmless, is_utf8

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.executor import Runner
    from pipeline.hold import Part
    from pipeline.recipe import Recipe
    from pipeline.work import Work

_DATA = Path("data")
"""Where the work folders are that no option names, each called as its recipe."""


def named_path(text: str) -> Path:
    """Return the file or folder that a word of the command line names.

    Raises:
        UserError: where it is empty, as a variable is that is not set: none is meant then; or where
            it begins with the ~ of a home folder.
    """
    if not text:
        raise UserError(
            "'': names no file and no folder; the current one is `.`. Is a variable not set?"
        )
    check_no_home(text)
    return Path(text)


def named_store(text: str) -> str:
    """Return the store that a word of the command line names.

    Raises:
        UserError: where it is empty: without a store all would be kept on this disk.
    """
    if not text:
        raise UserError("--store '': names no store. Is a variable not set?")
    return text


path_option = partial(typer.Option, parser=named_path)
"""Declares an option that names a file or folder, as ``typer.Option`` does any."""


def made_folder(text: str) -> Path:
    """Return the folder that a word of the command line names, where one is expected to be.

    Raises:
        UserError: where it names a recipe instead, whose folder is in its usual place.
    """
    folder, usual = named_path(text), _DATA / text
    if not os.path.lexists(folder) and usual.is_dir():
        raise UserError(f"{text}: no such folder; the recipe's is {usual}.")
    return folder


def _recipe_name(text: str) -> str:
    """Return the name or path of a recipe; its lock is written beside it."""
    named_path(text)
    return text


RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        parser=_recipe_name,
        help="A name in manifests/, or the path of a TOML file.",
    ),
]
WorkFolder = Annotated[
    Path, typer.Argument(metavar="WORK", parser=made_folder, help="A work folder.")
]
WorkDir = Annotated[
    Path | None, path_option("--work", metavar="WORK", help="Work folder; data/NAME by default.")
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a value of the recipe: prepare.size=128. Repeatable.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help="Worker processes; one for each core by default.",
        show_default=False,
    ),
]
AnyWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help="Worker processes here, or tasks on a cluster; one for each core by default.",
    ),
]
Executor = Annotated[
    str,
    typer.Option(metavar="local|ray", help="Where the work is done: on this machine, or on Ray."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT|auto",
        help="The Ray cluster's head; auto: the one on this machine. Without this option and "
        "RAY_ADDRESS, a cluster is started.",
    ),
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        parser=named_store,
        help="Keep the shards there: s3://..., another store, or a folder. Machines need only "
        "scratch space; WORK keeps the shards' rows, and need not be shared.",
    ),
]
Rank = Annotated[
    int | None,
    typer.Option(
        "--rank", min=0, metavar="I", help="Do only share I of N of the shards, I from 0 to N - 1."
    ),
]
WorldSize = Annotated[
    int | None,
    typer.Option(
        "--world-size", min=1, metavar="N", help="N: how many such commands share the work folder."
    ),
]


def compare(lock_path: Path, work: "Work", recipe: "Recipe") -> list[str]:
    """Print what is not as a lock says; return the sentence to fail with, if any."""
    from pipeline.lockfile.differences import compare as find_differences
    from pipeline.lockfile.lock import read_lock

    found = find_differences(read_lock(lock_path), work, recipe)
    print_counts("lock", dict(found.counts), found.counts.total())
    for note in found.notes:
        print(harmless(note))
    if not found.num_different:
        return []
    different = counted(found.num_different, "post is", "posts are")
    where = f"see {work.differences_path}."
    if found.why_unwritten:
        where = f"{work.differences_path}: cannot be written: {found.why_unwritten}."
    return [f"{different} not as locked; {where}"]


def work_of(path: Path | None, recipe: "Recipe") -> "Work":
    """Return the folder that a command is to work in, by its options."""
    from pipeline.work import Work

    return Work(path if path is not None else _DATA / recipe.name)


@contextmanager
def telling_what_mends(work: "Work") -> Iterator[None]:
    """Say of damage in a work folder, where nothing is said of what to do, who knows it.

    Beside a run it may be none: a shard that is made anew is not there for a moment.

    Raises:
        DamagedError: where something is damaged.
    """
    from pipeline.hold import is_held

    try:
        yield
    except DamagedError as error:
        path = Path(str(error).partition(": ")[0])
        if not path.is_relative_to(work.root) or "`" in str(error) or work.store:
            raise
        if is_held(work.root):
            raise DamagedError(
                f"{error} A run is using {work.root}: look again when it has ended."
            ) from error
        raise DamagedError(f"{error} `verify {work.root}` says what mends it.") from error


def check_writable_name(option: str, text: str) -> None:
    """Check that a path or URL of the command line can be written into what is made from it.

    Raises:
        UserError: where its bytes are no UTF-8, as names from old archives may be.
    """
    if not is_utf8(text):
        raise UserError(
            f"{option} {text!a}: is not UTF-8, as what is written here must be; so must the locale."
        )


def part_of(rank: int | None, world_size: int | None) -> "Part":
    """Return which part of the shards a command is to do, by its options."""
    from pipeline.hold import WHOLE, Part

    if rank is None and world_size is None:
        return WHOLE
    if rank is None or world_size is None:
        raise UserError("--rank I and --world-size N go together: part I of N of the shards.")
    return Part(rank, world_size)


def runner_of(
    executor: str, address: str | None, num_workers: int | None
) -> tuple["Runner | None", int]:
    """Return what runs stages, None for this machine, and how many workers: by default one a CPU.

    Raises:
        UserError: on another executor, or where the cluster is out of reach.
    """
    if executor == "ray":
        try:
            from pipeline.executor_ray import connect, run_on_ray
        except ImportError as error:
            raise UserError(f"--executor ray needs Ray: {install('ray')}.") from error
        num_cpus = connect(address)
        return run_on_ray, num_workers or num_cpus
    if executor != "local" or address is not None:
        raise UserError("--executor is local, or ray, which takes --ray-address.")
    return None, num_workers or os.cpu_count() or 1


def print_counts(stage: str, counts: dict[str, int], num_in: int) -> None:
    """Print what came of a stage, the most frequent fate first."""
    print(f"{stage}: {num_in} in")
    for fate, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        print(f"{count:>10}  {harmless(fate)}")


def console() -> "Console":
    """Return where progress and advice are shown: standard error."""
    from pipeline.console import PlainConsole

    return PlainConsole(stderr=True)


def fail(message: str) -> NoReturn:
    """Print a sentence and end the command with exit code 1."""
    print(harmless(message), file=sys.stderr)
    raise typer.Exit(1)
