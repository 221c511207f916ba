"""What a finished shard of originals has settled, and with which settings."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.counts import count_fates, fates_of
from pipeline.errors import DamagedError
from pipeline.recipe import SourceSettings
from pipeline.records import Status, is_asked_again
from pipeline.schema import RAW
from pipeline.shards.rows import read_info, read_rows
from pipeline.shards.shard import list_shards, rows_path
from pipeline.work import Work

_KEPT = pa.array([Status.FETCHED, Status.MISSING, Status.REFUSED], pa.string())
"""Statuses that stand under other limits as well."""


def content_settings(source: SourceSettings) -> dict[str, Any]:
    """Return the settings that decide what is fetched, without those of how politely.

    The host is not among them: a mirror that has moved serves the same pictures.
    """
    path = source.images.partition("://")[2].partition("/")[2] or source.images
    return {
        "images": path,
        "layout": source.layout,
        "max_bytes": source.max_bytes,
        "max_pixels": source.max_pixels,
        "check_md5": source.verifies_md5,
    }


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
    for directory in (work.raw_dir, *work.reuse_dir.glob(f"*/{work.raw_dir.name}")):
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
            if settings != wanted:
                is_kept = pc.is_in(rows["status"], value_set=_KEPT)
                rows = rows.filter(is_kept)
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
