"""What a work folder holds against what a lock says, post by post."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.disk import reason, replacing
from pipeline.errors import UserError
from pipeline.lockfile.lock import Lock, check_done, library_versions
from pipeline.planning.plan import by_shard, planned_shards, read_planned
from pipeline.planning.plan_check import read_about
from pipeline.recipe import Recipe
from pipeline.recipe_shared import shared_recipe
from pipeline.records import OF_PREPARE, Fate, Status
from pipeline.schema import RAW, SAMPLES, Row
from pipeline.settings import Table, convert, name_differences, to_table
from pipeline.shards.rows import read_info, read_rows
from pipeline.shards.shard import list_shards, rows_path
from pipeline.work import Work

_COLUMNS = ("post_id", "shard", "what", "locked", "found")


class Difference(StrEnum):
    """How a post is not as the lock says."""

    GONE = "gone"  # its original was got then, and is no longer to be had
    FAILED = "failed"  # its original could not be got this time; a rerun may mend it
    CHANGED = "changed"  # its original is no longer the same
    NEW = "new"  # its original was not got then, and is now
    FATE = "fate"  # same original, or none then as now, and another fate
    SAMPLE = "sample"  # same original, and another sample
    WAITING = "waiting"  # its shard is not done yet
    UNPLANNED = "unplanned"  # the folder's plan lacks it, or has it in another shard
    EXTRA = "extra"  # the folder's plan has it, and the lock does not


SAME = "same"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison came to.

    Attributes:
        counts: posts by ``Difference``, or ``SAME``.
        notes: sentences about all of them.
        why_unwritten: what kept ``differences.csv`` from being written; "" where nothing did.
    """

    counts: Counter[str]
    notes: list[str]
    why_unwritten: str = ""

    @property
    def num_different(self) -> int:
        """Posts that are not as the lock says."""
        return self.counts.total() - self.counts[SAME]


def check_recipe(lock: Lock, recipe: Recipe) -> None:
    """Check that a recipe wants what its lock got.

    Raises:
        UserError: naming the settings that decide posts, splits or originals and differ.
    """
    if odd := name_differences(_deciding(lock.info.recipe), _deciding(recipe)):
        raise UserError(
            f"{lock.path}: is not this recipe's: {'; '.join(odd)}. Give what was --set then, or "
            "fetch without --locked and lock anew."
        )


def check_folder(work: Work, recipe: Recipe) -> None:
    """Check that a folder was made by a recipe, beside which its lock is to lie.

    Raises:
        UserError: naming the recipe that it was made by, or the settings that differ.
    """
    check_done(work)
    made_by = _made_by(work)
    if made_by.name != recipe.name:
        raise UserError(
            f"{work.root}: was made by recipe {made_by.name!r}, not by {recipe.name!r}; give that "
            "recipe, or the --work of this one."
        )
    if odd := name_differences(_all_deciding(made_by), _all_deciding(recipe), "the folder's"):
        raise UserError(
            f"{work.root}: was not made as recipe {recipe.name!r} says: {'; '.join(odd)}. Give "
            "what was --set then, or run `fetch` and `prepare` again."
        )


def _deciding(recipe: Recipe) -> Table:
    """Return the settings that decide what is fetched, and where to."""
    table = to_table(shared_recipe(recipe))
    return {section: table[section] for section in ("select", "split", "source")}


def _all_deciding(recipe: Recipe) -> Table:
    """Return the settings that decide what is fetched, where to, and what is made of it."""
    return _deciding(recipe) | {"prepare": to_table(recipe.prepare)}


def effective_recipe(work: Work) -> Table:
    """Return the recipe that made a folder's plan, with the settings that made its samples."""
    recipe: Table = read_about(work.plan_path)["recipe"]
    for name in list_shards(work.samples_dir)[:1]:
        made_by = read_info(rows_path(work.samples_dir, name)).get("recipe", {})
        recipe = recipe | {"prepare": made_by.get("prepare", {})}
    return recipe


def _made_by(work: Work) -> Recipe:
    return convert(effective_recipe(work), Recipe, str(work.plan_path))


def compare(lock: Lock, work: Work, recipe: Recipe) -> Comparison:
    """Compare a folder with a lock, as far as it is done; write down what differs.

    Samples are compared where they are prepared as the lock's were. ``differences.csv`` gets a
    line for each post that differs: ``post_id, shard, what, locked, found``, the last two being
    fates, SHA-256 sums, or nothing. Where none differs there is no such file. A folder that cannot
    be written is compared without it.

    Raises:
        UserError: where there is no folder, or rows are damaged.
    """
    if not work.root.is_dir():
        raise UserError(f"{work.root}: no such folder; `fetch` makes it. Is that the work folder?")
    odd = name_differences(
        {"prepare": to_table(lock.info.recipe.prepare)}, {"prepare": to_table(recipe.prepare)}
    )
    notes = [f"Samples are not compared: {'; '.join(odd)}."] if odd else []
    notes += _other_settings(lock, work, with_samples=not odd)

    def count(write: Callable[[Sequence[object]], object]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for row in _compare_shards(lock, work, with_samples=not odd):
            counts[row[2]] += 1
            if row[2] != SAME:
                write(row)
        return counts

    why_unwritten = ""
    try:
        with (
            replacing(work.differences_path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            counts = count(writer.writerow)
    except OSError as error:
        why_unwritten = reason(error)
        counts = count(lambda row: None)
    if counts[Difference.SAMPLE] or counts[Difference.FATE]:
        notes += _other_versions(lock)
    comparison = Comparison(counts, notes, why_unwritten)
    if not comparison.num_different and not why_unwritten:
        work.differences_path.unlink(missing_ok=True)
    return comparison


def _other_settings(lock: Lock, work: Work, *, with_samples: bool) -> list[str]:
    if not work.plan_path.is_file():
        return []
    deciding = _all_deciding if with_samples and list_shards(work.samples_dir) else _deciding
    odd = name_differences(deciding(lock.info.recipe), deciding(_made_by(work)))
    return [f"The folder was made by other settings: {'; '.join(odd)}."] if odd else []


def _other_versions(lock: Lock) -> list[str]:
    here, there = library_versions(), lock.info.versions
    odd = [
        f"{name} {here.get(name, 'none')} (the lock's: {there.get(name, 'none')})"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    ]
    return [f"Of other versions than the lock's: {', '.join(odd)}."] if odd else []


def _compare_shards(
    lock: Lock, work: Work, *, with_samples: bool
) -> Iterator[tuple[int, str, str, str, str]]:
    columns = ["post_id", "split", "shard", "status", "reason", "sha256", "sample_sha256"]
    planned = planned_shards(work.plan_path) if work.plan_path.is_file() else {}
    for name, posts in by_shard(lock.posts.select(columns)):
        originals, samples = _read_found(work, name)
        expected = set(_planned_ids(work, name).to_pylist() if name in planned else ())
        for post in posts.to_pylist():
            post_id = post["post_id"]
            original = originals.get(post_id)
            sample = samples.get(post_id) if with_samples else None
            is_planned = not planned or post_id in expected
            yield (post_id, name, *_judge(post, original, sample, is_planned=is_planned))
    known = lock.posts["post_id"].combine_chunks()
    for name in planned:
        ids = _planned_ids(work, name)
        for post_id in ids.filter(pc.invert(pc.is_in(ids, value_set=known))).to_pylist():
            yield post_id, name, Difference.EXTRA, "", Status.PLANNED


def _planned_ids(work: Work, name: str) -> pa.ChunkedArray:
    return read_planned(work.plan_path, name)["post_id"]


def _read_found(work: Work, name: str) -> tuple[dict[int, Row], dict[int, Row]]:
    """Return a shard's originals and samples by post; none of other originals."""
    raw = _read(work.raw_dir, name, RAW, "sha256")
    samples = _read(work.samples_dir, name, SAMPLES, "source_sha256", "sha256")
    originals = raw or {
        post: row | {"sha256": row["source_sha256"]} | _as_fetched(row)
        for post, row in samples.items()
    }
    fresh = {post: row["source_sha256"] for post, row in samples.items()} == {
        post: row["sha256"] for post, row in originals.items()
    }
    return originals, samples if fresh else {}


def _read(directory: Path, name: str, schema: pa.Schema, *sums: str) -> dict[int, Row]:
    path = rows_path(directory, name)
    if not path.is_file():
        return {}
    table = read_rows(path, schema, ["post_id", "status", "reason", *sums])
    return {row["post_id"]: row for row in table.to_pylist()}


def _as_fetched(row: Row) -> Row:
    """Return the fate that fetch gave to a post with this last fate."""
    if row["status"] in OF_PREPARE:
        return Fate(Status.FETCHED).columns
    return {"status": row["status"], "reason": row["reason"]}


def _judge(
    post: Row, original: Row | None, sample: Row | None, *, is_planned: bool
) -> tuple[str, str, str]:
    """Return how a post differs, or ``SAME``; what the lock says and what was found."""
    locked = _as_fetched(post)
    if original is None:
        return Difference.WAITING if is_planned else Difference.UNPLANNED, _fate(post), ""
    had, has = (row["status"] == Status.FETCHED for row in (locked, original))
    if had and has:
        then, now = post["sha256"].hex(), original["sha256"]
        if then != now:
            return Difference.CHANGED, then, now
    elif not _are_missing(locked, original) and _fate(locked) != _fate(original):
        what = Difference.NEW if has else Difference.GONE if had else Difference.FATE
        failed = original["status"] == Status.FAILED
        return Difference.FAILED if failed else what, _fate(locked), _fate(original)
    if sample is None or not had:
        return SAME, "", ""
    if _fate(post) != _fate(sample):
        return Difference.FATE, _fate(post), _fate(sample)
    then, now = (post["sample_sha256"] or b"").hex(), sample["sha256"] or ""
    return (Difference.SAMPLE, then, now) if then != now else (SAME, "", "")


def _are_missing(*rows: Row) -> bool:
    """Return whether a post was missing each time; servers and disks give different reasons."""
    return all(row["status"] == Status.MISSING for row in rows)


def _fate(row: Row) -> str:
    return str(Fate(Status(row["status"]), row["reason"]))
