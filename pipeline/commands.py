"""The commands that look after a work folder: status, verify, repair, report, lock.

As all commands do: parse, call one function, print; heavy imports stay inside the commands. The
options and the few lines that other commands share are here too.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pipeline.errors import UserError
from pipeline.words import counted, harmless, is_utf8, sized

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.counts import Asked
    from pipeline.hold import Part
    from pipeline.recipe import Recipe
    from pipeline.work import Work


def named_folder(text: str) -> Path:
    """Return the folder that a word of the command line names.

    Raises:
        UserError: where it is empty, as a variable is that is not set: none is meant then.
    """
    if not text:
        raise UserError("'': names no folder; the current one is `.`. Is a variable not set?")
    return Path(text)


RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A name in manifests/, or the path of a TOML file.")
]
WorkFolder = Annotated[
    Path, typer.Argument(metavar="WORK", parser=named_folder, help="A work folder.")
]
WorkDir = Annotated[
    Path | None,
    typer.Option(
        "--work", metavar="WORK", parser=named_folder, help="Work folder; data/NAME by default."
    ),
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
    int, typer.Option("--workers", min=1, help="Worker processes.", show_default="one a core")
]
AnyWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
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
    str,
    typer.Option(
        "--store",
        metavar="URL",
        help="Keep the shards there: s3://..., another store, or a folder. Machines need only "
        "scratch space; WORK keeps the shards' rows, and need not be shared.",
    ),
]
Rank = Annotated[
    int | None,
    typer.Option("--rank", min=0, help="Do only share I of N of the shards, I from 0 to N - 1."),
]
WorldSize = Annotated[
    int | None,
    typer.Option("--world-size", min=1, help="N: how many such commands share the work folder."),
]


def status(
    work: WorkFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show what became of every record, and that the fates add up."""
    from pipeline.counts import count_retryable
    from pipeline.status import read_status, status_table
    from pipeline.work import Work

    found = read_status(Work(work))
    if as_json:
        print(json.dumps(status_table(found), indent=2))
    else:
        print_counts("select", found.select, found.num_records)
        for name, stage in found.stages.items():
            print_counts(name, dict(stage.fates), stage.num_expected)
            shards = counted(found.num_shards, "shard")
            print(f"  in {stage.num_shards} of {shards}, {sized(stage.num_bytes)}")
            if name == "fetch" and (num_retryable := count_retryable(stage.fates)):
                print(f"  `fetch --retry-failed` may mend {num_retryable}")
        _print_ledger(found.asked)
    if not found.adds_up:
        fail(f"{work}: the fates do not add up; run `verify {work}`.")


def verify(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", parser=named_folder, help="A work folder, or a folder of shards."
        ),
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Check only rows and sizes.")] = False,
) -> None:
    """Check every hash and every promise of a data folder."""
    from pipeline.verify import name_remedy
    from pipeline.verify import verify as check

    problems = check(directory, quick)
    for problem in problems:
        print(harmless(problem))
    if problems:
        found = counted(len(problems), "problem")
        is_stale = all(problem.is_stale for problem in problems)
        remedy = "`prepare` makes samples anew." if is_stale else name_remedy(directory)
        fail(f"{found}; {remedy}")
    print(f"{directory}: every promise holds.")


def repair(
    work: WorkFolder,
    images: Annotated[
        str,
        typer.Option(metavar="TEMPLATE", help="Where the originals are now, if they have moved."),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
    ] = False,
    workers: Workers = os.cpu_count() or 1,
) -> None:
    """Make anew what `verify` finds broken, and nothing else."""
    from pipeline.repair import recorded_source, sort_damage
    from pipeline.repair import repair as mend
    from pipeline.verify import check_is_repairable
    from pipeline.verify import verify as check
    from pipeline.work import Work

    place = Work(work)
    if dry_run:
        check_is_repairable(place)
        problems = check(work)
        damage = sort_damage(place, problems)
        for problem in problems:
            print(harmless(problem))
        if damage.raw and not damage.plan:
            source = harmless(recorded_source(place, images).images)
            print(f"would ask {source} for originals that are lost.")
        todo = [*(["the plan"] * damage.plan), *damage.raw, *damage.samples]
        print(f"would make anew: {', '.join(todo) or 'nothing'}.")
        if damage.stale:
            print(f"out of date, for `prepare`: {', '.join(damage.stale)}.")
        return
    repaired = mend(place, console(), images=images, num_workers=workers)
    for problem in repaired.problems:
        print(harmless(problem))
    if repaired.problems:
        left = counted(len(repaired.problems), "problem is", "problems are")
        fail(f"{left} left, which only you can mend.")
    if repaired.num_failed:
        failed = counted(repaired.num_failed, "original")
        fail(f"{failed} did not come; run `fetch --retry-failed`.")
    if repaired.stale or repaired.removed:
        names = ", ".join([*repaired.stale, *repaired.removed])
        fail(f"samples of {names} are missing or out of date; run `prepare` again.")
    print(f"{work}: every promise holds.")


def report(
    work: WorkFolder,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="WORK/report.html by default.")
    ] = None,
) -> None:
    """Write one page to look at: fates, figures and pictures."""
    from pipeline.report.page import write_report
    from pipeline.work import Work

    place = out if out is not None else Work(work).report_path
    write_report(Work(work), place)
    print(place)


def lock(
    recipe: RecipeName,
    work: WorkDir = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="posts.parquet beside the recipe by default."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the folder with the lock; write no lock.")
    ] = False,
    overrides: Overrides = [],
) -> None:
    """Write down what was got, so that `fetch --locked` gets it again."""
    from pipeline.differences import check_folder
    from pipeline.lock import lock_beside, write_lock
    from pipeline.recipe import find_recipe

    chosen = recipe_of(recipe, overrides)
    place = work_of(work, chosen)
    path = out if out is not None else lock_beside(find_recipe(recipe))
    check_writable_name("--out", str(path))
    if check:
        if wrong := compare(path, place, chosen):
            fail(wrong[0])
        return
    check_folder(place, chosen)
    found = write_lock(place, path)
    posts = counted(len(found.posts), "post")
    samples = counted(found.info.fates.get("kept", 0), "sample")
    print(f"{path}: {posts}, {samples}, {sized(path.stat().st_size)}")


def compare(lock_path: Path, work: "Work", recipe: "Recipe") -> list[str]:
    """Print what is not as a lock says; return the sentence to fail with, if any."""
    from pipeline.differences import compare as find_differences
    from pipeline.lock import read_lock

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


def recipe_of(name: str, overrides: list[str]) -> "Recipe":
    """Return the recipe that a command is to follow, by its options."""
    from pipeline.recipe import load_recipe

    return load_recipe(name, overrides)


def work_of(path: Path | None, recipe: "Recipe") -> "Work":
    """Return the folder that a command is to work in, by its options."""
    from pipeline.work import Work

    return Work(path if path is not None else Path("data") / recipe.name)


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


def _print_ledger(asked: "Asked") -> None:
    if asked.num_posts:
        print(
            f"  {counted(asked.num_attempts, 'request')} for {counted(asked.num_posts, 'post')}, "
            f"{sized(asked.num_bytes)}, {asked.seconds / 3600:.2f} hours of waiting"
        )
        statuses = sorted(asked.http_statuses.items(), key=lambda item: -item[1])
        named = (f"{'none' if status == '0' else status}: {n}" for status, n in statuses)
        print("  HTTP " + ", ".join(named))


def print_counts(stage: str, counts: dict[str, int], num_in: int) -> None:
    """Print what came of a stage, the most frequent fate first."""
    print(f"{stage}: {num_in} in")
    for fate, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        print(f"{count:>10}  {fate}")


def console() -> "Console":
    """Return where progress and advice are shown: standard error."""
    from pipeline.console import PlainConsole

    return PlainConsole(stderr=True)


def fail(message: str) -> NoReturn:
    """Print a sentence and end the command with exit code 1."""
    print(harmless(message), file=sys.stderr)
    raise typer.Exit(1)
