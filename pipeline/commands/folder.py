"""The commands that look after a work folder: status, verify, repair, report, lock."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.common import (
    Overrides,
    RecipeName,
    WorkDir,
    Workers,
    WorkFolder,
    check_writable_name,
    compare,
    console,
    fail,
    made_folder,
    path_option,
    print_counts,
    telling_what_mends,
    work_of,
)
from pipeline.words import counted, harmless, sized

if TYPE_CHECKING:
    from pipeline.stages.ledger import FetchTotals
    from pipeline.work import Work


def status(
    work: WorkFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show what became of every record, and that the fates add up."""
    from pipeline.counts import count_retryable
    from pipeline.maintenance.status import read_status, status_table
    from pipeline.work import Work

    place = Work(work)
    with telling_what_mends(place):
        found = read_status(place)
    if as_json:
        print(json.dumps(status_table(found), indent=2))
    else:
        print_counts("select", found.select, found.num_records)
        for name, stage in found.stages.items():
            print_counts(name, dict(stage.fates), stage.num_expected)
            shards = counted(found.num_shards, "shard")
            print(f"  in {stage.num_shards} of {shards}, {sized(stage.num_bytes)}")
            if name == "fetch":
                _print_ledger(found.asked, place)
                if num_retryable := count_retryable(stage.fates):
                    print(f"  `fetch --retry-failed` asks again for {num_retryable}")
    if not found.adds_up:
        fail(f"{work}: the fates do not add up; run `verify {work}`.")


def verify(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", parser=made_folder, help="A work folder, or a folder of shards."
        ),
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Check only rows and sizes.")] = False,
) -> None:
    """Check every hash and every promise of a data folder."""
    from pipeline.maintenance.verify import find_run, name_remedy
    from pipeline.maintenance.verify import verify as check

    root = find_run(directory)
    problems = check(directory, quick)
    for problem in problems:
        print(harmless(problem))
    if problems:
        found = counted(len(problems), "problem")
        if root := root or find_run(directory):  # it may have ended, or begun, meanwhile
            fail(f"{found}; a run is using {root}: run `verify` again when it has ended.")
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
    from pipeline.maintenance.recorded import recorded_source
    from pipeline.maintenance.repair import repair as mend
    from pipeline.maintenance.repair import sort_damage
    from pipeline.maintenance.verify import check_is_repairable
    from pipeline.maintenance.verify import verify as check
    from pipeline.shards.shard import list_shards
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
        todo = ["the plan"] * damage.plan
        todo += [f"{place.raw_dir.name}/{name}" for name in damage.raw]
        todo += [f"{place.samples_dir.name}/{name}" for name in damage.samples]
        print(f"would make anew: {', '.join(todo) or 'nothing'}.")
        if damage.stale:
            print(f"out of date, for `prepare`: {', '.join(damage.stale)}.")
        return
    repaired = mend(place, console(), images=images, num_workers=workers)
    for problem in repaired.problems:
        print(harmless(problem))
    if repaired.problems:
        left = counted(len(repaired.problems), "problem is", "problems are")
        remedy = ""
        if not list_shards(place.raw_dir):  # samples whose originals are not here
            remedy = ": remove these files, and `pull` brings them anew"
        elif any(problem.path == place.lock_path for problem in repaired.problems):
            remedy = f": {place.lock_path.name} by the `fetch --locked` that brought it"
        fail(f"{left} left, which only you can mend{remedy}.")
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
        Path | None, path_option(metavar="FILE", help="WORK/report.html by default.")
    ] = None,
) -> None:
    """Write one page to look at: fates, figures and pictures."""
    from pipeline.report.page import write_report
    from pipeline.work import Work

    folder = Work(work)
    folder.check_takedown()
    place = out if out is not None else folder.report_path
    with telling_what_mends(folder):
        write_report(folder, place)
    print(place)


def lock(
    recipe: RecipeName,
    work: WorkDir = None,
    out: Annotated[
        Path | None, path_option(metavar="FILE", help="posts.parquet beside the recipe by default.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the folder with the lock; write no lock.")
    ] = False,
    overrides: Overrides = [],
) -> None:
    """Write down what was got, so that `fetch --locked` gets it again."""
    from pipeline.lockfile.differences import check_folder
    from pipeline.lockfile.lock import lock_beside, write_lock
    from pipeline.recipe_file import find_recipe, load_recipe

    chosen = load_recipe(recipe, overrides)
    place = work_of(work, chosen)
    path = out if out is not None else lock_beside(find_recipe(recipe))
    check_writable_name("--out", str(path))
    place.check_takedown()
    with telling_what_mends(place):
        if check:
            if wrong := compare(path, place, chosen):
                fail(wrong[0])
            return
        check_folder(place, chosen)
        found = write_lock(place, path)
    posts = counted(len(found.posts), "post")
    samples = counted(found.info.fates.get("kept", 0), "sample")
    print(f"{path}: {posts}, {samples}, {sized(path.stat().st_size)}")


def _print_ledger(asked: "FetchTotals", place: "Work") -> None:
    from pipeline.planning.plan import planned_recipe
    from pipeline.urls import is_on_disk

    if not asked.num_posts:
        return
    took = f"{counted(asked.num_attempts, 'request')} for {counted(asked.num_posts, 'post')}"
    waited = f", {asked.seconds / 3600:.2f} hours of waiting"
    if is_on_disk(planned_recipe(place.plan_path).source.images):
        waited = ""
    print(f"  {took}, {sized(asked.num_bytes)}{waited}")
    if asked.http_statuses.keys() == {"0"}:  # they lie on a disk, or no server answers
        return
    statuses = sorted(asked.http_statuses.items(), key=lambda item: -item[1])
    named = (f"{'none' if status == '0' else status}: {n}" for status, n in statuses)
    print(harmless("  HTTP " + ", ".join(named)))
