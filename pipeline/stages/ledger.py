"""The ledger: how each original came, apart from the rows, which are reproducible."""

from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DamagedError
from pipeline.records import Download
from pipeline.schema import Row
from pipeline.shards.rows import peek_info, write_rows
from pipeline.shards.shard import rows_path

_MAX_HOSTS = 10  # of a shard, that are named as not to be asked


@dataclass(slots=True)
class FetchTotals:
    """What getting originals took so far, by the ledger.

    Attributes:
        num_posts: posts that the ledger tells of.
        num_attempts: tries over all runs.
        num_bytes: that came, of each post's last download.
        seconds: that downloads took, of each post's last one; many ran at a time.
        http_statuses: posts by the status of the last answer, "0" for none.
    """

    num_posts: int = 0
    num_attempts: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    http_statuses: dict[str, int] = field(default_factory=dict)

    def add(self, other: "FetchTotals") -> None:
        """Count another ledger in."""
        self.num_posts += other.num_posts
        self.num_attempts += other.num_attempts
        self.num_bytes += other.num_bytes
        self.seconds += other.seconds
        self.http_statuses = dict(Counter(self.http_statuses) + Counter(other.http_statuses))


def sum_ledger(table: pa.Table) -> FetchTotals:
    """Return what a ledger's rows come to."""
    counts = pc.value_counts(table["http_status"]).to_pylist()
    return FetchTotals(
        len(table),
        pc.sum(table["attempts"], min_count=0).as_py(),
        pc.sum(table["num_bytes"], min_count=0).as_py(),
        pc.sum(table["seconds"], min_count=0).as_py(),
        {str(found["values"]): found["counts"] for found in counts},
    )


def write_ledger(
    directory: Path, name: str, entries: pa.Table, refused_hosts: Collection[str] = ()
) -> None:
    """Write a shard's ledger (``schema.LEDGER``), with what it comes to for ``status``.

    Args:
        directory: where it goes.
        name: the shard's.
        entries: one for each of its posts.
        refused_hosts: that posts led to, and that may not be asked; only a few are kept.
    """
    info: dict[str, Any] = {"shard": name, "asked": asdict(sum_ledger(entries))}
    if refused_hosts:
        info["refused_hosts"] = sorted(refused_hosts)[:_MAX_HOSTS]
    write_rows(rows_path(directory, name), [entries], info)


def read_refused_hosts(paths: Iterable[Path]) -> set[str]:
    """Return the hosts of which ledgers say that they may not be asked; of damaged ones none."""
    hosts: set[str] = set()
    for path in paths:
        with suppress(DamagedError, msgspec.ValidationError):
            hosts |= msgspec.convert(peek_info(path).get("refused_hosts", []), set[str])
    return hosts


def unknown_entry(post_id: int, found: Row) -> Row:
    """Return the entry of an original about whose downloads nothing is known."""
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


def new_entry(post_id: int, download: Download, found: Row, before: Row | None) -> Row:
    """Return the entry of an original that has just been asked for, and perhaps ``before``."""
    return unknown_entry(post_id, found) | {
        "attempts": (before["attempts"] if before else 0) + download.num_attempts,
        "num_bytes": len(download.content),
        "seconds": download.seconds,
        "asked_at": datetime.now(UTC).replace(microsecond=0),
    }
