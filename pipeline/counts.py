"""Posts by their fates: counted once, and written into each shard's commit record."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.records import Fate, Status, is_asked_again
from pipeline.schema import as_texts

Fates = Counter[str]


def fates_of(table: pa.Table) -> pa.ChunkedArray:
    """Return each row's ``str(Fate)``; that there are such fates is not checked."""
    status, reason = as_texts(table.select(["status", "reason"])).columns
    joined = pc.binary_join_element_wise(status, reason, "/")
    return pc.if_else(pc.equal(reason, ""), status, joined)


def count_fates(table: pa.Table) -> Fates:
    """Return how many rows of a table have each fate, by ``str(Fate)``.

    Raises:
        ValueError: on a status or reason that no fate has.
    """
    words = as_texts(table.select(["status", "reason"]))
    groups = words.group_by(words.column_names, use_threads=False).aggregate([([], "count_all")])
    return Counter(
        {str(Fate(Status(g["status"]), g["reason"])): g["count_all"] for g in groups.to_pylist()}
    )


def count_failed(fates: Fates) -> int:
    """Return how many posts failed, which a later run may mend."""
    return sum(count for fate, count in fates.items() if fate.partition("/")[0] == Status.FAILED)


def count_retryable(fates: Fates) -> int:
    """Return of how many posts ``fetch --retry-failed`` asks again."""
    return sum(count for fate, count in fates.items() if is_asked_again(fate))
