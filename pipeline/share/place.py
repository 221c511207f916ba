"""Whether a place may be pushed to or pulled into: what others have there stays as it is."""

import os
from collections.abc import Collection, Mapping

import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.lockfile.check import check_size
from pipeline.planning.plan import planned_shards, read_planned
from pipeline.records import Status
from pipeline.schema import LOCK as LOCK_SCHEMA
from pipeline.schema import among
from pipeline.shard_store.clearing import removals_in
from pipeline.shard_store.scratch import scratch
from pipeline.shards.rows import read_rows
from pipeline.shards.shard import list_shards
from pipeline.share.index import CARD, IDENTITY, INDEX, LOCK, PENDING, SIDECARS, Index
from pipeline.share.sidecars import describe, path_of
from pipeline.stores.transfer import WritableStore, no_tick
from pipeline.urls import scheme_of
from pipeline.work import Work


def check_place(
    store: WritableStore, sizes: Mapping[str, int], there: Index | None, draft: Index, work: Work
) -> None:
    """Check that a push takes nothing away that no push brought, and undoes no takedown.

    Args:
        store: where to push to; not the one that holds the folder's own shards.
        sizes: of what is there.
        there: what an earlier push left, if any.
        draft: what is to be pushed.
        work: the folder that it comes from.

    Raises:
        UserError: where posts were taken down there that the folder knows, or it is a work folder,
            another one's store, or has files of somebody else's.
    """
    if work.plan_path.name in sizes:
        raise UserError(f"{store.url}: is a work folder; push to a folder of its own.")
    taken_down = {*removals_in(store).post_ids, *_find_taken_down(store, there, work)}
    if known := _find_known(work, taken_down):
        some = ", ".join(map(str, known[:8])) + " ..." * (len(known) > 8)
        raise UserError(
            f"{store.url}: posts were taken down there, and {work.root} still knows them: {some}; "
            "take them down here as well, or push to another place."
        )
    if IDENTITY in sizes and not _is_pulled_from(there, draft, work):
        raise UserError(
            f"{store.url}: holds the shards of another work folder, which `--store` put there; "
            "push to another place."
        )
    if there is not None:
        return
    expected = {CARD} if scheme_of(store.url) == "hf" else set()
    names = {name.lower() for name in {*SIDECARS, INDEX, PENDING, *draft.by_name} - expected}
    found = {name for name in sizes if name.lower() in names}  # one file on some disks
    if found:
        entries = ", ".join(sorted({name.partition("/")[0] for name in found}))
        raise UserError(
            f"{store.url}: holds {entries}, and no `push` can be seen to have brought that; push "
            "to a folder of its own, or move it away."
        )


def _find_taken_down(store: WritableStore, there: Index | None, work: Work) -> list[int]:
    """Return the posts that were taken down in what is shared there, by its lock.

    A lock that this folder knows from its last push or pull is as this folder wants it.
    """
    lock = None if there is None else there.by_name.get(LOCK)
    here = path_of(work, LOCK)
    if lock is None or (here.is_file() and describe(here, LOCK) == lock):
        return []
    with scratch() as folder:
        try:
            with (folder / LOCK).open("wb", 0) as out:
                store.download(LOCK, out, lock.size, no_tick)
            check_size(folder / LOCK)
            posts = read_rows(folder / LOCK, LOCK_SCHEMA, ["post_id", "status"])
        except UserError:  # not there, or damaged: this push brings another one
            return []
    removed = pc.equal(posts["status"], Status.REMOVED)
    return posts.filter(removed)["post_id"].to_pylist()  # type: ignore[no-any-return]


def _find_known(work: Work, post_ids: Collection[int]) -> list[int]:
    """Return which of some posts the folder's plan has, and not as taken down."""
    if not post_ids:
        return []
    found: list[int] = []
    for name in planned_shards(work.plan_path):
        posts = read_planned(work.plan_path, name)
        posts = posts.filter(among(posts, post_ids))
        is_known = pc.not_equal(posts["status"], Status.REMOVED)
        found += posts.filter(is_known)["post_id"].to_pylist()
    return sorted(found)


def check_folder(work: Work) -> None:
    """Check that a pull into a folder without a plan replaces nothing of somebody else's.

    What a pull leaves that was cut short before it had a plan is an empty ``share/``.

    Raises:
        UserError: where it would.
    """
    if work.plan_path.is_file():
        return  # `adopt_plan` compares it
    for path in (work.lock_path, work.share_dir, work.samples_dir):
        is_empty = path.is_dir() and not any(path.iterdir())
        if os.path.lexists(path) and not is_empty:
            raise UserError(
                f"{path}: is there already, and no `pull` can be seen to have made it; pull into "
                "another folder."
            )


def _is_pulled_from(there: Index | None, draft: Index, work: Work) -> bool:
    """Whether a folder's samples were pulled from there: then it may push a takedown back."""
    return (
        there is not None
        and not list_shards(work.raw_dir)
        and (there.recipe, there.shards) == (draft.recipe, draft.shards)
    )
