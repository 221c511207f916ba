"""From metadata or a lock to the plan that stands in a work folder, and keeps standing there."""

import filecmp
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from pipeline.differences import check_recipe, name_differences
from pipeline.errors import UserError
from pipeline.lock import Lock, restore_plan
from pipeline.metadata.files import list_files
from pipeline.metadata.listing import Listing, make_listing
from pipeline.metadata.record import UNREADABLE, Malformed
from pipeline.planning.plan import (
    hash_table,
    plan_posts,
    planned_recipe,
    planned_shards,
    read_planned,
    write_plan,
)
from pipeline.planning.plan_check import read_about
from pipeline.planning.selection import Selection, load_nsfw_ids
from pipeline.planning.settled import content_settings
from pipeline.recipe import Recipe, fingerprint
from pipeline.recipe_shared import shared_recipe
from pipeline.records import Status
from pipeline.removals import Removals, clear_posts, count_cleared, count_removed, read_removals
from pipeline.schema import SCHEMA_VERSION
from pipeline.settings import to_table
from pipeline.storage.rows import read_seal, replacing, write_rows
from pipeline.storage.shard import list_shards, remove_shards
from pipeline.urls import is_http
from pipeline.words import counted
from pipeline.work import Work


@dataclass(frozen=True, slots=True)
class Plan:
    """A selection with its plan, before anything is written.

    Attributes:
        posts: ``schema.SELECTION``.
        counts: records by fate, ``planned`` among them.
        num_records: records that were read.
        malformed: places of unreadable records; see ``Selection``.
        proof: of everything that decided it.
    """

    posts: pa.Table
    counts: dict[str, int]
    num_records: int
    malformed: list[str]
    proof: str


def make_plan(
    recipe: Recipe,
    limit: int | None = None,
    metadata: Path | Listing | Lock | None = None,
    removals: Removals | None = None,
) -> Plan:
    """Read the metadata and plan every wanted post; keeps nothing on disk but an API's pages.

    A lock in the metadata's place is the plan.

    Args:
        recipe: what is wanted.
        limit: plan the first few wanted posts only.
        metadata: as ``find_metadata`` returns it, or a lock; by default the recipe's path.
        removals: posts that were taken down; the plan keeps their places.

    Raises:
        UserError: where metadata is missing or unreadable, no post is left, the lock is not this
            recipe's, or it holds a post that was taken down.
    """
    taken_down = removals.post_ids if removals is not None else ()
    if isinstance(metadata, Lock):
        check_recipe(metadata, recipe)
        info, proof = metadata.info, _plan_proof(recipe, limit, metadata)
        check_removals(metadata, taken_down)
        return Plan(restore_plan(metadata.posts), info.counts, info.num_records, [], proof)
    metadata = _metadata_path(recipe) if metadata is None else metadata
    nsfw_ids = load_nsfw_ids(recipe.select, metadata)
    selection = Selection(metadata, recipe.select, nsfw_ids, limit)
    posts = plan_posts(selection, recipe.split)
    if not len(posts):
        raise UserError(_why_none(recipe.source.metadata, selection))
    malformed = list(map(_place_of, selection.malformed))
    proof = _plan_proof(recipe, limit, metadata)  # after the reading, which may have got pages
    posts = clear_posts(posts, taken_down)
    counts = count_removed(selection.counts, count_cleared(posts))
    return Plan(posts, counts, selection.num_records, malformed, proof)


def check_removals(lock: Lock, taken_down: Collection[int]) -> None:
    """Check that a lock brings back no post that was taken down.

    Raises:
        UserError: where it does.
    """
    ids = lock.posts["post_id"]
    wanted = pc.is_in(ids, value_set=pa.array(sorted(taken_down), pa.int64()))
    if count_cleared(lock.posts.filter(wanted)) != pc.sum(wanted, min_count=0).as_py():
        raise UserError(
            f"{lock.path}: holds posts that were taken down in this folder; write it anew with "
            "`lock`, or have them taken down where it comes from."
        )


def find_metadata(
    recipe: Recipe, work: Work, console: Console, *, keeps_pages: bool = True
) -> Path | Listing:
    """Return the recipe's metadata: a file or folder that exists, or an API, not yet asked.

    Args:
        recipe: its source's metadata, and what is to be listed.
        work: the folder where an API's pages are kept.
        console: is told how far the listing has come.
        keeps_pages: whether new pages may be written there.

    Raises:
        UserError: where there is no such file or folder, or the URL is none to list.
    """
    if is_http(recipe.source.metadata):
        listing = make_listing(recipe.source, recipe.select, work.listing_dir)
        return replace(listing, keeps=keeps_pages, say=console.print)
    return _metadata_path(recipe)


def _metadata_path(recipe: Recipe) -> Path:
    if not recipe.source.metadata:
        raise UserError(f"recipe {recipe.name!r} names no metadata: give --metadata PATH.")
    path = Path(recipe.source.metadata)
    if not path.exists():
        raise UserError(f"--metadata {path}: no such file or folder.")
    return path


def lock_proof(work: Work) -> str:
    """Return the fingerprint of a plan that was taken from the folder's lock, "" without one."""
    if not work.lock_path.is_file():
        return ""
    return fingerprint(SCHEMA_VERSION, read_seal(work.lock_path))


def _plan_proof(recipe: Recipe, limit: int | None, metadata: Path | Listing | Lock) -> str:
    """A hash of what decides a plan: settings, and names and sizes of the metadata's files."""
    if isinstance(metadata, Lock):
        return fingerprint(SCHEMA_VERSION, metadata.seal)
    if isinstance(metadata, Listing):
        path, files = metadata.directory, metadata.page_paths()
    else:
        path, files = metadata, list_files(metadata)
    sizes = {str(file.relative_to(path)): file.stat().st_size for file in files}
    nsfw_ids = sorted(load_nsfw_ids(recipe.select, metadata))
    return fingerprint(SCHEMA_VERSION, recipe.select, recipe.split, limit or 0, sizes, nsfw_ids)


def ensure_plan(
    recipe: Recipe,
    work: Work,
    limit: int | None,
    replan: bool,
    metadata: Path | Listing | Lock,
    has_company: bool,
) -> None:
    """Leave a plan that fits the recipe in the folder, without losing what another one fetched."""
    before = read_about(work.plan_path) if work.plan_path.is_file() else None
    removals = read_removals(work.removals_path)
    # The proof does not see a file that keeps its size. Of ranks the first has planned anew.
    looks_again = replan and not has_company
    is_known = before is not None and before.get("fingerprint") == _plan_proof(
        recipe, limit, metadata
    )
    if before is not None and is_known and not looks_again:
        _record_source(recipe, work, before, has_company)
        return
    plan = make_plan(recipe, limit, metadata, removals)
    content = hash_table(plan.posts)
    if before is not None and plan_content(work) != content:
        if not replan:
            num_before = before["counts"].get(Status.PLANNED, 0)
            raise UserError(
                f"{work.root}: holds another plan ({counted(num_before, 'post')}; the "
                f"new one has {len(plan.posts)}). Give another --work, or --replan to plan anew: "
                "what is fetched is used again."
            )
        if has_company:
            raise UserError(
                f"{work.root}: other ranks are at work on the plan that is there; plan anew when "
                "they have ended."
            )
        _set_aside(work)
    _write_plan(work, plan, content, limit, recipe)


def _record_source(recipe: Recipe, work: Work, info: dict[str, Any], has_company: bool) -> None:
    """Let a plan say by which recipe its originals come, where other settings decide them now.

    The posts stay as they are, byte for byte: other runs may be reading them.
    """
    recorded = planned_recipe(work.plan_path).source
    then, now = content_settings(recorded), content_settings(recipe.source)
    if then == now:
        return
    if has_company:
        odd = "; ".join(name_differences(then, now, "theirs", "source."))
        raise UserError(f"{work.root}: other ranks are at work with other settings: {odd}.")
    path = work.plan_path
    groups = (read_planned(path, name) for name in planned_shards(path))
    write_rows(path, groups, info | {"recipe": to_table(recipe)})


def _why_none(metadata: str, selection: Selection) -> str:
    """Return why no post is left, in a sentence."""
    if selection.malformed and selection.counts.keys() == {"filtered/malformed"}:
        return (
            f"{metadata}: holds no record of a post; the first that it might be: "
            f"{_place_of(selection.malformed[0])}. Is it Danbooru's metadata?"
        )
    found = ", ".join(f"{count} {fate}" for fate, count in selection.counts.items())
    return (
        f"{metadata}: no post is left after selection ({found or 'no records'}); look at the "
        "recipe's [select] table."
    )


def _place_of(record: Malformed) -> str:
    return f"{record.path}:{record.line}: {record.why}"


def say_what_is_cut(malformed: Sequence[str], console: Console) -> None:
    """Say which files of metadata could not be read to their end: nothing counts what is lost.

    Args:
        malformed: of a plan, or of its info.
        console: where it is said.
    """
    for place in malformed:
        if f": {UNREADABLE}: " in place:
            console.print(f"{place}. What came after it is in no count; is the file whole?")


def plan_content(work: Work) -> str:
    """Return the hash of a folder's planned posts; where a pull was in a hurry, it is made now."""
    if content := read_about(work.plan_path).get("content"):
        return str(content)
    tables = [read_planned(work.plan_path, name) for name in planned_shards(work.plan_path)]
    return hash_table(pa.concat_tables(tables))


def _write_plan(work: Work, plan: Plan, content: str, limit: int | None, recipe: Recipe) -> None:
    info = {
        "fingerprint": plan.proof,
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
    plan = make_plan(recipe, None, lock, read_removals(work.removals_path))
    before = read_about(work.plan_path) if work.plan_path.is_file() else {}
    if before.get("fingerprint") != plan.proof:
        is_pulled = work.lock_path.is_file() and not list_shards(work.raw_dir)
        same_name = before.get("recipe", {}).get("name") == recipe.name
        is_free = not before and not list_shards(work.samples_dir)
        is_ours = is_free or (is_pulled and same_name)
        if not is_ours and (not before or plan_content(work) != hash_table(plan.posts)):
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


def _set_aside(work: Work) -> None:
    """Move the originals of the plan in force, with a copy of it, to where the next can reuse them.

    Where an earlier re-plan was not finished, there are several of these.
    """
    last = max((int(path.name) for path in work.reuse_dir.glob("[0-9]*")), default=0)
    if work.raw_dir.is_dir():
        last += 1
        aside = work.reuse_dir / str(last)
        with replacing(aside / work.plan_path.name) as copy:
            shutil.copyfile(work.plan_path, copy)
        work.raw_dir.rename(aside / work.raw_dir.name)
    if work.samples_dir.is_dir():
        remove_shards(work.samples_dir)
    if work.ledger_dir.is_dir():  # it tells of the originals that were set aside last
        aside = work.reuse_dir / str(last)
        if last and not (aside / work.ledger_dir.name).exists():
            work.ledger_dir.rename(aside / work.ledger_dir.name)
        else:
            shutil.rmtree(work.ledger_dir)
