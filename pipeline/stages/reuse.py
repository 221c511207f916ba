"""What earlier runs left of a shard's posts: what they settled, the bytes, and how these came."""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.counts import count_fates, fates_of
from pipeline.disk import check_place
from pipeline.errors import DamagedError
from pipeline.recipe import SourceSettings
from pipeline.recipe_shared import content_settings
from pipeline.records import Status, is_asked_again, key_of
from pipeline.schema import FORMATS, LEDGER, RAW, Row, take_posts
from pipeline.shards.rows import check_seal, read_info, read_rows
from pipeline.shards.shard import Span, list_shards, read_span, rows_path, tar_path
from pipeline.stages.originals import inspect
from pipeline.work import Work

_FOUND = RAW.names[RAW.get_field_index("key") :]  # the columns that fetch adds to a post's
_FILE = ("md5", "ext")  # those of a post that say which file it is, ...
_SIZE = ("width", "height")  # ... and where its letterbox is looked for


@dataclass(frozen=True, slots=True)
class Stored:
    """An original's bytes in an earlier shard; without an offset, none."""

    path: Path
    offset: int | None = None
    size: int | None = None

    def read(self) -> bytes:
        """Return the bytes."""
        if self.offset is None or self.size is None:
            return b""
        check_place(self.path)
        with self.path.open("rb") as file:
            return read_span(file, Span(self.offset, self.size))

    def matches(self, row: Row) -> bool:
        """Whether the bytes are those that the row promises, under a name that is the post's."""
        if row["status"] != Status.FETCHED:
            return self.offset is None
        if row["key"] != key_of(row["post_id"]) or row["format"] not in FORMATS:
            return False
        try:
            return bool(hashlib.sha256(self.read()).hexdigest() == row["sha256"])
        except (DamagedError, OSError):
            return False


class Settled(NamedTuple):
    """A post that is not asked for: what fetch adds to its columns, and its bytes."""

    found: Row
    stored: Stored


class EarlierShard(NamedTuple):
    """A shard that may hold some of the posts, and the folder that it lies in."""

    work: Work
    name: str


def find_earlier(work: Work, name: str, posts: Sequence[Row]) -> list[EarlierShard]:
    """Return where earlier runs left a shard's posts, the latest run first."""
    shards = [EarlierShard(work, name)]
    ids = np.array([post["post_id"] for post in posts], np.int64)
    for old in work.old_works():
        shards += [EarlierShard(old, shard) for shard in _shards_with(ids, old.raw_dir)]
    return shards


def recall_posts(
    shards: Sequence[EarlierShard],
    posts: Sequence[Row],
    source: SourceSettings,
    *,
    retry_failed: bool,
) -> dict[int, Settled]:
    """Return what earlier runs settled of some planned posts, by post id; the latest run counts.

    With ``retry_failed`` what a retry may mend is settled by none.
    """
    planned = {post["post_id"]: post for post in posts}
    wanted = content_settings(source)
    settled: dict[int, Settled] = {}
    for work, name in shards:
        path = rows_path(work.raw_dir, name)
        try:
            check_seal(path)
            table = read_rows(path, RAW)
            then = read_info(path).get("settings", {})
        except DamagedError:
            continue  # as if it were not there: its posts are asked for again
        if then.get("images") != wanted["images"]:
            continue
        for row in table.to_pylist():
            post = planned.get(row["post_id"])
            if post is None or row["post_id"] in settled or not _is_settled(row, retry_failed):
                continue
            stored = Stored(tar_path(work.raw_dir, name), row["offset"], row["size"])
            found = _recall(post, row, stored, source, then == wanted)
            if found is not None:
                settled[row["post_id"]] = Settled(found, stored)
    return settled


def _is_settled(row: Row, retry_failed: bool) -> bool:
    if row["status"] == Status.FAILED or row["reason"] == "no_url":  # a newer record may name one
        return False
    return not (retry_failed and is_asked_again(f"{row['status']}/{row['reason']}"))


def _recall(
    post: Row, row: Row, stored: Stored, source: SourceSettings, has_same_settings: bool
) -> Row | None:
    """Return a post's columns as an earlier run's row settles them, None where it does not.

    An original that came under other limits, or with a record of another size, is inspected again.
    It is asked for again where it is not right now, or was not right before.
    """
    if not (_are_same(post, row, _FILE) and stored.matches(row)):
        return None
    found = {column: row[column] for column in ("status", "reason", *_FOUND)}
    if row["status"] != Status.FETCHED:
        return found if has_same_settings or row["status"] != Status.REJECTED else None
    if has_same_settings and _are_same(post, row, _SIZE):
        return found
    found = {column: row[column] for column in ("http_status", "size")}
    found |= inspect(post, stored.read(), source)
    is_right = found["status"] == Status.FETCHED and row["size"] <= source.max_bytes
    return found if is_right else None


def _are_same(a: Row, b: Row, columns: Iterable[str]) -> bool:
    return all(a[column] == b[column] for column in columns)


def recall_ledger(shards: Sequence[EarlierShard]) -> dict[int, Row]:
    """Return the entries of earlier shards' ledgers, by post id; of damaged ones none."""
    ledger: dict[int, Row] = {}
    for work, name in reversed(shards):
        path = rows_path(work.ledger_dir, name)
        with suppress(DamagedError):
            check_seal(path)
            ledger |= {row["post_id"]: row for row in read_rows(path, LEDGER).to_pylist()}
    return ledger


def _shards_with(ids: NDArray[np.int64], raw_dir: Path) -> list[str]:
    """Return the shards of an earlier plan that have rows of some posts."""
    places = _read_places(raw_dir, raw_dir.stat().st_mtime_ns)
    return sorted(take_posts(places, ids)["shard"].unique().to_pylist())


@lru_cache(2)  # every shard asks
def _read_places(raw_dir: Path, modified: int) -> pa.Table:
    """Return the shard of each post that a folder has a row of; damaged rows are passed over."""
    places = [pa.table({"post_id": pa.array([], pa.int64()), "shard": pa.array([], pa.string())})]
    for name in list_shards(raw_dir):
        with suppress(DamagedError):
            ids = read_rows(rows_path(raw_dir, name), RAW, ["post_id"])["post_id"]
            places.append(pa.table({"post_id": ids, "shard": pa.repeat(name, len(ids))}))
    return pa.concat_tables(places).sort_by("post_id")


def count_unfetched(
    work: Work, posts: pa.Table, source: SourceSettings, *, retry_failed: bool = False
) -> int:
    """Return how many planned posts no earlier run has settled, by these settings.

    A post whose record hides what the template needs is none of them: nobody is asked for it.

    Args:
        work: the folder, which need not be there.
        posts: ``schema.SELECTION``.
        source: by which they would be fetched.
        retry_failed: whether what a retry may mend counts.
    """
    posts = posts.filter(pc.equal(posts["status"], Status.PLANNED))
    for field in ("md5", "file_url"):
        if f"{{{field}}}" in source.images:
            posts = posts.filter(pc.not_equal(posts[field], ""))
    wanted = content_settings(source)
    settled: list[pa.Array] = []
    for directory in (work.raw_dir, *(old.raw_dir for old in work.old_works())):
        for name in list_shards(directory):
            path = rows_path(directory, name)
            try:
                settings = read_info(path).get("settings", {})
                if settings.get("images") != wanted["images"]:
                    continue
                rows = read_rows(path, RAW, ["post_id", "md5", "ext", "status", "reason"])
            except DamagedError:
                continue
            rows = rows.filter(pc.not_equal(rows["reason"], "no_url"))
            if settings != wanted:  # what was rejected may pass now, what failed is asked again
                stands = pa.array([Status.FETCHED, Status.MISSING, Status.REFUSED], pa.string())
                rows = rows.filter(pc.is_in(rows["status"], value_set=stands))
            if retry_failed:
                again = pa.array(filter(is_asked_again, count_fates(rows)), pa.string())
                rows = rows.filter(pc.invert(pc.is_in(fates_of(rows), again)))
            settled += _join(rows, "post_id", "md5", "ext").chunks
    if not settled:
        return len(posts)
    done = pc.is_in(_join(posts, "post_id", "md5", "ext"), pa.concat_arrays(settled))
    return len(posts) - int(pc.sum(done, min_count=0).as_py())


def _join(table: pa.Table, *columns: str) -> pa.ChunkedArray:
    """Return each row's values of some columns as a text, with slashes between them."""
    texts = [table[column].cast(pa.string()) for column in columns]
    return pc.binary_join_element_wise(*texts, "/")
