"""What a reader of metadata gave: posts, complaints, and counts that add up."""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa

from pipeline.metadata.files import read_posts
from pipeline.metadata.record import Counted, Item, Malformed, Unparsed
from pipeline.records import Post


def read(source: Path, tags: Collection[str] = ()) -> list[Item]:
    items = list(read_posts(source, tags))
    assert_conserved(items)
    return items


def assert_conserved(items: list[Item]) -> None:
    assert sum(item.num_records for item in items if isinstance(item, Counted)) == sum(
        item.num_records if isinstance(item, Unparsed) else 1
        for item in items
        if not isinstance(item, Counted)
    )


def posts_in(items: list[Item]) -> list[Post]:
    return [item for item in items if isinstance(item, Post)]


def num_unparsed(items: list[Item]) -> int:
    return sum(item.num_records for item in items if isinstance(item, Unparsed))


def malformed_in(items: list[Item]) -> list[Malformed]:
    return [item for item in items if isinstance(item, Malformed)]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())
