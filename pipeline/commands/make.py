"""The commands that make a data set: fetch, prepare."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.common import (
    AnyWorkers,
    Executor,
    Overrides,
    Rank,
    RayAddress,
    RecipeName,
    StoreUrl,
    WorkDir,
    WorldSize,
    check_writable_name,
    compare,
    console,
    fail,
    part_of,
    print_counts,
    runner_of,
    telling_what_mends,
    work_of,
)
from pipeline.records import NOT_ALLOWED
from pipeline.words import counted, harmless

if TYPE_CHECKING:
    from pipeline.executor import Summary
    from pipeline.hold import Part
    from pipeline.recipe import Recipe
    from pipeline.work import Work

_LEAN = "OPENBLAS_NUM_THREADS", "1"
"""For the workers: of the threads that OpenBLAS starts, one for each core, they have no use."""

_NUM_SHOWN = 5  # hosts


def fetch(
    recipe: RecipeName,
    metadata: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL",
            help="File or folder of Danbooru metadata, or an API's https://.../posts.json.",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE", help="URL or path with {id} {bucket} {ext} {md5}, or {file_url}."
        ),
    ] = None,
    work: WorkDir = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N wanted posts.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; change nothing.")] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Ask again for posts that failed, whose file was missing, or whose host was not "
            "allowed.",
        ),
    ] = False,
    locked: Annotated[
        bool,
        typer.Option(
            "--locked", help="Fetch the posts in the lock beside the recipe; needs no metadata."
        ),
    ] = False,
    replan: Annotated[
        bool, typer.Option("--replan", help="Make a new plan, even where the folder holds another.")
    ] = False,
    workers: AnyWorkers = None,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    store: StoreUrl = None,
    rank: Rank = None,
    world_size: WorldSize = None,
    overrides: Overrides = [],
) -> None:
    """Select posts, plan splits and shards, download the originals."""
    os.environ.setdefault(*_LEAN)
    from dataclasses import replace

    from pipeline import run
    from pipeline.errors import UserError
    from pipeline.lockfile.lock import lock_beside, read_lock
    from pipeline.planning.make import find_metadata, make_plan, say_what_is_cut
    from pipeline.recipe_file import find_recipe, load_recipe
    from pipeline.removals import read_removals
    from pipeline.stages.originals import check_source
    from pipeline.stages.reuse import count_unfetched

    chosen = load_recipe(recipe, overrides)
    options: dict[str, Any] = {"metadata": metadata, "images": images}
    given = {name: text for name, text in options.items() if text is not None}
    for name, text in given.items():
        check_writable_name(f"--{name}", text)
    chosen = replace(chosen, source=replace(chosen.source, **given))
    place = work_of(work, chosen)
    part = part_of(rank, world_size)
    lock = None
    if locked:
        if metadata is not None or limit is not None:
            raise UserError("--locked takes the lock's posts: leave --metadata and --limit out.")
        lock = read_lock(lock_beside(find_recipe(recipe)))
    if dry_run:
        if chosen.source.images:  # it may be counted before one is known
            check_source(chosen.source)
        found = lock or find_metadata(chosen, place, console(), keeps_pages=False)
        plan = make_plan(chosen, limit, found, read_removals(place.removals_path).post_ids)
        say_what_is_cut(plan.malformed, console())
        print_counts("select", plan.counts, plan.num_records)
        num_unfetched = count_unfetched(place, plan.posts, chosen.source, retry_failed=retry_failed)
        print(f"{counted(num_unfetched, 'original')} would be fetched.")
        return
    runner, num_workers = runner_of(executor, ray_address, workers)
    summary = run.fetch(
        chosen,
        place,
        console(),
        limit=limit,
        num_workers=num_workers,
        retry_failed=retry_failed,
        replan=replan,
        lock=lock,
        part=part,
        runner=runner,
        store=store or "",
    )
    _finish("fetch", summary, place, chosen, part)


def prepare(
    recipe: RecipeName,
    work: WorkDir = None,
    workers: AnyWorkers = None,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    store: StoreUrl = None,
    rank: Rank = None,
    world_size: WorldSize = None,
    overrides: Overrides = [],
) -> None:
    """Crop, resize, draw the sketch, and write shards of samples."""
    os.environ.setdefault(*_LEAN)
    from pipeline import run
    from pipeline.recipe_file import load_recipe

    chosen = load_recipe(recipe, overrides)
    place = work_of(work, chosen)
    part = part_of(rank, world_size)
    runner, num_workers = runner_of(executor, ray_address, workers)
    with telling_what_mends(place):
        summary = run.prepare(
            chosen,
            place,
            console(),
            num_workers=num_workers,
            part=part,
            runner=runner,
            store=store or "",
        )
    _finish("prepare", summary, place, chosen, part)


def _finish(stage: str, summary: "Summary", work: "Work", recipe: "Recipe", part: "Part") -> None:
    """Print a stage's fates; exit 1 where a rerun may mend something, or a lock is not kept.

    One rank of several cannot tell yet whether the lock is kept.
    """
    from pipeline.counts import count_failed
    from pipeline.urls import without_password

    name = stage if part.is_whole else f"{stage}, {part}"
    print_counts(name, dict(summary.fates), summary.fates.total())
    for name, why in sorted(summary.errors.items()):
        print(harmless(f"shard {name} failed: {why}"), file=sys.stderr)
    num_failed = count_failed(summary.fates)
    wrong = []
    if summary.errors:
        shards = counted(len(summary.errors), "shard is", "shards are")
        wrong.append(f"{shards} not done; {_name_remedy(summary, work)}")
    elif num_failed:
        posts = counted(num_failed, "post")
        wrong.append(f"{posts} failed; `fetch --retry-failed` asks again.")
    num_astray = summary.fates[str(NOT_ALLOWED)]
    if stage == "fetch" and num_astray:
        said = _describe_refused_hosts(num_astray, work, recipe)
        print(harmless(said), file=sys.stderr)
    num_missing = summary.fates["missing/no_file"] + summary.fates["missing/http_404"]
    if stage == "fetch" and num_missing == summary.fates.total() > 0:
        images = harmless(without_password(recipe.source.images))
        print(f"no picture is there: does {images} name them as they are called?", file=sys.stderr)
    if part.is_whole and work.lock_path.is_file():
        wrong += compare(work.lock_path, work, recipe)
    if wrong:
        fail("\n".join(wrong))


def _name_remedy(summary: "Summary", work: "Work") -> str:
    """Return what mends shards that are not done."""
    named = (Path(why.partition(": ")[0]) for why in summary.errors.values())
    if not work.store and any(path.parent == work.raw_dir for path in named):
        return (
            f"`repair {work.root}` makes damaged originals anew. Then run the same command again."
        )
    rest = "" if work.store else f" If that is no help: `verify {work.root}`."
    return f"run the same command again.{rest}"


def _describe_refused_hosts(num_posts: int, work: "Work", recipe: "Recipe") -> str:
    """Say of posts to which hosts they lead that may not be asked, and what lets them be asked."""
    from pipeline.stages.ledger import read_refused_hosts
    from pipeline.web.hosts import allowed_hosts

    found = read_refused_hosts(work.ledger_dir.glob("*.parquet"))
    posts = counted(num_posts, "post leads", "posts lead")
    hosts = sorted(found - allowed_hosts(recipe.source))
    shown = (hosts or sorted(found))[:_NUM_SHOWN]
    if found and not hosts:  # named since then, or their names lead where they may not
        return (
            f"{posts} to {', '.join(shown)}, now named: --retry-failed asks again. A name that "
            "leads to a private address is asked only where --images or --metadata has it."
        )
    more = " and more" if len(hosts) > _NUM_SHOWN else ""
    names = f": {', '.join(shown)}{more}" if shown else ""
    setting = shlex.quote(
        f"source.hosts={json.dumps([*recipe.source.hosts, *(shown or ['HOST'])])}"
    )
    where = "hosts" if len(hosts) > 1 else "a host"
    return (
        f"{posts} to {where} that may not be asked{names}. To have posts from there: "
        f"--set {setting} --retry-failed."
    )
