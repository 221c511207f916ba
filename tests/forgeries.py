"""Tars, rows and sidecars of a shared data set as a stranger may have forged them."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.schema import SAMPLES
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import rows_path, tar_path
from pipeline.share.index import INDEX, LOCK, RECIPE, SharedFile, shard_files, write_index
from tests.shares import (
    SHARD,
    forge_rows,
    load_index,
)

# Whatever the index says fits the files, but for what is tried.


def swap_names(there: Path) -> None:
    a, b = (tar_path(there / "samples", f"train-00000{n}") for n in (0, 1))
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(data)


def pickle_member(data: bytearray) -> None:
    """Call a member ``.pkl``, with a checksum that fits: readers of WebDatasets would unpickle."""
    set_name(data, data[:100].rstrip(b"\0").replace(b".color.jpg", b".color.pkl"))


def set_name(data: bytearray, name: bytes | bytearray) -> None:
    data[:100] = name.ljust(100, b"\0")
    set_checksum(data)


def set_type(data: bytearray, kind: bytes, target: bytes = b"") -> None:
    data[156:157] = kind
    data[157:257] = target.ljust(100, b"\0")
    set_checksum(data)


def set_checksum(data: bytearray) -> None:
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])


def grow_header(data: bytearray) -> None:
    """Make the first header one of a comment of eight gigabytes."""
    data[124:136] = b"77777777777\0"
    set_type(data, b"x")


def set_owner(data: bytearray) -> None:
    data[108:115] = b"0001750"
    set_checksum(data)


def append_archive(data: bytearray) -> None:
    data += bytes(10240)
    data[-10240:-9728] = data[:512]


ANOTHER_HEADER = "its tar holds another header than"

TARS: dict[str, tuple[Callable[[bytearray], object], str]] = {
    "a path out of the folder": (
        lambda data: set_name(data, b"../000000001.color.jpg"),
        ANOTHER_HEADER,
    ),
    "an absolute path": (lambda data: set_name(data, b"/etc/passwd"), ANOTHER_HEADER),
    "a link": (lambda data: set_type(data, b"2", b"/etc/passwd"), ANOTHER_HEADER),
    "a hard link": (lambda data: set_type(data, b"1", b"/etc/passwd"), ANOTHER_HEADER),
    "a device": (lambda data: set_type(data, b"3"), ANOTHER_HEADER),
    "a pickle": (pickle_member, ANOTHER_HEADER),
    "a name that another member has": (
        lambda data: set_name(data, data[:100][:9] + b".json"),
        ANOTHER_HEADER,
    ),
    "a giant header": (grow_header, ANOTHER_HEADER),
    "an archive after the end": (append_archive, "its tar holds more, or less, than its rows name"),
    "another owner": (set_owner, ANOTHER_HEADER),
}


def add_a_column(there: Path) -> None:
    path = rows_path(there / "samples", SHARD)
    table = read_rows(path, SAMPLES)
    write_rows(path, [table.append_column("code", pa.array(["x"] * len(table)))], read_info(path))


def repeat_rows(there: Path, times: int) -> None:
    path = rows_path(there / "samples", SHARD)
    write_rows(path, [pa.concat_tables([read_rows(path, SAMPLES)] * times)], read_info(path))


def spoil_type(there: Path, value: pa.Array) -> None:
    """Let every post's tags be something else than text."""
    path = rows_path(there / "samples", SHARD)
    table = read_rows(path, SAMPLES)
    column = pa.concat_arrays([value] * len(table))
    table = table.set_column(SAMPLES.get_field_index("tags"), "tags", column)
    write_rows(path, [table], read_info(path))


def spoil_words(there: Path) -> None:
    """Let every post's tags be two bytes that no text has."""
    path = rows_path(there / "samples", SHARD)
    table = read_rows(path, SAMPLES)
    ends = pa.array(range(0, 2 * len(table) + 1, 2), pa.int32()).buffers()[1]
    words = pa.py_buffer(b"\xff" * 2 * len(table))
    column = pa.Array.from_buffers(pa.string(), len(table), [None, ends, words])
    at = SAMPLES.get_field_index("tags")
    write_rows(path, [table.set_column(at, SAMPLES.field(at), column)], read_info(path))


def rows(**columns: Callable[[list[Any]], list[Any]]) -> Callable[[Path], None]:
    """Return what changes columns of a shard's rows."""
    return lambda there: forge_rows(there / "samples", SHARD, **columns)


def not_locked(column: str) -> str:
    return f"{SHARD} is refused: the {column} of its posts is not that of the lock"


def forge_info(there: Path, **changes: object) -> None:
    path = rows_path(there / "samples", SHARD)
    info = read_info(path) | changes
    write_rows(path, [read_rows(path, SAMPLES)], {k: v for k, v in info.items() if v is not None})


def add_a_shard(there: Path) -> None:
    """Let the index name one more; ``forge_files`` gives its files' sizes and sums."""
    for old, new in zip(shard_files(SHARD), shard_files("train-000077"), strict=True):
        shutil.copy(there / old, there / new)
    index = load_index(there)
    more = (SharedFile(name, 1, "0" * 64) for name in shard_files("train-000077"))
    files = tuple(sorted([*index.files, *more]))
    (there / INDEX).write_bytes(write_index(replace(index, files=files).seal()))


ROWS: dict[str, tuple[Callable[[Path], object], str]] = {
    "huge sizes": (
        rows(color_size=lambda v: [s and 2**62 for s in v]),
        "its rows name an impossible size",
    ),
    "negative offsets": (
        rows(color_offset=lambda v: [o and -o for o in v]),
        "color.jpg is not where its rows say",
    ),
    "members that overlap": (
        rows(sketch_offset=lambda v: [o and o - 512 for o in v]),
        "sketch.png is not where its rows say",
    ),
    "no places": (
        rows(json_size=lambda v: [None] * len(v)),
        "its rows do not say where a member lies",
    ),
    "other keys": (
        rows(key=lambda v: [k and "../" + k for k in v]),
        "its rows give a post another key than its own",
    ),
    "other posts": (rows(post_id=lambda v: [i + 1000 for i in v]), not_locked("post_id")),
    "other fates": (rows(status=lambda v: ["blank"] * len(v)), not_locked("status")),
    "unknown fates": (rows(reason=lambda v: ["x"] * len(v)), not_locked("reason")),
    "other sums": (rows(sha256=lambda v: [s and "0" * 64 for s in v]), not_locked("sha256")),
    "other splits": (rows(split=lambda v: ["val"] * len(v)), not_locked("split")),
    "other families": (rows(family=lambda v: [f + 1 for f in v]), not_locked("family")),
    "characters in other splits": (
        rows(character=lambda v: ["x"] * len(v)),
        not_locked("character"),
    ),
    "a text that grows with every row": (
        rows(tags=lambda v: ["x" * 2**17] * len(v)),
        "holds more text than so many posts have",
    ),
    "a text that fills the footer": (
        lambda t: forge_info(t, more=[[]] * 1_500_000),
        "its footer is larger than that of any lock",
    ),
    "a fate that grows with every row": (
        rows(reason=lambda v: ["x" * 2**17] * len(v)),
        "holds more text than so many posts have",
    ),
    "texts that are no texts": (
        lambda t: spoil_type(t, pa.array([1])),
        "its columns are not those of this version's tables",
    ),
    "texts of numbers": (
        lambda t: spoil_type(t, pa.array([1]).dictionary_encode()),
        "its columns are not those of this version's tables",
    ),
    "posts without end": (
        lambda t: repeat_rows(t, 1000),
        "too large; it may have",
    ),
    "an unknown column": (add_a_column, "its columns are not those of this version's tables"),
    "words that are no text": (spoil_words, "Invalid UTF8"),
    "another shard's files": (swap_names, "its rows are of "),
    "no Parquet": (
        lambda t: rows_path(t / "samples", SHARD).write_bytes(b"PAR1" * 100),
        f"{SHARD}.parquet: cannot be read",
    ),
    "a giant footer": (
        lambda t: rows_path(t / "samples", SHARD).write_bytes(
            b"PAR1" + bytes(1000) + b"\xff\xff\xff\x7fPAR1"
        ),
        f"{SHARD}.parquet: cannot be read",
    ),
    "no sum of the tar": (lambda t: forge_info(t, tar_sha256=None), "rows are of another tar"),
    "another tar's sum": (lambda t: forge_info(t, tar_sha256="0" * 64), "rows are of another tar"),
    "no recipe": (lambda t: forge_info(t, recipe=5), "rows do not say how they were prepared"),
    "no recipe for samples": (
        lambda t: forge_info(t, recipe={}),
        "rows do not say how they were prepared",
    ),
    "another version's columns": (
        lambda t: forge_info(t, schema_version=99),
        "rows are of version 99, and this program reads version",
    ),
    "a shard that the lock does not plan": (
        add_a_shard,
        "its index names train-000077, and its lock does not",
    ),
    "a lock of nothing": (
        lambda t: (t / LOCK).write_bytes(b"PAR1" * 100),
        f"{LOCK}: cannot be read",
    ),
    "a recipe of something else": (
        lambda t: (t / RECIPE).write_text('name = "other"\n'),
        f"{RECIPE}: is not the recipe of its lock",
    ),
    "a recipe that names a host": (
        lambda t: (t / RECIPE).write_text(
            (t / RECIPE).read_text().replace('images = ""', 'images = "http://127.0.0.1/{id}"')
        ),
        f"{RECIPE}: is not the recipe of its lock",
    ),
}


ELSEWHERE = (
    "a lock",
    "a recipe",
    "a text that",
    "a fate that",
    "characters",
    "no recipe",
    "a shard that",
)
IN_SHARDS = [what for what in ROWS if not what.startswith(ELSEWHERE)]
