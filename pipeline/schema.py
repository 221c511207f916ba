"""The columns of every table on disk and their version: the only place where they are named.

Every table begins with the same seven columns, so that any of them answers "which posts, where,
and what became of them". Later stages keep the columns of the earlier ones and add their own.
"""

from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1
"""Part of every fingerprint: raise it when the meaning of a file on disk changes."""

SPLITS = ("train", "val", "test")

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
        pa.field("format", pa.string()),  # by its magic: jpeg, png, webp, avif, gif
        pa.field("http_status", pa.int32(), nullable=False),  # of the last answer, 0 for none
        pa.field("file_width", pa.int32()),  # of the file, by its header
        pa.field("file_height", pa.int32()),
        pa.field("content_width", pa.int32()),  # inside the letterbox, to about 1%
        pa.field("content_height", pa.int32()),
        pa.field("perceptual_hash", pa.uint64()),  # of the content's luminance
        pa.field("pixel_hash", pa.uint64()),  # equal for equal pixels
        pa.field("thumbnail", pa.binary(192)),  # the content at 8 x 8, RGB
    ]
)
"""``raw/X.parquet``: one row for each planned post of the shard."""

MEMBERS = ("color", "json", "sketch")
"""A sample's members in the order in which they lie in the tar."""

SAMPLES = pa.schema(
    [
        *COMMON,
        *_POST,
        pa.field("key", pa.string()),
        *[
            pa.field(f"{member}_{column}", pa.int64())
            for member in MEMBERS
            for column in ("offset", "size")
        ],
        pa.field("sha256", _SHA256),  # of the members' bytes, one after the other
        pa.field("source_sha256", _SHA256),  # of the original's bytes
        pa.field("file_width", pa.int32()),
        pa.field("file_height", pa.int32()),
        pa.field("letterbox", pa.string()),  # how record and pixels agree; see image.Letterbox
        *[
            pa.field(f"crop_{edge}", pa.int32())  # in the file's pixels; right, bottom exclusive
            for edge in ("left", "top", "right", "bottom")
        ],
        pa.field("perceptual_hash", pa.uint64()),
        pa.field("duplicate_of", pa.int64()),  # the earlier post that shows the same picture
    ]
)
"""``samples/X.parquet``: one row for each row of ``raw/X.parquet``."""

LEDGER = pa.schema(
    [
        pa.field("post_id", pa.int64(), nullable=False),
        pa.field("status", _WORD, nullable=False),
        pa.field("reason", _WORD, nullable=False),
        pa.field("http_status", pa.int32(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),  # over all runs
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("seconds", pa.float32(), nullable=False),  # of the last run that asked
        pa.field("asked_at", pa.timestamp("ms", tz="UTC"), nullable=False),
    ]
)
"""``ledger/X.parquet``: how each original came; apart from the rows, which are reproducible."""


def build_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table of ``schema``; a key that the schema does not name is a bug."""
    unknown = {key for row in rows for key in row} - set(schema.names)
    if unknown:
        raise ValueError(f"columns that the schema does not name: {sorted(unknown)}")
    return pa.Table.from_pylist(rows, schema=schema)
