"""The lock: ``posts.parquet`` beside a recipe says exactly what was got, post by post.

It is the plan with every post's fate and sums, so the data set can be built again without the
metadata. A lock may come from a stranger: what it holds is checked before any of it is used, and
it never says whom to ask for pictures.
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.counts import count_fates
from pipeline.disk import check_place, check_writable, telling_unwritable
from pipeline.errors import UserError
from pipeline.lockfile.check import check_posts, check_size
from pipeline.lockfile.posts import lock_posts, restore_plan, to_hex
from pipeline.planning.plan import planned_recipe, planned_shards, read_planned
from pipeline.planning.plan_check import read_about
from pipeline.planning.ratings import allowed_ratings
from pipeline.recipe import Recipe
from pipeline.recipe_shared import content_settings, without_secrets
from pipeline.records import Status
from pipeline.removals import TAKEN_DOWN, clear_posts, count_cleared, count_removed
from pipeline.schema import LOCK, RAW, SAMPLES, SCHEMA_VERSION, as_texts
from pipeline.settings import Table, convert, to_table
from pipeline.shards.rows import check_seal, read_info, read_rows, read_seal, write_rows
from pipeline.shards.shard import check_tar, list_shards, rows_path
from pipeline.work import Work

LOCK_NAME = "posts.parquet"

LOCK_ENCODING: dict[str, Any] = {
    "use_dictionary": [
        *("split", "status", "reason", "character", "rating", "ext", "tags.list.element"),
        *("file_url", "shard"),
    ],
    "column_encoding": dict.fromkeys(("post_id", "family", "parent_id"), "DELTA_BINARY_PACKED"),
}
_SUMS = pa.schema(
    [SAMPLES.field(name) for name in ("post_id", "status", "reason", "source_sha256", "sha256")]
)
_DECIDING_LIBRARIES = (
    *("deflate", "numpy", "onnxruntime", "opencv-python-headless", "orjson", "pillow", "pyarrow"),
    *("simplejpeg", "xxhash"),
)


@dataclass(frozen=True, slots=True)
class LockInfo:
    """What a lock says about all its posts.

    Attributes:
        schema_version: of the program that made it.
        recipe: the effective one, without paths of this machine and without passwords.
        ratings: what the rating policy came to for the snapshot, out of g, s, q, e.
        versions: of the libraries that decide bytes.
        counts: of the selection, by fate; those ``planned`` and ``removed`` are the posts.
        num_records: that the metadata held.
        fates: of the posts, by ``str(Fate)``.
    """

    schema_version: int
    recipe: Recipe
    ratings: tuple[str, ...]
    versions: dict[str, str]
    counts: dict[str, int]
    num_records: int
    fates: dict[str, int]


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that was read and checked.

    Attributes:
        path: its file.
        seal: of the file: equal seals, equal locks.
        posts: ``schema.LOCK``, in the plan's order.
        info: about all of them.
    """

    path: Path
    seal: str
    posts: pa.Table
    info: LockInfo


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide bytes, of those that are installed."""
    found = {}
    for name in _DECIDING_LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def lock_beside(recipe_path: Path) -> Path:
    """Return where the lock of a recipe's file lies."""
    if recipe_path.name == "recipe.toml":
        return recipe_path.with_name(LOCK_NAME)
    return recipe_path.with_name(f"{recipe_path.stem}.{LOCK_NAME}")


def write_lock(work: Work, path: Path) -> Lock:
    """Write the lock of a work folder that is fetched and prepared, and return it as it reads.

    Raises:
        UserError: where a shard is not done, its samples are not of its originals, shards are of
            different settings, or the file cannot be written.
    """
    check_done(work)
    prepared_by = _settings_of_samples(work)
    check_writable(path)
    tables = [_lock_shard(work, name) for name in planned_shards(work.plan_path)]
    posts = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    about = read_about(work.plan_path)
    table = about["recipe"] | {"prepare": prepared_by}
    recipe = without_secrets(convert(table, Recipe, str(work.plan_path)))
    info = {
        "schema_version": SCHEMA_VERSION,
        "recipe": to_table(recipe),
        "ratings": sorted(allowed_ratings(recipe.select)),
        "versions": library_versions(),
        "counts": about["counts"],
        "num_records": about["num_records"],
        "fates": dict(count_fates(posts)),
    }
    with telling_unwritable(path):
        write_rows(path, [posts], info, **LOCK_ENCODING)
    return read_lock(path)


def check_lockable(work: Work) -> None:
    """Check, before anything that follows from a lock is done, that its shards go together.

    Raises:
        UserError: where they do not, as in ``write_lock``.
    """
    check_done(work)
    _settings_of_samples(work)
    for name in planned_shards(work.plan_path):
        _read_samples(work, name, read_planned(work.plan_path, name))


def check_done(work: Work) -> None:
    """Check that every planned shard is fetched and prepared, or raise UserError.

    Raises:
        DamagedError: where a shard has no tar, or not the one that its rows are of.
    """
    planned = planned_shards(work.plan_path)
    stages = [(work.raw_dir, "`fetch`"), (work.samples_dir, "`prepare`")]
    is_pulled = not planned_recipe(work.plan_path).source.images  # it names no place
    if not list_shards(work.raw_dir) and (is_pulled or list_shards(work.samples_dir)):
        stages = [(work.samples_dir, "`pull` or `fetch --locked`")]  # without their originals
    for directory, command in stages:
        if missing := planned.keys() - set(list_shards(directory)):
            name = min(missing)
            raise UserError(f"{directory}: shard {name} is not done yet; run {command} first.")
        for name in () if work.store else planned:
            check_tar(directory, name, read_info(rows_path(directory, name)))


def _settings_of_samples(work: Work) -> Table:
    """Return the settings that all samples were prepared by."""
    paths = (rows_path(work.samples_dir, name) for name in planned_shards(work.plan_path))
    found: list[Table] = [read_info(path).get("recipe", {}).get("prepare", {}) for path in paths]
    if any(settings != found[0] for settings in found):
        raise UserError(f"{work.samples_dir}: its shards are of different settings; run `prepare`.")
    return found[0]


def _check_settings(work: Work, name: str) -> None:
    """Check that originals came by the settings that the plan, and so the lock, says they did.

    From where they came does not matter: no lock says that.
    """
    path = rows_path(work.raw_dir, name)
    if not path.is_file():
        return
    recipe = planned_recipe(work.plan_path)
    wanted = content_settings(recipe.source)
    if read_info(path).get("settings", {}) | {"images": wanted["images"]} != wanted:
        raise UserError(
            f"{path}: was fetched with other settings of the source than the plan records; run "
            "`fetch` and `prepare` again, to their ends, with what is to be --set."
        )


def _read_samples(work: Work, name: str, plan: pa.Table) -> pa.Table:
    """Return what became of a shard's posts; they must be those of its plan and its originals."""
    _check_settings(work, name)
    samples = read_rows(rows_path(work.samples_dir, name), SAMPLES, _SUMS.names)
    raw = samples.select(["post_id", "source_sha256"]).rename_columns(["post_id", "sha256"])
    if list_shards(work.raw_dir):
        raw = read_rows(rows_path(work.raw_dir, name), RAW, ["post_id", "sha256"])
    same_posts = all(table["post_id"].equals(plan["post_id"]) for table in (raw, samples))
    if not same_posts or not samples["source_sha256"].equals(raw["sha256"]):
        raise UserError(
            f"{rows_path(work.samples_dir, name)}: not made of what {work.raw_dir} holds now; "
            "run `prepare`."
        )
    return samples


def _lock_shard(work: Work, name: str) -> pa.Table:
    """Return the locked posts of one shard, after the plan and what became of it."""
    plan = read_planned(work.plan_path, name)
    table = lock_posts(plan, _read_samples(work, name, plan))
    restored = restore_plan(table)
    if not as_texts(restored).equals(as_texts(plan)):
        post_id, field = _first_difference(restored, plan)
        raise UserError(
            f"{work.plan_path}: {field} of post {post_id} holds what no lock can say; "
            "`takedown` takes the post out."
        )
    return table


def _first_difference(a: pa.Table, b: pa.Table) -> tuple[int, str]:
    """Return the first post in which two plans of the same posts differ, and the field."""
    return next(
        (row["post_id"], field)
        for other, row in zip(a.to_pylist(), b.to_pylist(), strict=True)
        for field in row
        if row[field] != other[field]
    )


def read_lock(path: Path) -> Lock:
    """Read a lock, and check all that it says: nothing of it is trusted.

    Raises:
        UserError: where there is none, it is damaged, or says what no lock of ours can.
    """
    check_place(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; `lock` makes it.")
    check_size(path)
    check_seal(path)
    info = convert(read_info(path), LockInfo, str(path))
    posts = read_rows(path, LOCK)
    check_posts(path, posts)
    fates = dict(count_fates(posts))
    planned = info.counts.get(Status.PLANNED, 0) + info.counts.get(str(TAKEN_DOWN), 0)
    if (
        fates != info.fates
        or planned != len(posts)
        or sum(info.counts.values()) != info.num_records
    ):
        raise UserError(f"{path}: its counts are not those of its posts.")
    return Lock(path, read_seal(path), posts, info)


def rewrite_lock(path: Path, taken_down: Collection[int]) -> Lock:
    """Take posts out of a lock, but for their ids and places; return it as it reads then.

    Raises:
        UserError: as ``read_lock``.
    """
    lock = read_lock(path)
    plan = clear_posts(restore_plan(lock.posts), taken_down)
    num_removed = count_cleared(plan) - count_cleared(lock.posts)
    if not num_removed:
        return lock
    hex_sums = (to_hex(lock.posts[column]) for column in ("sha256", "sample_sha256"))
    columns = [lock.posts["post_id"], lock.posts["status"], lock.posts["reason"], *hex_sums]
    samples = pa.table(columns, schema=_SUMS)
    posts = lock_posts(plan, clear_posts(samples, taken_down))
    counts = count_removed(lock.info.counts, num_removed)
    info = read_info(path) | {"counts": counts, "fates": dict(count_fates(posts))}
    write_rows(path, [posts], info, **LOCK_ENCODING)
    return read_lock(path)
