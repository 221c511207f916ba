"""From metadata or a lock to a plan, before anything is written."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from pipeline.errors import UserError
from pipeline.lockfile.differences import check_recipe
from pipeline.lockfile.lock import Lock
from pipeline.lockfile.posts import restore_plan
from pipeline.metadata.files import list_files
from pipeline.metadata.listing import Listing, make_listing
from pipeline.metadata.record import UNREADABLE
from pipeline.planning.plan import plan_posts
from pipeline.planning.selection import Selection, load_nsfw_ids
from pipeline.recipe import Recipe
from pipeline.removals import clear_posts, count_cleared, count_removed
from pipeline.schema import SCHEMA_VERSION, among
from pipeline.settings import fingerprint_of
from pipeline.urls import is_http
from pipeline.work import Work


@dataclass(frozen=True, slots=True)
class Plan:
    """A selection with its plan, before anything is written.

    Attributes:
        posts: ``schema.SELECTION``.
        counts: records by fate, ``planned`` among them.
        num_records: records that were read.
        malformed: places of unreadable records; see ``Selection``.
        fingerprint: of everything that decided it.
    """

    posts: pa.Table
    counts: dict[str, int]
    num_records: int
    malformed: list[str]
    fingerprint: str


def make_plan(
    recipe: Recipe,
    limit: int | None,
    metadata: Path | Listing | Lock,
    taken_down: Collection[int] = (),
) -> Plan:
    """Read the metadata and plan every wanted post; keeps nothing on disk but an API's pages.

    A lock in the metadata's place is the plan.

    Args:
        recipe: what is wanted.
        limit: plan the first few wanted posts only.
        metadata: as ``find_metadata`` returns it, or a lock.
        taken_down: posts of which the plan keeps nothing but their places.

    Raises:
        UserError: where metadata is unreadable, no post is left, the lock is not this recipe's, or
            it holds a post that was taken down.
    """
    if isinstance(metadata, Lock):
        check_recipe(metadata, recipe)
        info, fingerprint = metadata.info, plan_fingerprint(recipe, limit, metadata)
        check_removals(metadata, taken_down)
        return Plan(restore_plan(metadata.posts), info.counts, info.num_records, [], fingerprint)
    nsfw_ids = load_nsfw_ids(recipe.select, metadata)
    selection = Selection(metadata, recipe.select, nsfw_ids, limit)
    posts = plan_posts(selection, recipe.split)
    if not len(posts):
        raise UserError(_why_none(recipe.source.metadata, selection))
    malformed = list(map(str, selection.malformed))
    # After the reading, which may have got pages.
    fingerprint = plan_fingerprint(recipe, limit, metadata)
    posts = clear_posts(posts, taken_down)
    counts = count_removed(selection.counts, count_cleared(posts))
    return Plan(posts, counts, selection.num_records, malformed, fingerprint)


def check_removals(lock: Lock, taken_down: Collection[int]) -> None:
    """Check that a lock brings back no post that was taken down, or raise UserError."""
    wanted = lock.posts.filter(among(lock.posts, taken_down))
    if count_cleared(wanted) != len(wanted):
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
    if not recipe.source.metadata:
        raise UserError(f"recipe {recipe.name!r} names no metadata: give --metadata PATH.")
    path = Path(recipe.source.metadata)
    if not path.exists():
        raise UserError(f"--metadata {path}: no such file or folder.")
    return path


def plan_fingerprint(recipe: Recipe, limit: int | None, metadata: Path | Listing | Lock) -> str:
    """A hash of what decides a plan: settings, and names and sizes of the metadata's files."""
    if isinstance(metadata, Lock):
        return fingerprint_of(SCHEMA_VERSION, metadata.seal)
    if isinstance(metadata, Listing):
        path, files = metadata.directory, metadata.page_paths()
    else:
        path, files = metadata, list_files(metadata)
    sizes = {str(file.relative_to(path)): file.stat().st_size for file in files}
    nsfw_ids = sorted(load_nsfw_ids(recipe.select, metadata))
    return fingerprint_of(SCHEMA_VERSION, recipe.select, recipe.split, limit or 0, sizes, nsfw_ids)


def _why_none(metadata: str, selection: Selection) -> str:
    """Return why no post is left, in a sentence."""
    if selection.malformed and selection.counts.keys() == {"filtered/malformed"}:
        return (
            f"{metadata}: holds no record of a post; the first that it might be: "
            f"{selection.malformed[0]}. Is it Danbooru's metadata?"
        )
    found = ", ".join(f"{count} {fate}" for fate, count in selection.counts.items())
    return (
        f"{metadata}: no post is left after selection ({found or 'no records'}); look at the "
        "recipe's [select] table."
    )


def say_what_is_cut(malformed: Sequence[str], console: Console) -> None:
    """Say which files of metadata could not be read to their end: nothing counts what is lost."""
    for place in malformed:
        if f": {UNREADABLE}: " in place:
            console.print(f"{place}. What came after it is in no count; is the file whole?")
