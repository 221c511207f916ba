"""Whether a tar holds exactly what its rows name, header by header, and nothing else.

The writer's tars are the same for the same members, so there is one right header for each. Tars
may come from strangers: nothing here follows a link, trusts a length, or reads an extension header.
"""

import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.records import Status, key_of
from pipeline.schema import FORMATS, RAW, extension_of, members_of, place_columns
from pipeline.shards.shard import header_of

_BLOCK = tarfile.BLOCKSIZE
_MAX_SIZE = 8**11 - 1  # that a plain header can say


def find_wrong_member(tar: Path, rows: pa.Table) -> str:
    """Return what is wrong with a shard's tar by its rows, "" where it is what they say.

    Args:
        tar: whose length the caller has compared with the rows' word.
        rows: of a shard of originals (``schema.RAW``) or of samples.
    """
    found = _expect(rows)
    if isinstance(found, str):
        return found
    names, sizes, offsets = found
    length = tar.stat().st_size
    if len(sizes) and not 0 <= sizes.min() <= sizes.max() <= min(length, _MAX_SIZE):
        return "its rows name an impossible size"
    padded = -(-sizes // _BLOCK) * _BLOCK + _BLOCK
    starts = np.concatenate([[0], np.cumsum(padded)])
    if (wrong := np.flatnonzero(offsets != starts[:-1] + _BLOCK)).size:
        return f"{names[wrong[0]]} is not where its rows say"
    end = int(starts[-1]) + 2 * _BLOCK
    if length != -(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE:
        return "holds more, or less, than its rows name"
    data = np.asarray(np.memmap(tar, np.uint8, "r"))  # slices of a memmap take far longer
    if data[starts[-1] :].any():
        return "goes on after its end"
    for name, size, start in zip(names, sizes.tolist(), starts[:-1].tolist(), strict=True):
        if data[start : start + _BLOCK].tobytes() != header_of(name, size):
            return f"holds another header than {name} has"
    return ""


def _expect(rows: pa.Table) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]] | str:
    """Return names, sizes and offsets of the members that rows name, in the tar's order."""
    is_raw = rows.schema.equals(RAW, check_metadata=False)
    wanted = Status.FETCHED if is_raw else Status.KEPT
    rows = rows.filter(pc.equal(rows["status"], wanted))
    members = ("",) if is_raw else members_of(rows.schema)
    places = [rows.select(place_columns(member)).columns for member in members]
    offsets, sizes = zip(*places, strict=True)
    if any(column.null_count for column in (*sizes, *offsets)):
        return "its rows do not say where a member lies"
    keys = [key_of(post_id) for post_id in rows["post_id"].to_pylist()]
    if keys != rows["key"].to_pylist():
        return "its rows give a post another key than its own"
    endings: list[list[str]] = [[extension_of(member)] * len(keys) for member in members]
    if is_raw:
        endings = [rows["format"].to_pylist()]
        if not set(endings[0]) <= set(FORMATS):
            return "its rows name a format that no picture has"
    names = [f"{key}.{ending}" for key, *its in zip(keys, *endings, strict=True) for ending in its]
    return names, _interleave(sizes), _interleave(offsets)


def _interleave(columns: Sequence[pa.ChunkedArray]) -> NDArray[np.int64]:
    return np.stack([column.to_numpy() for column in columns], axis=1).astype(np.int64).ravel()
