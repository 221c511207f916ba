"""fetch: one planned shard -> one shard of originals, each looked at but not yet decoded whole."""

import hashlib
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.counts import Fates, count_fates, sum_ledger
from pipeline.errors import DamagedError
from pipeline.executor import Tick
from pipeline.originals import inspect, open_source
from pipeline.pictures.image import FORMATS
from pipeline.planning.plan import hash_table, read_planned
from pipeline.planning.settled import content_settings
from pipeline.recipe import SourceSettings
from pipeline.records import RETRYABLE, Download, Status, is_retryable, key_of
from pipeline.removals import TAKEN_DOWN
from pipeline.schema import LEDGER, RAW, SCHEMA_VERSION, SELECTION, Row, build_table
from pipeline.settings import fingerprint
from pipeline.shards.rows import check_seal, read_info, read_rows, write_rows
from pipeline.shards.shard import (
    ShardWriter,
    Span,
    is_current,
    read_span,
    rows_path,
    shard_name,
    tar_path,
)
from pipeline.web.client import Client, shared_client

_TAKEN_DOWN: Row = {
    "status": TAKEN_DOWN.status,
    "reason": TAKEN_DOWN.reason,
    "http_status": 0,
}
_FOUND = RAW.names[RAW.get_field_index("key") :]  # the columns that fetch adds to a post's
_FILE = ("md5", "ext")  # those of a post that say which file it is, ...
_SIZE = ("width", "height")  # ... and where its letterbox is looked for


@dataclass(frozen=True, slots=True)
class FetchStage:
    """Everything that one planned shard needs to become a shard of originals.

    Attributes:
        plan_path: ``selection.parquet``.
        raw_dir: where the shards go.
        ledger_dir: where attempts and times are written down.
        source: the recipe's source settings.
        num_workers: worker processes, which share rate and connections evenly.
        retry_failed: ask again for what a retry may mend, in finished shards too, and for what
            people may have mended since.
        reuse_dirs: each with an earlier ``selection.parquet``, its ``raw`` and its ``ledger``, from
            which what fits is taken without asking; the latest first.
        rebuild: make finished shards anew as well, out of what is sound in them.
        index_dir: where indexes of remote tars are kept for all workers; None keeps none.
    """

    plan_path: Path
    raw_dir: Path
    ledger_dir: Path
    source: SourceSettings
    num_workers: int = 1
    retry_failed: bool = False
    reuse_dirs: tuple[Path, ...] = ()
    rebuild: bool = False
    index_dir: Path | None = None

    def __call__(self, name: str, tick: Tick) -> Fates:
        """Fetch the originals of shard ``name``; a shard that is done is left as it is.

        Promise: every planned post gets exactly one row with one fate; a fetched one's bytes are
        in the tar; and what an earlier run settled is not asked for again.
        """
        planned = read_planned(self.plan_path, name)
        proof = self._prove(planned)
        if not self.rebuild and is_current(self.raw_dir, name, proof):
            done = read_rows(rows_path(self.raw_dir, name), RAW, ["status", "reason"])
            if not self.asks_again(done):
                tick(len(planned))
                return count_fates(done)
        posts = planned.drop_columns(["shard", "reason"]).to_pylist()
        removed = {post["post_id"] for post in posts if post.pop("status") == Status.REMOVED}
        settings = content_settings(self.source)
        info = {"stage": "fetch", "fingerprint": proof, "settings": settings}
        return self._fetch(name, posts, removed, info, tick)

    def proof(self, name: str) -> str:
        """Return the fingerprint of all that decides a shard but the source's answers."""
        return self._prove(read_planned(self.plan_path, name))

    def _prove(self, planned: pa.Table) -> str:
        return fingerprint(SCHEMA_VERSION, content_settings(self.source), hash_table(planned))

    def asks_again(self, done: pa.Table) -> bool:
        """Whether a finished shard with these rows holds posts that are to be asked for again."""
        return self.retry_failed and any(map(is_retryable, count_fates(done)))

    def _is_settled(self, row: Row) -> bool:
        if row["status"] in RETRYABLE or row["reason"] == "no_url":  # a newer record may name one
            return False
        return not (self.retry_failed and is_retryable(f"{row['status']}/{row['reason']}"))

    def _fetch(
        self, name: str, posts: list[Row], removed: set[int], info: dict[str, Any], tick: Tick
    ) -> Fates:
        settled = self._settled_before(name, posts, info["settings"])
        ledger = self._read_ledger(name)
        for post_id in removed:
            found = _TAKEN_DOWN.copy()
            settled[post_id] = found, _Stored(self.raw_dir, None, None)
            ledger[post_id] = _unknown(post_id, found)
        rows: list[Row] = []
        share = 1 / self.num_workers
        with (
            ShardWriter(self.raw_dir, name) as shard,
            shared_client(self.source, share) as client,
        ):
            for post, download in self._get_all(posts, settled, client):
                if download is None:
                    found, stored = settled[post["post_id"]]
                    content = stored.read()
                    ledger.setdefault(post["post_id"], _unknown(post["post_id"], found))
                else:
                    found, content = self._judge(post, download), download.content
                    _enter(ledger, post["post_id"], download, found)
                if found["status"] == Status.FETCHED:
                    span = shard.add(f"{found['key']}.{found['format']}", content)
                    found |= {"offset": span.offset, "size": span.size}
                rows.append({k: v for k, v in post.items() if k != "file_url"} | found)
                tick(1)
            table = build_table(rows, RAW)
            entries = build_table([ledger[row["post_id"]] for row in rows], LEDGER)
            write_rows(rows_path(self.ledger_dir, name), [entries], ledger_info(name, entries))
            shard.commit(table, info)
        return count_fates(table)

    def _get_all(
        self, posts: list[Row], settled: "dict[int, tuple[Row, _Stored]]", client: Client
    ) -> Iterator[tuple[Row, Download | None]]:
        """Yield posts in order with what came, None for settled ones; few are held at a time.

        They come in batches, for what downloads need and what looking at a picture needs push one
        another out of the processor's caches.
        """
        num_threads = max(1, math.ceil(self.source.connections / self.num_workers))
        waiting: deque[tuple[Row, Future[Download] | None]] = deque()
        get = open_source(client, self.source, self.index_dir)
        pool = ThreadPoolExecutor(num_threads)
        try:
            for post in posts:
                future = None
                if post["post_id"] not in settled:
                    future = pool.submit(get, post)
                waiting.append((post, future))
                if len(waiting) == 2 * num_threads:
                    yield from [_wait_for(*waiting.popleft()) for _ in range(num_threads)]
            while waiting:
                yield _wait_for(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _judge(self, post: Row, download: Download) -> Row:
        found: Row = {"status": download.fate.status, "reason": download.fate.reason}
        if download.fate.status == Status.FETCHED:
            found = inspect(post, download.content, self.source)
        return found | {"http_status": download.http_status}

    def _settled_before(
        self, name: str, posts: list[Row], settings: dict[str, Any]
    ) -> "dict[int, tuple[Row, _Stored]]":
        """Return what earlier runs settled of this shard's posts: their columns, and the bytes.

        Of two runs the later one's word counts.
        """
        planned = {post["post_id"]: post for post in posts}
        settled: dict[int, tuple[Row, _Stored]] = {}
        for root, shard in self._earlier(name):
            directory = root / self.raw_dir.name
            try:
                check_seal(rows_path(directory, shard))
                table = read_rows(rows_path(directory, shard), RAW)
                info = read_info(rows_path(directory, shard))
            except DamagedError:
                continue  # as if it were not there: its posts are asked for again
            then = info.get("settings", {})
            if then.get("images") != settings["images"]:
                continue
            for row in table.to_pylist():
                post = planned.get(row["post_id"])
                if post is not None and row["post_id"] not in settled:
                    stored = _Stored(tar_path(directory, shard), row["offset"], row["size"])
                    found = self._recall(post, row, stored, then == settings)
                    if found is not None:
                        settled[row["post_id"]] = found, stored
        return settled

    def _recall(
        self, post: Row, row: Row, stored: "_Stored", has_same_settings: bool
    ) -> Row | None:
        """Return a post's columns as an earlier run's row settles them, None where it does not.

        What came under other limits, or by a record of another size, is looked at again; what is
        not right then is asked for again, as is what was not right before.
        """
        if not (_are_same(post, row, _FILE) and self._is_settled(row) and stored.matches(row)):
            return None
        found = {column: row[column] for column in ("status", "reason", *_FOUND)}
        if row["status"] != Status.FETCHED:
            return found if has_same_settings or row["status"] != Status.REJECTED else None
        if has_same_settings and _are_same(post, row, _SIZE):
            return found
        found = {column: row[column] for column in ("http_status", "size")}
        found |= inspect(post, stored.read(), self.source)
        is_right = found["status"] == Status.FETCHED and row["size"] <= self.source.max_bytes
        return found if is_right else None

    def _earlier(self, name: str) -> list[tuple[Path, str]]:
        """Return where earlier runs left this shard's posts: folders, and their shards' names."""
        places = [(self.raw_dir.parent, name)]
        for earlier in self.reuse_dirs:
            posts = read_planned(self.plan_path, name)
            old_names = _shards_with(posts, earlier / self.plan_path.name)
            places += [(earlier, old) for old in old_names]
        return places

    def _read_ledger(self, name: str) -> dict[int, Row]:
        """Return what is written down of this shard's posts; where it is damaged, nothing."""
        ledger: dict[int, Row] = {}
        for root, shard in reversed(self._earlier(name)):
            path = rows_path(root / self.ledger_dir.name, shard)
            with suppress(DamagedError):
                check_seal(path)
                ledger |= {row["post_id"]: row for row in read_rows(path, LEDGER).to_pylist()}
        return ledger


@dataclass(frozen=True, slots=True)
class _Stored:
    """An original's bytes in an earlier shard; without an offset, none."""

    path: Path
    offset: int | None
    size: int | None

    def read(self) -> bytes:
        if self.offset is None or self.size is None:
            return b""
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


def _are_same(a: Row, b: Row, columns: Iterable[str]) -> bool:
    return all(a[column] == b[column] for column in columns)


def _wait_for(post: Row, future: Future[Download] | None) -> tuple[Row, Download | None]:
    return post, future.result() if future is not None else None


def _shards_with(posts: pa.Table, plan_path: Path) -> list[str]:
    """Return the shards of an earlier plan that some posts were in."""
    old = _read_places(plan_path, plan_path.stat().st_mtime_ns)
    ids, wanted = old["post_id"].to_numpy(), posts["post_id"].to_numpy()
    rows = np.searchsorted(ids, wanted)
    rows = rows[rows < len(ids)]
    found = old.take(rows[np.isin(ids[rows], wanted)])
    places = set(zip(found["split"].to_pylist(), found["shard"].to_pylist(), strict=True))
    return [shard_name(split, number) for split, number in sorted(places)]


@lru_cache(2)  # every shard asks
def _read_places(plan_path: Path, modified: int) -> pa.Table:
    return read_rows(plan_path, SELECTION, ["post_id", "split", "shard"]).sort_by("post_id")


def _unknown(post_id: int, found: Row) -> Row:
    """Return the ledger's row of an original whose downloads nothing tells of any more."""
    return {
        "post_id": post_id,
        "status": found["status"],
        "reason": found["reason"],
        "http_status": found["http_status"],
        "attempts": 0,
        "num_bytes": found.get("size") or 0,
        "seconds": 0.0,
        "asked_at": None,
    }


def _enter(ledger: dict[int, Row], post_id: int, download: Download, found: Row) -> None:
    """Write an original's download down, adding to the attempts of earlier runs."""
    before = ledger[post_id]["attempts"] if post_id in ledger else 0
    ledger[post_id] = {
        "post_id": post_id,
        "status": found["status"],
        "reason": found["reason"],
        "http_status": download.http_status,
        "attempts": before + download.num_attempts,
        "num_bytes": len(download.content),
        "seconds": download.seconds,
        "asked_at": datetime.now(UTC).replace(microsecond=0),
    }


def ledger_info(name: str, entries: pa.Table) -> dict[str, Any]:
    """Return what a ledger says about itself."""
    return {"shard": name, "asked": asdict(sum_ledger(entries))}
