"""From metadata or a lock to the plan that stands in a work folder, and keeps standing there."""

import filecmp
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.disk import replacing
from pipeline.errors import DamagedError, UserError
from pipeline.lockfile.lock import Lock
from pipeline.metadata.listing import Listing
from pipeline.planning.make import Plan, make_plan, plan_fingerprint
from pipeline.planning.plan import (
    by_shard,
    hash_table,
    planned_recipe,
    planned_shards,
    read_plan,
    read_planned,
    write_plan,
)
from pipeline.planning.plan_check import read_about
from pipeline.recipe import Recipe
from pipeline.recipe_shared import content_settings, shared_recipe
from pipeline.records import Status
from pipeline.removals import read_removals
from pipeline.schema import RAW, SAMPLES, SCHEMA_VERSION
from pipeline.settings import Table, fingerprint_of, name_differences, to_table
from pipeline.shards.rows import read_rows, read_seal, write_rows
from pipeline.shards.shard import list_shards, remove_shards, rows_path
from pipeline.words import counted
from pipeline.work import Work


def lock_fingerprint(work: Work) -> str:
    """Return the fingerprint of a plan that was taken from the folder's lock, "" without one."""
    if not work.lock_path.is_file():
        return ""
    return fingerprint_of(SCHEMA_VERSION, read_seal(work.lock_path))


def ensure_plan(
    recipe: Recipe,
    work: Work,
    limit: int | None,
    replan: bool,
    metadata: Path | Listing | Lock,
    has_peers: bool,
) -> None:
    """Leave a plan that fits the recipe in the folder, without losing what another one fetched.

    Args:
        recipe: what is wanted.
        work: the folder.
        limit: plan the first few wanted posts only.
        replan: replace another plan.
        metadata: as for ``make_plan``.
        has_peers: whether other ranks are at work there; the plan must stay as it is then.

    Raises:
        UserError: where the folder holds another plan that may not be replaced, and as
            ``make_plan``.
    """
    before = read_about(work.plan_path) if work.plan_path.is_file() else None
    # The fingerprint does not show a change that keeps a file's size, so --replan looks again.
    # Where other ranks are at work, the first of them has done that.
    looks_again = replan and not has_peers
    is_known = before is not None and before.get("fingerprint") == plan_fingerprint(
        recipe, limit, metadata
    )
    if before is not None and is_known and not looks_again:
        _record_source(recipe, work, before, has_peers)
        return
    plan = make_plan(recipe, limit, metadata, read_removals(work.removals_path).post_ids)
    content = hash_table(plan.posts)
    if before is not None and plan_content(work) != content:
        if not replan:
            num_before = before["counts"].get(Status.PLANNED, 0)
            deciding = _deciding(recipe, limit)
            then = _deciding(planned_recipe(work.plan_path), before.get("limit"))
            odd = name_differences(then, deciding, "there")
            raise UserError(
                f"{work.root}: holds another plan ({counted(num_before, 'post')}; the "
                f"new one has {len(plan.posts)}{''.join(f'; {text}' for text in odd)}). Give "
                "another --work, or --replan to plan anew: what is fetched is used again."
            )
        if has_peers:
            raise UserError(
                f"{work.root}: other ranks are at work on the plan that is there; plan anew when "
                "they have ended."
            )
        _set_aside(work)
    elif before is None and not work.store and not _are_planned(work, plan.posts):
        _set_aside(work)
    _write_plan(work, plan, content, limit, recipe)


def _deciding(recipe: Recipe, limit: int | None) -> Table:
    """Return the settings that decide a plan; the metadata does as well."""
    table = to_table(recipe)
    return {"select": table["select"], "split": table["split"], "--limit": limit}


def _record_source(recipe: Recipe, work: Work, info: dict[str, Any], has_peers: bool) -> None:
    """Write the recipe into a plan whose originals are decided by other settings now.

    The posts stay as they are, byte for byte: other runs may be reading them.
    """
    recorded = planned_recipe(work.plan_path).source
    then, now = content_settings(recorded), content_settings(recipe.source)
    if then == now:
        return
    if has_peers:
        odd = "; ".join(name_differences(then, now, "theirs", "source."))
        raise UserError(f"{work.root}: other ranks are at work with other settings: {odd}.")
    path = work.plan_path
    groups = (read_planned(path, name) for name in planned_shards(path))
    write_rows(path, groups, info | {"recipe": to_table(recipe)})


def plan_content(work: Work) -> str:
    """Return the hash of a folder's planned posts; after a pull it is made now."""
    if content := read_about(work.plan_path).get("content"):
        return str(content)
    return hash_table(read_plan(work.plan_path))


def _write_plan(work: Work, plan: Plan, content: str, limit: int | None, recipe: Recipe) -> None:
    info = {
        "fingerprint": plan.fingerprint,
        "content": content,
        "counts": plan.counts,
        "num_records": plan.num_records,
        "malformed": plan.malformed,
        "limit": limit,
        "recipe": to_table(recipe),
    }
    write_plan(work.plan_path, plan.posts, info)


def adopt_plan(lock: Lock, work: Work) -> None:
    """Leave the plan that a pulled lock is of in the folder, as ``fetch --locked`` would.

    A later lock of the same data set replaces an earlier one.

    Raises:
        UserError: where the folder is of another data set, or has originals of another plan.
    """
    recipe = lock.info.recipe
    plan = make_plan(recipe, None, lock, read_removals(work.removals_path).post_ids)
    before = read_about(work.plan_path) if work.plan_path.is_file() else {}
    if before.get("fingerprint") != plan.fingerprint:
        is_pulled = work.lock_path.is_file() and not list_shards(work.raw_dir)
        same_name = before.get("recipe", {}).get("name") == recipe.name
        is_ours = not before or (is_pulled and same_name)
        if not is_ours and plan_content(work) != hash_table(plan.posts):
            raise UserError(
                f"{work.root}: holds something else than this data set; pull into another folder."
            )
        _write_plan(work, plan, "", None, shared_recipe(recipe))
    keep_lock(work, lock)


def keep_lock(work: Work, lock: Lock | None) -> None:
    """Leave a copy of the lock that the plan was taken from in the folder, or none."""
    if lock is None:
        work.lock_path.unlink(missing_ok=True)
        work.differences_path.unlink(missing_ok=True)
    elif not (work.lock_path.is_file() and filecmp.cmp(lock.path, work.lock_path, shallow=False)):
        with replacing(work.lock_path) as copy:
            shutil.copyfile(lock.path, copy)


def _are_planned(work: Work, posts: pa.Table) -> bool:
    """Whether the shards that a folder without a plan has are of these posts, as far as they read.

    They are not where the metadata has changed since the plan was lost.
    """
    planned = dict(by_shard(posts))
    for directory, schema in ((work.raw_dir, RAW), (work.samples_dir, SAMPLES)):
        for name in list_shards(directory):
            if name not in planned:
                return False
            with suppress(DamagedError):
                ids = read_rows(rows_path(directory, name), schema, ["post_id"])["post_id"]
                if not ids.equals(planned[name]["post_id"]):
                    return False
    return True


def _set_aside(work: Work) -> None:
    """Move the originals of the plan in force to where the next one can use them again.

    Where an earlier re-plan was not finished, there are several of these.
    """
    has_raw = work.raw_dir.is_dir()
    last = has_raw + max((int(old.root.name) for old in work.old_works()), default=0)
    aside = Work(work.reuse_dir / str(last))
    if has_raw:
        aside.root.mkdir(parents=True, exist_ok=True)
        work.raw_dir.rename(aside.raw_dir)
    if work.samples_dir.is_dir():
        remove_shards(work.samples_dir)
    if work.ledger_dir.is_dir():  # it tells of the originals that were set aside last
        if last and not aside.ledger_dir.exists():
            work.ledger_dir.rename(aside.ledger_dir)
        else:
            shutil.rmtree(work.ledger_dir)
