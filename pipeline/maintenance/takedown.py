"""takedown: posts out of shards, rows, plan, lock and card, for good; all else stays as it is.

Nothing is asked for and nothing is encoded anew: what stays is copied, byte for byte, into shards
without the others. The list of posts is written first, so that whatever ends the command, the same
one finishes it, and nothing else runs before.
"""

import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow.compute as pc

from pipeline.errors import DamagedError, UserError
from pipeline.lockfile.lock import rewrite_lock
from pipeline.maintenance.clearing import clear_differences, clear_plan, clear_stage
from pipeline.maintenance.recorded import recorded_recipes, stages_of
from pipeline.maintenance.takedown_check import check_lock, check_plan, check_shards, remove
from pipeline.planning.folder import lock_fingerprint
from pipeline.planning.plan import (
    hash_table,
    planned_recipe,
    planned_shards,
    read_plan,
    read_planned,
)
from pipeline.removals import Removals, Unfinished, clear_posts, read_removals, write_removals
from pipeline.report.page import write_report
from pipeline.schema import DUPLICATES, RAW, SAMPLES, Row, among
from pipeline.shard_store.driver import KINDS, ShardStore, canonical_store
from pipeline.shards.rows import read_info, read_rows
from pipeline.shards.shard import list_shards, rows_path
from pipeline.share.index import INDEX, LOCK, match_shard, read_index
from pipeline.share.sidecars import describe, path_of, write_sidecars
from pipeline.stages.duplicates import find_duplicates
from pipeline.stages.fetch import raw_fingerprint
from pipeline.work import Work


@dataclass(frozen=True, slots=True)
class TakenDown:
    """What a takedown came to.

    Attributes:
        post_ids: that it took down.
        also: of these, posts that were not named and show the same picture as one that was.
        left: posts that stay although a named one repeats their picture.
        shards: that were written anew.
    """

    post_ids: list[int]
    also: list[int]
    left: list[int]
    shards: tuple[str, ...]


def take_down(work: Work, post_ids: Collection[int], *, store: str = "") -> TakenDown:
    """Take posts down, and later ones that repeat their pictures and would take their places.

    Args:
        work: the folder.
        post_ids: none, to finish what was cut short.
        store: where the folder's shards are, "" for the folder itself.

    Raises:
        UserError: where a post is not of this folder's plan, what has to be copied is damaged, or
            the shards are not in that store.
    """
    if read_removals(work.removals_path).unfinished is None:
        check_plan(work, has_begun=False)  # before a lock is left there
    if store and not work.store:
        raise UserError(f"{work.root}: has its shards itself; leave --store out.")
    store = canonical_store(store, work)
    with work.lock(takes_down=True, store=store):
        before = read_removals(work.removals_path)
        has_begun = before.unfinished is not None
        check_plan(work, has_begun=has_begun)
        shard_store = ShardStore(store, work) if store else None
        if shard_store is not None and not has_begun:
            shard_store.join((), others=KINDS)  # ranks may have made some
        if not post_ids and not has_begun:
            raise UserError(f"{work.root}: nothing is left to be finished; name the posts.")
        named = set(post_ids) - set(before.post_ids)
        if named and has_begun:
            raise UserError(
                f"{work.root}: finish the last takedown first: `{work.takedown_command}`."
            )
        repeats = {}
        if not has_begun:
            _check_known(work, post_ids)
            repeats = _find_repeats(work)
        also = {post for post, lead in repeats.items() if lead in named} - named
        left = {repeats[post] for post in named & repeats.keys()} - named - set(before.post_ids)
        everything = sorted({*before.post_ids, *named, *also})
        shards = before.unfinished.shards if before.unfinished else _shards_of(work, everything)
        check_lock(work, has_begun=has_begun)
        if shard_store is None:
            check_shards(work, shards, has_begun=has_begun)
        elif not has_begun:
            shard_store.clearing.check(shards, everything)
        unfinished = before.unfinished or _look_ahead(work, shards, everything)
        write_removals(work.removals_path, Removals(tuple(everything), unfinished))
        _apply(work, everything, shards, unfinished, shard_store)
        write_removals(work.removals_path, Removals(tuple(everything)))
        if not has_begun:  # else those of the one that was cut short are among them
            shards = _shards_of(work, named | also)
    return TakenDown(sorted(named | also), sorted(also), sorted(left), shards)


def _find_repeats(work: Work) -> dict[int, int]:
    """Return the posts that repeat an earlier one's picture, with that one."""
    repeats: dict[int, int] = {}
    columns = ["post_id", "duplicate_of", "reason"]
    tables = [
        read_rows(rows_path(work.samples_dir, name), SAMPLES, columns)
        for name in list_shards(work.samples_dir)
    ]
    if fetched := list_shards(work.raw_dir):
        recipe = planned_recipe(work.plan_path)
        bits, side = recipe.prepare.near_duplicates, recipe.min_content_side
        tables.append(find_duplicates(work.raw_dir, fetched, bits, side))
    for table in tables:
        table = table.filter(pc.is_valid(table["duplicate_of"]))
        for row in table.to_pylist():
            if row["reason"] != "family":  # that is a relative of a repeat, with another picture
                repeats[row["post_id"]] = row["duplicate_of"]
    return repeats


def _check_known(work: Work, post_ids: Collection[int]) -> None:
    """Check that posts are planned, or that an earlier plan has left their originals here."""
    missing = set(post_ids)
    for name in planned_shards(work.plan_path):
        missing -= set(read_planned(work.plan_path, name)["post_id"].to_pylist())
    for aside in work.old_works() if missing else ():
        for name in list_shards(aside.raw_dir):
            with suppress(DamagedError):
                rows = read_rows(rows_path(aside.raw_dir, name), RAW, ["post_id"])
                missing -= set(rows["post_id"].to_pylist())
    if missing:
        raise UserError(f"{work.plan_path}: plans no post {min(missing)}; nothing was taken down.")


def _shards_of(work: Work, post_ids: Collection[int]) -> tuple[str, ...]:
    """Return the planned shards of some posts."""
    return tuple(
        name
        for name in planned_shards(work.plan_path)
        if pc.any(among(read_planned(work.plan_path, name), post_ids)).as_py()
    )


def _look_ahead(work: Work, shards: Sequence[str], post_ids: Collection[int]) -> Unfinished:
    """Return what a takedown must know whatever ends it, or is damaged before its end.

    Of the shards it says which are up to date, so that they still count as such afterwards.
    """
    raw = [
        name
        for name in shards
        if (wanted := _raw_fingerprint(work, name)) and wanted == _fingerprint(work.raw_dir, name)
    ]
    samples = [
        name
        for name, fingerprint in _sample_fingerprints(work, shards, ()).items()
        if fingerprint == _fingerprint(work.samples_dir, name)
    ]
    content = ""
    if work.store:
        content = hash_table(clear_posts(read_plan(work.plan_path), post_ids))
    return Unfinished(tuple(shards), tuple(raw), tuple(samples), content)


def _fingerprint(directory: Path, name: str) -> str:
    return str(read_info(rows_path(directory, name)).get("fingerprint"))


def _raw_fingerprint(work: Work, name: str) -> str:
    """Return the fingerprint that a shard of originals has when it is what the plan wants."""
    if not (rows_path(work.raw_dir, name).is_file() and work.plan_path.is_file()):
        return ""
    settings = read_info(rows_path(work.raw_dir, name)).get("settings", {})
    return raw_fingerprint(settings, read_planned(work.plan_path, name))


def _sample_fingerprints(
    work: Work, shards: Sequence[str], post_ids: Collection[int]
) -> dict[str, str]:
    """Return the fingerprints, likewise, of the shards of samples whose originals are here.

    One that would be another one without some posts has none: what the family of a repeat was left
    out for may be gone with these, and ``prepare`` brings it in.
    """
    recorded = recorded_recipes(work)
    recipes = {name: recorded[name] for name in shards if name in recorded}
    return {
        name: stage.fingerprint(name)
        for stage, some in stages_of(work, recipes)
        for name in some
        if stage.repeats(name) == _repeats_in(work, name, post_ids)
    }


def _repeats_in(work: Work, name: str, post_ids: Collection[int]) -> list[Row]:
    """Return the duplicates that a shard of samples was made without, but for some posts."""
    rows = read_rows(rows_path(work.samples_dir, name), SAMPLES, DUPLICATES.names)
    rows = rows.filter(pc.is_valid(rows["duplicate_of"]))
    rows = rows.filter(pc.invert(among(rows, post_ids)))
    return list(rows.select(DUPLICATES.names).cast(DUPLICATES).to_pylist())


def _apply(
    work: Work,
    post_ids: Collection[int],
    shards: Sequence[str],
    unfinished: Unfinished,
    shard_store: ShardStore | None,
) -> None:
    """Take posts out of everything. Each step is done as a whole, and does nothing again."""
    if work.lock_path.is_file():
        rewrite_lock(work.lock_path, post_ids)
    if work.plan_path.is_file():
        clear_plan(work.plan_path, post_ids, lock_fingerprint(work))
    work.duplicates_path.unlink(missing_ok=True)  # they are found anew where they are needed
    if shard_store is not None:
        shard_store.record_takedown(post_ids, shards, unfinished.content)
    clear = partial(clear_stage, work) if shard_store is None else shard_store.clearing.clear
    for name in shards:
        clear(RAW, name, post_ids, _raw_fingerprint(work, name) if name in unfinished.raw else "")
    fingerprints = {}
    with suppress(UserError):  # since it has begun: `prepare` makes these samples anew
        fingerprints = _sample_fingerprints(work, unfinished.samples, post_ids)
    for name in shards:
        clear(SAMPLES, name, post_ids, fingerprints.get(name, ""))
    for aside in map(Work, work.reuse_dir.glob("*")):
        aside.plan_path.unlink(missing_ok=True)  # of no use: earlier versions left a copy
        for name in list_shards(aside.raw_dir):
            try:
                clear_stage(aside, RAW, name, post_ids, "")
            except DamagedError:  # nothing mends it there; what `fetch` misses it asks for again
                remove(aside, aside.raw_dir, name)
    clear_differences(work.differences_path, post_ids)
    derived = [work.style_dir, work.incoming_dir]
    if shard_store is not None:
        derived += [work.share_dir, work.cleared_dir]
    try:
        _clear_sidecars(work, post_ids)
    except UserError:  # damaged; `push` or `pull` makes them anew
        derived.append(work.share_dir)
    for directory in derived:
        if directory.is_dir():
            shutil.rmtree(directory)
    if shard_store is not None:
        work.report_path.unlink(missing_ok=True)  # it shows pictures, which are in the store
    elif work.report_path.is_file():
        try:
            write_report(work, work.report_path)
        except UserError:  # of shards that are damaged, whichever they are
            work.report_path.unlink(missing_ok=True)


def _clear_sidecars(work: Work, post_ids: Collection[int]) -> None:
    """Write lock, card, Croissant and index anew where the folder was shared or pulled."""
    if (work.share_dir / LOCK).is_file():
        rewrite_lock(work.share_dir / LOCK, post_ids)
    path = work.share_dir / INDEX
    if not path.is_file():
        return
    index = read_index(path.read_bytes(), str(path))
    files = []
    for file in index.files:
        here = path_of(work, file.name)
        is_ours = file.name == LOCK or match_shard(file.name) is not None
        files.append(describe(here, file.name) if is_ours and here.is_file() else file)
    lock = rewrite_lock(work.share_dir / LOCK, ())
    write_sidecars(work.share_dir, replace(index, files=tuple(files)), lock)
