"""Sealed Parquet files, in which every flipped bit is found.

A sealed file carries, in its Parquet footer, the SHA-256 of all its other bytes. Any Parquet
reader reads it; ours can also tell whether it is exactly what was written.
"""

import hashlib
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.counts import Fates, count_fates
from pipeline.disk import check_place, reason, replacing, telling_unreadable
from pipeline.errors import DamagedError
from pipeline.schema import is_table_of
from pipeline.shards.pages import check_pages, read_varint

_INFO_KEY = b"nurie"
_SEAL_KEY = b"nurie_seal"
_SEAL_MARK = b"sha256:"
_SEAL_BLANK = _SEAL_MARK + b"0" * 64


_TAIL = 2**16  # bytes that hold the footer of any file but a plan


def write_rows(
    path: Path, groups: Iterable[pa.Table], info: dict[str, Any], **encoding: Any
) -> None:
    """Write a sealed Parquet file, a row group a table, with ``info`` in its metadata.

    Args:
        path: replaced as a whole, or left as it was.
        groups: at least one table, all of one schema; one is looked at at a time.
        info: plain values; they go into the footer as JSON.
        encoding: further options of ``pyarrow.parquet.ParquetWriter``.
    """
    with replacing(path) as temporary:
        write_sealed(temporary, groups, info, **encoding)


def write_sealed(
    path: Path, groups: Iterable[pa.Table], info: dict[str, Any], **encoding: Any
) -> None:
    """Write a sealed Parquet file at ``path`` itself, to be put in place by the caller."""
    groups = iter(groups)
    first = next(groups)
    with pq.ParquetWriter(path, first.schema, compression="zstd", **encoding) as writer:
        for group in chain([first], groups):
            writer.write_table(group.combine_chunks())  # bytes must not depend on the chunks
        writer.add_key_value_metadata(
            {
                _INFO_KEY: orjson.dumps(info, option=orjson.OPT_SORT_KEYS),
                _SEAL_KEY: _SEAL_BLANK,
            }
        )
    with path.open("r+b") as file:
        offset = _seal_offset(file)
        digest = _hash_around(file, offset)
        file.seek(offset)
        file.write(_SEAL_MARK + digest)


def check_seal(path: Path) -> None:
    """Check every byte of a sealed file against its seal, in bounded memory.

    Raises:
        DamagedError: on a file that is not whole, or not ours.
    """
    seal = read_seal(path)
    with telling_unreadable(path), path.open("rb") as file:
        digest = _hash_around(file, _seal_offset(file))
    if seal != digest.decode():
        raise DamagedError(f"{path}: damaged; its bytes do not match its seal.")


def read_seal(path: Path) -> str:
    """Return a sealed file's seal, unchecked: equal seals, equal files.

    Raises:
        DamagedError: where it carries none.
    """
    check_place(path)
    try:
        with path.open("rb") as file:
            offset = _seal_offset(file)
            file.seek(max(offset, 0))
            seal = file.read(len(_SEAL_BLANK)).removeprefix(_SEAL_MARK)
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read: {error.strerror}.") from error
    if offset < 0 or not seal.isascii():
        raise DamagedError(f"{path}: carries no seal: damaged, or not written by this program.")
    return seal.decode()


def _seal_offset(file: BinaryIO) -> int:
    """Return where the seal begins in a Parquet file's footer, or -1.

    The file ends with the footer, the footer's length in four bytes, and a magic word.
    """
    size = file.seek(0, os.SEEK_END)
    if size < 12:
        return -1
    file.seek(size - 8)
    length, magic = file.read(4), file.read(4)
    if magic != b"PAR1":  # else any four bytes would be a length
        return -1
    footer_size = min(int.from_bytes(length, "little"), size - 8)
    start = size - 8 - footer_size
    file.seek(start)
    footer = file.read(footer_size)
    key = footer.rfind(_SEAL_KEY)
    mark = footer.find(_SEAL_MARK, key) if key >= 0 else -1
    return start + mark if mark >= 0 and mark + len(_SEAL_BLANK) <= footer_size else -1


def _hash_around(file: BinaryIO, offset: int) -> bytes:
    """Return the SHA-256 (hex) of a file with a blank seal at ``offset``."""
    digest = hashlib.sha256()
    file.seek(0)
    left = offset
    while left and (block := file.read(min(left, 2**20))):
        digest.update(block)
        left -= len(block)
    digest.update(_SEAL_BLANK)
    file.seek(offset + len(_SEAL_BLANK))
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest().encode()


def read_info(path: Path) -> dict[str, Any]:
    """Return the ``info`` of a sealed file, from its footer alone.

    Raises:
        DamagedError: where it is not a sealed Parquet file, or cannot be read.
    """
    check_place(path)
    try:
        metadata = pq.read_metadata(path).metadata or {}
        return dict(orjson.loads(metadata[_INFO_KEY]))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        why = reason(error)
        if isinstance(error, OSError) and error.errno:  # Arrow's own, of damage, have none
            raise DamagedError(f"{path}: cannot be read: {why}.") from error
        raise DamagedError(f"{path}: damaged, or not written by this program ({why}).") from error


def read_tar_sum(path: Path) -> tuple[int, str]:
    """Return the size in bytes and the SHA-256 that a shard's rows say of its tar.

    Raises:
        DamagedError: where they say none, as those that a stranger sealed may.
    """
    match read_info(path):
        case {"tar_size": int(size), "tar_sha256": str(sha256)}:
            return size, sha256
    raise DamagedError(f"{path}: does not say what its tar is; not written by this program.")


def peek_info(path: Path) -> dict[str, Any]:
    """Return the ``info`` of a sealed file out of its last bytes, ten times as fast as Parquet.

    The footer is a Thrift struct: after a key of five bytes come a type, the value's length, and
    the value. Where it looks otherwise, the file is read as Parquet.

    Raises:
        DamagedError: as ``read_info`` does.
    """
    mark = b"\x18" + bytes([len(_INFO_KEY)]) + _INFO_KEY + b"\x18"
    check_place(path)
    try:
        with path.open("rb", 0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
        stop = len(tail) - 8 if tail.endswith(b"PAR1") else 0
        footer = tail[stop - int.from_bytes(tail[stop : stop + 4], "little") : stop]
        length, at = read_varint(footer, footer.rindex(mark) + len(mark))
        return dict(orjson.loads(footer[at : at + length]))
    except (OSError, ValueError, IndexError, TypeError):
        return read_info(path)


def read_rows(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Return a sealed file's table, or only some of its columns.

    Raises:
        DamagedError: where it does not read, or has other columns or types than ``schema``;
            samples may have further sketches.
    """
    check_place(path)
    try:
        with pq.ParquetFile(path) as file:
            if not is_table_of(file.schema_arrow, schema):
                raise DamagedError(f"{path}: its columns are not those of this version's tables.")
            check_pages(path, file.metadata)
            table = file.read(columns=columns, use_threads=False).replace_schema_metadata(None)
        table.validate(full=True)  # reading lets words pass that are not in UTF-8
    except (OSError, pa.ArrowException, ValueError) as error:  # a ValueError: names not in UTF-8
        raise DamagedError(f"{path}: cannot be read: {reason(error)}.") from error
    return table


def read_fates(path: Path, schema: pa.Schema) -> Fates:
    """Return how many rows of a sealed file have each fate.

    Raises:
        DamagedError: as ``read_rows`` does, and on a fate that there is not.
    """
    table = read_rows(path, schema, ["status", "reason"])
    try:
        return count_fates(table)
    except ValueError as error:
        raise DamagedError(f"{path}: {error}.") from error
