"""fetch: one planned shard -> one shard of originals, each looked at but not yet decoded whole."""

from collections import deque
from collections.abc import Container, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.counts import Fates, count_fates
from pipeline.errors import DamagedError, UserError
from pipeline.executor import Tick
from pipeline.planning.plan import hash_table, read_planned
from pipeline.recipe import SourceSettings
from pipeline.recipe_shared import content_settings
from pipeline.records import NOT_ALLOWED, Download, Status, is_asked_again
from pipeline.removals import TAKEN_DOWN
from pipeline.schema import LEDGER, RAW, SCHEMA_VERSION, Row, build_table
from pipeline.settings import Table, fingerprint_of
from pipeline.shards.rows import read_fates, read_info
from pipeline.shards.shard import ShardWriter, is_current, rows_path
from pipeline.stages.ledger import new_entry, read_refused_hosts, unknown_entry, write_ledger
from pipeline.stages.originals import inspect, open_source
from pipeline.stages.reuse import Settled, Stored, find_earlier, recall_ledger, recall_posts
from pipeline.urls import without_password
from pipeline.web.client import Client
from pipeline.web.shared import shared_client
from pipeline.words import counted
from pipeline.work import Work

_TAKEN_DOWN: Row = TAKEN_DOWN.columns | {"http_status": 0}


def raw_fingerprint(settings: Table, planned: pa.Table) -> str:
    """Return the fingerprint of a shard of these posts that came by these settings."""
    return fingerprint_of(SCHEMA_VERSION, settings, hash_table(planned))


@dataclass(frozen=True, slots=True)
class FetchStage:
    """Everything that one planned shard needs to become a shard of originals.

    Attributes:
        work: the folder with the plan, where shards go, and attempts and times are written down.
        source: the recipe's source settings.
        num_workers: worker processes, which share rate and connections evenly.
        retry_failed: ask again for what a retry may mend, in finished shards too, and for what
            people may have mended since.
        rebuild: make finished shards anew as well, out of what is sound in them.
        index_dir: where indexes of remote tars are kept for all workers; None keeps none.
    """

    work: Work
    source: SourceSettings
    num_workers: int = 1
    retry_failed: bool = False
    rebuild: bool = False
    index_dir: Path | None = None

    def __call__(self, name: str, tick: Tick) -> Fates:
        """Fetch the originals of shard ``name``; a shard that is done is left as it is.

        Promise: every planned post gets exactly one row with one fate; a fetched one's bytes are
        in the tar; and what an earlier run settled is not asked for again.

        Raises:
            UserError: where another source than before has none of the posts.
        """
        planned = read_planned(self.work.plan_path, name)
        settings = content_settings(self.source)
        fingerprint = raw_fingerprint(settings, planned)
        if not self.rebuild and is_current(self.work.raw_dir, name, fingerprint):
            done = read_fates(rows_path(self.work.raw_dir, name), RAW)
            if not self.asks_again(done):
                tick(done.total())
                return done
        posts = planned.drop_columns(["shard", "reason"]).to_pylist()
        removed = {post["post_id"] for post in posts if post.pop("status") == Status.REMOVED}
        info = {"stage": "fetch", "fingerprint": fingerprint, "settings": settings}
        return self._fetch(name, posts, removed, info, tick)

    def fingerprint(self, name: str) -> str:
        """Return the fingerprint of all that decides a shard but the source's answers."""
        planned = read_planned(self.work.plan_path, name)
        return raw_fingerprint(content_settings(self.source), planned)

    def asks_again(self, done: Fates) -> bool:
        """Whether a finished shard with these fates holds posts that are to be asked for again."""
        return self.retry_failed and any(map(is_asked_again, done))

    def _fetch(
        self, name: str, posts: list[Row], removed: set[int], info: dict[str, Any], tick: Tick
    ) -> Fates:
        earlier = find_earlier(self.work, name, posts)
        settled = recall_posts(earlier, posts, self.source, retry_failed=self.retry_failed)
        ledger = recall_ledger(earlier)
        for post_id in removed:
            settled[post_id] = Settled(_TAKEN_DOWN, Stored(self.work.raw_dir))
            ledger[post_id] = unknown_entry(post_id, _TAKEN_DOWN)
        hosts = set[str]()  # that may not be asked
        if any(found["reason"] == NOT_ALLOWED.reason for found, _ in settled.values()):
            ledgers = [rows_path(work.ledger_dir, old) for work, old in earlier]
            hosts |= read_refused_hosts(ledgers)
        rows: list[Row] = []
        share = 1 / self.num_workers
        with (
            ShardWriter(self.work.raw_dir, name) as shard,
            shared_client(self.source, share) as client,
        ):
            for post, download in self._get_all(posts, settled, client):
                post_id = post["post_id"]
                if download is None:
                    found, stored = settled[post_id]
                    content = stored.read()
                    ledger.setdefault(post_id, unknown_entry(post_id, found))
                else:
                    found, content = self._judge(post, download), download.content
                    hosts |= {download.host} - {""}
                    ledger[post_id] = new_entry(post_id, download, found, ledger.get(post_id))
                if found["status"] == Status.FETCHED:
                    span = shard.add(f"{found['key']}.{found['format']}", content)
                    found = found | {"offset": span.offset, "size": span.size}
                rows.append({k: v for k, v in post.items() if k != "file_url"} | found)
                tick(1)
            table = build_table(rows, RAW)
            fates = count_fates(table)
            self._check_gain(name, fates)
            entries = build_table([ledger[row["post_id"]] for row in rows], LEDGER)
            write_ledger(self.work.ledger_dir, name, entries, hosts)
            shard.commit(table, info)
        return fates

    def _check_gain(self, name: str, fates: Fates) -> None:
        """Check that another source does not replace a shard's originals by none at all.

        Raises:
            UserError: where it does, as one whose name is mistyped would.
        """
        path = rows_path(self.work.raw_dir, name)
        try:
            then = read_info(path).get("settings", {})
            num = read_fates(path, RAW)[Status.FETCHED]
        except DamagedError:
            return
        is_other = then.get("images") != content_settings(self.source)["images"]
        if is_other and num and not fates[Status.FETCHED]:
            raise UserError(
                f"{without_password(self.source.images)}: has not one picture of {name}, of which "
                f"{counted(num, 'original')} came from elsewhere and stay. Is it mistyped? If not, "
                f"delete {path}, and run the same command again."
            )

    def _get_all(
        self, posts: list[Row], settled: Container[int], client: Client
    ) -> Iterator[tuple[Row, Download | None]]:
        """Yield posts in order with what came, None for settled ones; few are held at a time.

        They come in batches, for what downloads need and what looking at a picture needs push one
        another out of the processor's caches.
        """
        num_threads = max(1, self.source.connections // self.num_workers)
        waiting: deque[tuple[Row, Future[Download] | None]] = deque()
        get = open_source(client, self.source, self.index_dir)
        pool = ThreadPoolExecutor(num_threads)
        try:
            for post in posts:
                is_settled = post["post_id"] in settled
                waiting.append((post, None if is_settled else pool.submit(get, post)))
                if len(waiting) == 2 * num_threads:
                    yield from [_wait_for(*waiting.popleft()) for _ in range(num_threads)]
            while waiting:
                yield _wait_for(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _judge(self, post: Row, download: Download) -> Row:
        found: Row = download.fate.columns
        if download.fate.status == Status.FETCHED:
            found = inspect(post, download.content, self.source)
        return found | {"http_status": download.http_status}


def _wait_for(post: Row, future: Future[Download] | None) -> tuple[Row, Download | None]:
    return post, future.result() if future is not None else None
