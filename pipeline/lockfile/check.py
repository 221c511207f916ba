"""What a lock may say: checks of its size and of every column, before any of it is used.

Size and text are checked likewise in rows of samples that come from elsewhere.
"""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.counts import count_fates
from pipeline.disk import reason
from pipeline.errors import DamagedError, UserError
from pipeline.planning.plan_check import promises_of_posts, words_of
from pipeline.records import OF_PREPARE, Status
from pipeline.schema import LOCK, SAMPLES, SPLITS
from pipeline.shards.pages import check_pages

MAX_POSTS = 20_000_000
MAX_TEXT = 2**32
"""Bytes of all texts together, as they are in the plan."""

_MAX_FILE_BYTES = 2**32
_MAX_FOOTER = 2**22  # bytes; Arrow takes fifty times as many for it
_MAX_CHUNK = 2**31 - 1  # bytes of text that Arrow can have in one piece
_MAX_TAGS = 2**31
_MAX_TEXT_A_POST = 2**16  # bytes, on average over a shard's
_EXTENSION = re.compile("[a-z0-9]{0,16}")
_NEVER_LAST = (Status.FILTERED, Status.PLANNED, Status.FETCHED)


def check_size(path: Path, max_posts: int = MAX_POSTS) -> None:
    """Check, before it is read, that reading a table takes no more memory than a lock may.

    Args:
        path: of a lock, or of a shard's rows.
        max_posts: that it may have.

    Raises:
        UserError: where it is larger, or no Parquet file.
    """
    try:
        _check_footer(path)
        metadata = pq.read_metadata(path)
        num_bytes, num_values = check_pages(path, metadata)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DamagedError(f"{path}: cannot be read: {reason(error)}.") from error
    num_bytes = max(path.stat().st_size, num_bytes)
    if metadata.num_rows > max_posts or num_values > _MAX_TAGS or num_bytes > _MAX_FILE_BYTES:
        raise UserError(f"{path}: too large; it may have {max_posts} posts.")


def _check_footer(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8))
        if int.from_bytes(file.read(4), "little") > _MAX_FOOTER:
            raise ValueError("its footer is larger than that of any lock")


def check_text(path: Path) -> None:
    """Check that the texts in a shard's rows take no more memory than so many posts may need.

    A dictionary holds a text once, however many rows have it. So the texts are read as numbered
    words first, and counted; ``check_size`` has checked the size of the pages.

    Raises:
        DamagedError: where they take more, or cannot be read.
    """
    texts = [f.name for f in SAMPLES if f.type == pa.string() or pa.types.is_dictionary(f.type)]
    try:
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            found = file.read(columns=texts, use_threads=False).columns
            words = [column for column in found if pa.types.is_dictionary(column.type)]
            num_bytes = sum(chain.from_iterable(map(_count_bytes, words)))
            most = min(_MAX_TEXT_A_POST * (1 + file.metadata.num_rows), _MAX_CHUNK)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DamagedError(f"{path}: cannot be read: {reason(error)}.") from error
    if num_bytes > most:
        raise DamagedError(f"{path}: holds more text than so many posts have.")


def check_posts(path: Path, posts: pa.Table) -> None:
    """Check every column of a lock's posts.

    Raises:
        UserError: naming the first thing that the program would never have written.
    """
    for what, holds in _promises(posts):
        if not holds:
            raise UserError(f"{path}: {what}; `lock` writes no such file.")


def _promises(posts: pa.Table) -> Iterator[tuple[str, bool]]:
    """Yield each fault that posts may have, and whether they are free of it; see ``plan_check``."""
    yield "holds no posts", len(posts) > 0
    required = [field.name for field in LOCK if not field.nullable]
    words = pc.list_flatten(posts["tags"])
    gaps = sum(posts[name].null_count for name in required) + words.null_count
    yield "has gaps in its columns", gaps == 0
    texts = [words, *(posts[field.name] for field in LOCK if pa.types.is_dictionary(field.type))]
    sizes = list(chain.from_iterable(map(_count_bytes, texts)))
    is_small = sum(sizes) <= MAX_TEXT and max(sizes) <= _MAX_CHUNK
    yield "holds more text than so many posts have", is_small
    yield from promises_of_posts(posts)
    yield "numbers its shards too high", pc.max(posts["shard"]).as_py() <= 2 * len(posts)
    is_split = set(words_of(posts, "split")) <= set(SPLITS)
    yield f"split is not one of {', '.join(SPLITS)}", is_split
    yield "ext is no extension", all(map(_EXTENSION.fullmatch, words_of(posts, "ext")))
    yield "has a fate that no post ends with", _are_last_fates(posts)
    status = posts["status"].cast(pa.string())
    for column, having in (("sha256", OF_PREPARE), ("sample_sha256", (Status.KEPT,))):
        expected = pc.is_in(status, value_set=pa.array(having, pa.string()))
        yield f"{column} does not go with the fate", expected.equals(posts[column].is_valid())
    split = pc.index_in(posts["split"].cast(pa.string()), value_set=pa.array(SPLITS)).to_numpy()
    shard, ids = posts["shard"].to_numpy(), posts["post_id"].to_numpy()
    order = np.lexsort((ids, shard, split))
    yield "is not in the plan's order", np.array_equal(order, np.arange(len(posts)))
    yield "holds a post twice", len(np.unique(ids)) == len(ids)


def _count_bytes(texts: pa.ChunkedArray) -> Iterator[int]:
    """Yield how long each chunk's texts are together; a word counts each time that it occurs."""
    for chunk in pa.chunked_array(texts).chunks:
        lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
        yield len(chunk) + (pc.sum(lengths.cast(pa.int64())).as_py() or 0)


def _are_last_fates(posts: pa.Table) -> bool:
    try:
        fates = count_fates(posts)
    except ValueError:
        return False
    return not any(fate.partition("/")[0] in _NEVER_LAST for fate in fates)
