"""The ledger: how each original came, apart from the rows, which are reproducible."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.records import Download
from pipeline.schema import Row
from pipeline.shards.rows import write_rows
from pipeline.shards.shard import rows_path


@dataclass(slots=True)
class Asked:
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

    def add(self, other: "Asked") -> None:
        """Count another ledger in."""
        self.num_posts += other.num_posts
        self.num_attempts += other.num_attempts
        self.num_bytes += other.num_bytes
        self.seconds += other.seconds
        self.http_statuses = dict(Counter(self.http_statuses) + Counter(other.http_statuses))


def sum_ledger(table: pa.Table) -> Asked:
    """Return what a ledger's rows come to."""
    counts = pc.value_counts(table["http_status"]).to_pylist()
    return Asked(
        len(table),
        pc.sum(table["attempts"], min_count=0).as_py(),
        pc.sum(table["num_bytes"], min_count=0).as_py(),
        pc.sum(table["seconds"], min_count=0).as_py(),
        {str(found["values"]): found["counts"] for found in counts},
    )


def write_ledger(directory: Path, name: str, entries: pa.Table) -> None:
    """Write a shard's ledger (``schema.LEDGER``), with what it comes to for ``status``."""
    info = {"shard": name, "asked": asdict(sum_ledger(entries))}
    write_rows(rows_path(directory, name), [entries], info)


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
