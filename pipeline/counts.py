"""What a shard's rows come to, counted once and written into its commit record for `status`."""

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.records import RETRYABLE, Fate, Status

Fates = Counter[str]


def count_fates(table: pa.Table) -> Fates:
    """Return how many rows of a table have each fate, by ``str(Fate)``.

    Raises:
        ValueError: on a status or reason that no fate has.
    """
    groups = table.group_by(["status", "reason"], use_threads=False).aggregate([([], "count_all")])
    status, reason, count = (
        groups[column].to_pylist() for column in ("status", "reason", "count_all")
    )
    return Counter(
        {str(Fate(Status(s), r)): n for s, r, n in zip(status, reason, count, strict=True)}
    )


def count_retryable(fates: Fates) -> int:
    """Return how many posts a later run may mend, by their fates."""
    return sum(count for fate, count in fates.items() if fate.partition("/")[0] in RETRYABLE)


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
