"""The two data commands over a whole work folder: fetch and prepare."""

import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from pipeline.errors import DamagedError, UserError
from pipeline.executor import Runner, Summary, run_stage
from pipeline.hold import WHOLE, Part
from pipeline.lockfile.differences import check_recipe
from pipeline.lockfile.lock import Lock
from pipeline.pictures.sketch import pin_sketches
from pipeline.planning.folder import ensure_plan, keep_lock
from pipeline.planning.make import check_removals, find_metadata, say_what_is_cut
from pipeline.planning.plan import planned_shards
from pipeline.planning.plan_check import read_about
from pipeline.recipe import Recipe, SourceSettings
from pipeline.recipe_shared import content_settings, without_secrets
from pipeline.removals import read_removals
from pipeline.settings import Table, name_differences, to_table
from pipeline.shard_store.driver import ShardStore, canonical_store
from pipeline.shard_store.files import Kind
from pipeline.shards.rows import check_seal, peek_info, read_info
from pipeline.shards.shard import list_shards, rows_path
from pipeline.stages.duplicates import recall_duplicates
from pipeline.stages.fetch import FetchStage
from pipeline.stages.originals import check_source
from pipeline.stages.prepare import PrepareStage
from pipeline.urls import is_on_disk, is_web_template
from pipeline.web.shared import close_shared_clients
from pipeline.words import counted
from pipeline.work import Work

_PACE_OF_A_WORKER = 50.0
"""Requests a second that one worker makes, and looks at what comes, with ease."""


def fetch(
    recipe: Recipe,
    work: Work,
    console: Console,
    *,
    limit: int | None = None,
    num_workers: int = 1,
    retry_failed: bool = False,
    replan: bool = False,
    lock: Lock | None = None,
    part: Part = WHOLE,
    runner: Runner | None = None,
    store: str = "",
) -> Summary:
    """Select, plan, and fetch every planned original into ``raw/``; of a rank, its share of them.

    With a lock its posts are the plan, no metadata is read, and a copy of it stays in the folder,
    for ``compare``. What comes is kept as it comes, whether or not it is what the lock says.

    The first of several ranks makes the plan, and the others find it. Rate and connections are
    divided among them. What was set aside for reuse only a whole run clears away.

    With a ``store`` the shards go there, out of scratch folders of the machines that do them, and
    the folder has their rows only.

    Args:
        recipe: what is wanted, and where it comes from.
        work: the folder; it need not be there yet.
        console: is told how far it has come.
        limit: plan the first few wanted posts only.
        num_workers: worker processes, at most.
        retry_failed: ask again for what a retry may mend.
        replan: replace another plan in the folder; what is fetched is used again.
        lock: whose posts are the plan, in place of metadata.
        part: which rank this is.
        runner: what runs the stage; this machine's cores if None.
        store: URL of the store for the shards, "" for the folder itself.

    Raises:
        UserError: on wrong use, where the folder holds another plan and ``replan`` is not set, or
            where the lock is not the recipe's, or the store is out of reach or another data set's.
    """
    if store and replan:
        raise UserError(
            "--replan: what is in a store is not used again; plan in another work folder, with "
            "another --store."
        )
    store = canonical_store(store, work)
    if not recipe.source.images:
        raise UserError(f"recipe {recipe.name!r} names no pictures: give --images TEMPLATE.")
    check_source(recipe.source)
    if lock is not None:
        check_recipe(lock, recipe)
    num_workers = limit_workers(recipe.source, num_workers, part, console)
    with work.lock(part, console.print, store=store) as held:
        # Before a plan, which may take hours: the store may be out of reach.
        shard_store = ShardStore(store, work) if store else None
        if shard_store is not None:
            shard_store.clearing.adopt_removals()
        if lock is not None:
            check_removals(lock, read_removals(work.removals_path).post_ids)
        metadata = find_metadata(recipe, work, console) if lock is None else lock
        ensure_plan(recipe, work, limit, replan, metadata, held.has_peers)
        say_what_is_cut(read_about(work.plan_path).get("malformed", []), console)
        keep_lock(work, lock)
        planned = planned_shards(work.plan_path)
        if shard_store is not None:
            shard_store.join(part.choose(planned))
            runner = shard_store.wrap(runner)
        planned = held.begin(planned)
        _say_what_is_remade(work.raw_dir, planned, _of_originals, recipe, console)
        for old in work.old_works():
            there = list_shards(old.raw_dir)
            _say_what_is_remade(old.raw_dir, there, _of_originals, recipe, console)
            _say_what_is_damaged(old.raw_dir, there, console)
        stage = FetchStage(
            work,
            recipe.source,
            num_workers * part.world_size,
            retry_failed,
            index_dir=work.index_dir,
        )
        try:
            summary = run_stage(stage, planned, num_workers, "fetch", console, runner)
        finally:
            close_shared_clients()
        for directory in (work.reuse_dir, work.index_dir):
            if directory.is_dir() and not summary.errors and part.is_whole:
                shutil.rmtree(directory)
    return summary


def limit_workers(source: SourceSettings, num_workers: int, part: Part, console: Console) -> int:
    """Return how many workers ask a source, so that it is asked as often as it may be, and no more.

    They divide rate and connections evenly, and the share of an idle worker is lost. So at a low
    rate there is one worker, which has all of it.

    Raises:
        UserError: where there are more ranks than connections.
    """
    if is_on_disk(source.images):
        return num_workers
    share = source.connections // part.world_size
    if not share:
        raise UserError(
            f"source.connections is {source.connections}, fewer than the {part.world_size} ranks: "
            "each needs one. Start fewer ranks, or allow more with --set source.connections=N."
        )
    if source.rate and is_web_template(source.images):
        num_workers = min(num_workers, math.ceil(source.rate / _PACE_OF_A_WORKER))
    if num_workers > share:
        console.print(
            f"{share} of {num_workers} workers: source.connections allows {source.connections} "
            "requests at a time over all."
        )
    return min(num_workers, share)


def prepare(
    recipe: Recipe,
    work: Work,
    console: Console,
    *,
    num_workers: int = 1,
    part: Part = WHOLE,
    runner: Runner | None = None,
    store: str = "",
) -> Summary:
    """Crop, resize, sketch, and shard every fetched original into ``samples/``; or a rank's share.

    With a ``store`` the originals come from there and the samples go there, as in ``fetch``, which
    explains the arguments.

    Raises:
        UserError: where nothing has been fetched, for a rank where not everything has, where a
            sketch cannot be drawn as the recipe says, or as ``fetch`` with a store.
    """
    store = canonical_store(store, work)
    recipe = replace(recipe, prepare=pin_sketches(recipe.prepare))
    planned = planned_shards(work.plan_path)
    with work.lock(part, console.print, store=store) as held:
        if store:
            shard_store = ShardStore(store, work)
            shard_store.join(part.choose(planned), others=(Kind.RAW,))
            runner = shard_store.wrap(runner)
        there = set(list_shards(work.raw_dir))
        fetched = {name: size for name, size in planned.items() if name in there}
        if not fetched:
            raise UserError(f"{work.raw_dir}: nothing has been fetched yet; run `fetch` first.")
        if num_missing := len(planned) - len(fetched):
            is_not = "is not" if num_missing == 1 else "are not"
            missing = f"{num_missing} of {len(planned)} planned shards {is_not} fetched yet"
            if not part.is_whole:
                raise UserError(
                    f"{work.raw_dir}: {missing}, and near duplicates are looked for among "
                    "all; run `fetch` to its end first."
                )
            console.print(f"{missing}; preparing the others.")
        elif not held.has_peers:  # of the ranks that fetched none knew that it was the last one
            shutil.rmtree(work.index_dir, ignore_errors=True)
        _check_layout(recipe, work.raw_dir, fetched)
        stage = make_prepare_stage(recipe, work, list(fetched))
        chosen = held.begin(fetched)
        _say_what_is_remade(work.samples_dir, chosen, _of_samples, recipe, console)
        return run_stage(stage, chosen, num_workers, "prepare", console, runner)


def _check_layout(recipe: Recipe, raw_dir: Path, names: Iterable[str]) -> None:
    """Check that originals are cropped as what they were fetched as: only some are letterboxed.

    Raises:
        UserError: where they were fetched as another layout.
    """
    wanted = recipe.source.layout
    for name in names:
        try:
            layout = read_info(rows_path(raw_dir, name)).get("settings", {}).get("layout", wanted)
        except DamagedError:
            continue
        if layout != wanted:
            raise UserError(
                f"{rows_path(raw_dir, name)}: was fetched with source.layout {layout!r}, and this "
                f"would crop it as {wanted!r}. Give --set source.layout={layout}, or `fetch` anew."
            )


def _say_what_is_remade(
    directory: Path,
    names: Iterable[str],
    decisive: Callable[[Table], Table],
    recipe: Recipe,
    console: Console,
) -> None:
    """Say which finished shards have other settings than the recipe's, and are made anew.

    Out of a shard's info ``decisive`` takes the settings that decide it.
    """
    settings = content_settings(recipe.source)
    wanted, num = decisive({"recipe": to_table(recipe), "settings": settings}), 0
    differences: list[str] = []
    for name in names:
        try:
            info = peek_info(rows_path(directory, name))
        except DamagedError:
            continue
        if found := name_differences(decisive(info), wanted, "there"):
            num, differences = num + 1, differences or found
    if num:
        shards = counted(num, "shard has", "shards have")
        console.print(
            f"{directory}: {shards} other settings and will be made anew: {'; '.join(differences)}."
        )


def _say_what_is_damaged(raw_dir: Path, names: Iterable[str], console: Console) -> None:
    """Say of which shards nothing can be used again; neither `verify` nor `repair` looks there."""
    for name in names:
        try:
            check_seal(rows_path(raw_dir, name))
        except DamagedError as error:
            console.print(f"{error} Its posts are asked for again.")


def _of_originals(info: Table) -> Table:
    """Return, of a shard's settings, the one whose change has all originals fetched anew."""
    return {"source": {"images": info.get("settings", {}).get("images")}}


def _of_samples(info: Table) -> Table:
    """Return, of a shard's settings, those that decide samples."""
    recipe = info.get("recipe", {})
    source = recipe.get("source", {})
    decisive = {key: source.get(key) for key in ("layout", "max_pixels")}
    return {"prepare": recipe.get("prepare"), "source": decisive}


def make_prepare_stage(recipe: Recipe, work: Work, fetched: Sequence[str]) -> PrepareStage:
    """Return the stage that prepares the shards ``fetched``; compares all their originals.

    The recipe's sketches must be pinned, as they are in one that a shard of samples records.
    """
    bits, side = recipe.prepare.near_duplicates, recipe.min_content_side
    duplicates = recall_duplicates(work.duplicates_path, work.raw_dir, fetched, bits, side)
    needed = replace(without_secrets(recipe), prepare=recipe.prepare)  # with its networks' paths
    return PrepareStage(work, needed, duplicates)
