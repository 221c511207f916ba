"""Posts by their fates: counted once, and written into each shard's commit record."""

from collections import Counter

import pyarrow as pa

from pipeline.records import Fate, Status

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


def count_failed(fates: Fates) -> int:
    """Return how many posts failed, which a later run may mend."""
    return sum(count for fate, count in fates.items() if fate.partition("/")[0] == Status.FAILED)
