"""The columns of every table on disk and their version: the only place where they are named.

Plan, originals, samples and lock begin with the same seven columns, so that any of them answers
"which posts, where, and what became of them". Later stages keep the columns of the earlier ones and
add their own.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SCHEMA_VERSION = 1
"""Part of every fingerprint: raise it when the meaning of a file on disk changes."""

SPLITS = ("train", "val", "test")

Row = dict[str, Any]
"""A row of a table, by column."""

MAX_SIDE = 4096
"""Largest side of a sample's pictures in pixels."""

_WORD = pa.dictionary(pa.int8(), pa.string())
_SHA256 = pa.string()

COMMON: list[pa.Field] = [
    pa.field("post_id", pa.int64(), nullable=False),
    pa.field("split", _WORD, nullable=False),
    pa.field("status", _WORD, nullable=False),
    pa.field("reason", _WORD, nullable=False),
    pa.field("md5", pa.string(), nullable=False),  # of the original by its record
    pa.field("character", pa.string(), nullable=False),  # character tags, space-separated
    pa.field("family", pa.int64(), nullable=False),  # lowest known ancestor's post id
]

_POST: list[pa.Field] = [
    pa.field("rating", _WORD, nullable=False),
    pa.field("ext", _WORD, nullable=False),
    pa.field("width", pa.int32(), nullable=False),  # of the original by its record
    pa.field("height", pa.int32(), nullable=False),
    pa.field("parent_id", pa.int64(), nullable=False),
    pa.field("tags", pa.string(), nullable=False),  # sorted, space-separated
]

FORMATS = ("jpeg", "png", "webp", "avif", "gif")
"""What an original may be by its magic bytes."""

SELECTION = pa.schema(
    [
        *COMMON,
        *_POST,
        pa.field("file_url", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),  # within the split
    ]
)
"""``selection.parquet``: every wanted post, with its split and shard."""

RAW = pa.schema(
    [
        *COMMON,
        *_POST,
        pa.field("key", pa.string()),
        pa.field("offset", pa.int64()),  # of the original's bytes in the tar
        pa.field("size", pa.int64()),
        pa.field("sha256", _SHA256),  # of the original's bytes
        pa.field("format", pa.string()),  # out of FORMATS
        pa.field("http_status", pa.int32(), nullable=False),  # of the last answer, 0 for none
        pa.field("file_width", pa.int32()),  # of the file, by its header
        pa.field("file_height", pa.int32()),
        pa.field("content_width", pa.int32()),  # inside the letterbox
        pa.field("content_height", pa.int32()),
        pa.field("perceptual_hash", pa.uint64()),  # of the content's luminance
        pa.field("pixel_hash", pa.uint64()),  # equal for equal pixels
        pa.field("thumbnail", pa.binary(192)),  # the content at 8 x 8, RGB
    ]
)
"""``raw/X.parquet``: one row for each planned post of the shard."""

SKETCH = "sketch"
"""The member that every sample has; further sketches are called ``sketch_NAME``."""

MEMBERS = ("color", "json", SKETCH)
"""The members of every sample, in the order in which they lie in the tar; others come after."""

_SKETCH_NAME = re.compile("[a-z0-9_]{1,32}")


def is_sketch_name(name: str) -> bool:
    """Whether a further sketch may have this name."""
    return _SKETCH_NAME.fullmatch(name) is not None


def extension_of(member: str) -> str:
    """Return what a member is called after the key and a dot: WebDataset's extension."""
    return {"color": "color.jpg", "json": "json"}.get(member, f"{member}.png")


def place_columns(member: str) -> tuple[str, str]:
    """Return the columns with a member's offset and size in its tar; "" is an original."""
    prefix = f"{member}_" if member else ""
    return f"{prefix}offset", f"{prefix}size"


def _places(member: str) -> list[pa.Field]:
    return [pa.field(column, pa.int64()) for column in place_columns(member)]


EDGES = ("left", "top", "right", "bottom")
"""Of the box that a crop keeps."""

SAMPLES = pa.schema(
    [
        *COMMON,
        *_POST,
        pa.field("key", pa.string()),
        *[place for member in MEMBERS for place in _places(member)],
        pa.field("sha256", _SHA256),  # of the members' bytes, one after the other
        pa.field("source_sha256", _SHA256),  # of the original's bytes
        pa.field("file_width", pa.int32()),
        pa.field("file_height", pa.int32()),
        pa.field("letterbox", pa.string()),  # how record and pixels agree; see letterbox.Letterbox
        *[
            pa.field(f"crop_{edge}", pa.int32())  # of the upright picture; right, bottom exclusive
            for edge in EDGES
        ],
        pa.field("perceptual_hash", pa.uint64()),
        pa.field("duplicate_of", pa.int64()),  # the earlier post that shows the same picture
    ]
)
"""``samples/X.parquet``: one row for each row of ``raw/X.parquet``.

Places of further sketches follow after these columns; see ``samples_schema``.
"""


def samples_schema(members: Iterable[str]) -> pa.Schema:
    """Return ``SAMPLES`` with the places of all ``members``, those of ``MEMBERS`` among them."""
    further = [member for member in members if member not in MEMBERS]
    return pa.schema([*SAMPLES, *[place for member in further for place in _places(member)]])


def members_of(schema: pa.Schema) -> tuple[str, ...]:
    """Return the members whose places a table of samples names, in the tar's order.

    Raises:
        ValueError: where it is no table of samples.
    """
    names = schema.names[len(SAMPLES) :: 2]
    further = [name.removesuffix("_offset") for name in names]
    named = [name.removeprefix(f"{SKETCH}_") for name in further]
    members = (*MEMBERS, *(f"{SKETCH}_{name}" for name in named))
    if (
        not all(map(is_sketch_name, named))
        or named != sorted(set(named))
        or not schema.equals(samples_schema(members), check_metadata=False)
    ):
        raise ValueError("these are not the columns of samples")
    return members


def is_table_of(found: pa.Schema, schema: pa.Schema) -> bool:
    """Whether a table with the columns ``found`` is one of ``schema``, further sketches allowed."""
    if found.equals(schema, check_metadata=False):
        return True
    try:
        return schema is SAMPLES and len(members_of(found)) > len(MEMBERS)
    except ValueError:
        return False


_TEXT = pa.dictionary(pa.int32(), pa.string())

_PACKED = {
    "md5": pa.field("md5", pa.binary(16)),
    "character": pa.field("character", _TEXT, nullable=False),
    "tags": pa.field("tags", pa.list_(pa.field("element", _TEXT)), nullable=False),
    "file_url": pa.field("file_url", _TEXT, nullable=False),  # {md5} is the post's, {md5:} is {md5}
}

LOCK = pa.schema(
    [
        *(_PACKED.get(field.name, field) for field in SELECTION),
        pa.field("sha256", pa.binary(32)),  # of the original's bytes
        pa.field("sample_sha256", pa.binary(32)),  # of the sample's members
    ]
)
"""``posts.parquet``: every planned post with its last fate and sums; small enough to be tracked.

Sums are bytes and words are numbered: hashes do not compress, and are half of it.
"""

LEDGER = pa.schema(
    [
        pa.field("post_id", pa.int64(), nullable=False),
        pa.field("status", _WORD, nullable=False),
        pa.field("reason", _WORD, nullable=False),
        pa.field("http_status", pa.int32(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),  # over all runs; 0 where that is lost
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("seconds", pa.float32(), nullable=False),  # of the last run that asked
        pa.field("asked_at", pa.timestamp("ms", tz="UTC")),
    ]
)
"""``ledger/X.parquet``: how each planned post came; apart from the rows, which are reproducible."""


DUPLICATES = pa.schema(
    [
        pa.field("post_id", pa.int64()),
        pa.field("duplicate_of", pa.int64()),
        pa.field("reason", pa.string()),
    ]
)
"""``duplicates.parquet``: the posts whose pictures repeat earlier ones, and those."""


def build_table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    """Return rows as a table of ``schema``; a key that the schema does not name is a bug."""
    unknown = {key for row in rows for key in row} - set(schema.names)
    if unknown:
        raise ValueError(f"columns that the schema does not name: {sorted(unknown)}")
    return pa.Table.from_pylist(rows, schema=schema)


def among(table: pa.Table, post_ids: Collection[int]) -> pa.ChunkedArray:
    """Return a mask: which rows of a table are of some posts."""
    return pc.is_in(table["post_id"], value_set=pa.array(list(post_ids), pa.int64()))


def take_posts(table: pa.Table, post_ids: NDArray[np.int64]) -> pa.Table:
    """Return the rows of some posts of a table that is sorted by post, without going through it."""
    known = table["post_id"].to_numpy()
    first, last = (np.searchsorted(known, post_ids, side) for side in ("left", "right"))
    return table.take(pa.array(first[first < last]))


def as_texts(table: pa.Table) -> pa.Table:
    """Return a table with its words as texts: each of its chunks may number them otherwise."""
    fields = [
        f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema
    ]
    return table.cast(pa.schema(fields))
