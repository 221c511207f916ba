"""A lock's posts: from planned posts and what became of them, and back to the plan."""

import re

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.records import Status
from pipeline.removals import TAKEN_DOWN
from pipeline.schema import LOCK, SELECTION

_MD5_MARK = "{md5}"
_MD5_MARKS = re.compile(r"\{md5(:*)\}")  # one with colons is the URL's own text, and gets one more


def lock_posts(plan: pa.Table, samples: pa.Table) -> pa.Table:
    """Return planned posts as a lock says them, ``schema.LOCK``.

    Args:
        plan: ``schema.SELECTION``.
        samples: ``status, reason, source_sha256, sha256`` of the same posts in the same order.
    """
    md5, urls = plan["md5"].to_pylist(), plan["file_url"].to_pylist()
    folded = [_fold_url(url, m) if m else url for url, m in zip(urls, md5, strict=True)]
    locked = dict(zip(plan.column_names, plan.columns, strict=True)) | {
        "status": samples["status"],
        "reason": samples["reason"],
        "md5": _to_bytes(md5, 16),
        "character": plan["character"].dictionary_encode(),
        "tags": _to_words(plan["tags"]),
        "file_url": pa.array(folded, pa.string()).dictionary_encode(),
        "sha256": _to_bytes(samples["source_sha256"].to_pylist(), 32),
        "sample_sha256": _to_bytes(samples["sha256"].to_pylist(), 32),
    }
    return pa.table([locked[column] for column in LOCK.names], schema=LOCK)


def _to_bytes(sums: list[str | None], num_bytes: int) -> pa.Array:
    return pa.array([bytes.fromhex(s) if s else None for s in sums], pa.binary(num_bytes))


def to_hex(sums: pa.ChunkedArray) -> list[str | None]:
    """Return the sums in one of a lock's columns as rows have them."""
    return [sum_.hex() if sum_ else None for sum_ in sums.to_pylist()]


def _to_words(texts: pa.ChunkedArray) -> pa.Array:
    """Return space-separated words as lists of numbered words."""
    lists = pc.split_pattern(texts.combine_chunks(), " ")
    words = lists.values.dictionary_encode()
    return pa.ListArray.from_arrays(lists.offsets, words, type=LOCK.field("tags").type)


def _fold_url(url: str, md5: str) -> str:
    """Write ``{md5}`` for the md5 in a URL, so that URLs become alike; its own takes a colon."""
    return _MD5_MARKS.sub(r"{md5\1:}", url).replace(md5, _MD5_MARK)


def _unfold_url(folded: str, md5: str) -> str:
    return _MD5_MARKS.sub(lambda m: f"{{md5{m[1][1:]}}}" if m[1] else md5, folded)


def restore_plan(posts: pa.Table) -> pa.Table:
    """Return the plan that a lock was made of, ``schema.SELECTION``."""
    md5 = [sum_ or "" for sum_ in to_hex(posts["md5"])]
    folded = posts["file_url"].to_pylist()
    urls = [_unfold_url(url, m) if m else url for url, m in zip(folded, md5, strict=True)]
    words = posts["tags"].cast(pa.list_(pa.string()))
    is_removed = pc.equal(posts["status"], TAKEN_DOWN.status)
    status = pc.if_else(is_removed, str(TAKEN_DOWN.status), str(Status.PLANNED))
    reason = pc.if_else(is_removed, TAKEN_DOWN.reason, "")
    restored = dict(zip(posts.column_names, posts.columns, strict=True)) | {
        "status": status.dictionary_encode(),
        "reason": reason.dictionary_encode(),
        "md5": pa.array(md5, pa.string()),
        "character": posts["character"].cast(pa.string()),
        "tags": pc.binary_join(words, " "),
        "file_url": pa.array(urls, pa.string()),
    }
    columns = [restored.get(field.name, posts[field.name]).cast(field.type) for field in SELECTION]
    return pa.table(columns, schema=SELECTION)
