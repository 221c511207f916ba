"""The shard protocol: ``X.tar`` beside ``X.parquet``, deterministic, committed rows last.

The rows are the commit record and the index. A tar without rows does not exist; rows give the
offset and size of each member, so the same file that proves the shard gives random access to it.
The tar is a plain WebDataset that any tool streams.
"""

import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa

from pipeline.counts import count_fates
from pipeline.disk import (
    claim,
    commit,
    hash_file,
    name_of_temporary,
    sweep_temporaries,
    sync,
    temporary_path,
)
from pipeline.errors import DamagedError, UserError
from pipeline.schema import SCHEMA_VERSION, SPLITS, Row, place_columns
from pipeline.shards.rows import check_seal, read_info, read_rows, write_sealed
from pipeline.words import did_you_mean

_EMPTY_HEADER = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_BASE_SUM = 8 * ord(" ") + sum(
    byte for i, byte in enumerate(_EMPTY_HEADER) if not (124 <= i < 136 or 148 <= i < 156)
)  # of all bytes but name and size, and with blanks in the place of the sum itself
_NAME = re.compile(rf"({'|'.join(SPLITS)})-(\d{{6,}})")


def shard_name(split: str, index: int) -> str:
    """Return ``train-000000`` for split ``train`` and index 0."""
    return f"{split}-{index:06d}"


def parse_shard_name(name: str) -> tuple[str, int]:
    """Return split and index of a shard's name.

    Raises:
        UserError: on a name that no shard has.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(f"{name!r} is not a shard's name; they look like train-000000.")
    return match[1], int(match[2])


def check_split(split: str, named: str) -> None:
    """Check that there is such a split.

    Args:
        split: its name.
        named: how it was asked for, for the error: ``--split tset``.

    Raises:
        UserError: where there is none.
    """
    if split not in SPLITS:
        hint = did_you_mean(split, SPLITS)
        raise UserError(f"{named}{hint}: no such split; there are {', '.join(SPLITS)}.")


def list_shards(directory: Path, split: str | None = None) -> list[str]:
    """Return the names of the committed shards in ``directory``, sorted."""
    names = (_NAME.fullmatch(path.stem) for path in directory.glob("*.parquet"))
    return sorted(name[0] for name in names if name and split in (None, name[1]))


def tar_path(directory: Path, name: str) -> Path:
    """Return where a shard's tar lies."""
    return directory / f"{name}.tar"


def rows_path(directory: Path, name: str) -> Path:
    """Return where a shard's rows lie."""
    return directory / f"{name}.parquet"


@dataclass(frozen=True, slots=True)
class Span:
    """Where a member's bytes lie in its tar."""

    offset: int
    size: int


def span_of(row: Row, member: str = "") -> Span:
    """Return where a member's bytes lie by its row; "" is an original."""
    offset, size = place_columns(member)
    return Span(row[offset], row[size])


class ShardWriter:
    """Writes one shard: members in, ``commit`` last; leaving without a commit leaves nothing.

    The tar is the same for the same members: no times, no owners, plain ustar headers.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._temporary = temporary_path(tar_path(directory, name))
        self._sealed = temporary_path(rows_path(directory, name))
        self._is_whole = False
        self._file: BinaryIO
        self._offset = 0
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._file = claim(self._temporary)
        self._file.truncate()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if not self._is_whole:
                self._sealed.unlink(missing_ok=True)
                self._temporary.unlink(missing_ok=True)
        finally:
            self._file.close()  # last, for from then on another process may write the shard

    def add(self, member: str, data: bytes) -> Span:
        """Append a member and return where its bytes lie."""
        span = Span(self._offset + tarfile.BLOCKSIZE, len(data))
        padding = b"\0" * (-len(data) % tarfile.BLOCKSIZE)
        self._write(b"".join((header_of(member, len(data)), data, padding)))
        return span

    def commit(self, rows: pa.Table, info: dict[str, Any]) -> None:
        """Finish the tar and put it in place, then its rows with ``info`` about them.

        ``info`` needs ``fingerprint``; how many rows have which fate, and size and SHA-256 of the
        tar are added here. Once both files are whole there is no way back: where this is cut
        short, ``recover`` finishes it.
        """
        self._write(b"\0" * (2 * tarfile.BLOCKSIZE))
        self._write(b"\0" * (-self._offset % tarfile.RECORDSIZE))
        self._file.flush()  # closing it would let another process in
        sync(self._temporary)
        whole = {
            "schema_version": SCHEMA_VERSION,
            "shard": self._name,
            "fates": dict(count_fates(rows)),
            "tar_size": self._offset,
            "tar_sha256": self._digest.hexdigest(),
        }
        write_sealed(self._sealed, [rows], {**info, **whole})
        sync(self._sealed)
        self._is_whole = True
        _put_in_place(self._directory, self._name, self._temporary)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._offset += len(data)


def header_of(member: str, size: int) -> bytes:
    """Return a member's header as ``tarfile`` writes it, in a fraction of its time."""
    name = member.encode()
    if len(name) > 99 or size >= 8**11:  # tarfile knows how these are written, if they can be
        header = tarfile.TarInfo(member)
        header.size = size
        return header.tobuf(tarfile.USTAR_FORMAT)
    octal = b"%011o\0" % size
    checksum = b"%06o\0 " % (_BASE_SUM + sum(name) + sum(octal))
    parts = name.ljust(100, b"\0"), _EMPTY_HEADER[100:124], octal, _EMPTY_HEADER[136:148], checksum
    return b"".join((*parts, _EMPTY_HEADER[156:]))


def _put_in_place(directory: Path, name: str, tar: Path) -> None:
    rows = rows_path(directory, name)
    rows.unlink(missing_ok=True)  # they prove the old tar
    sync(directory)
    commit(tar, tar_path(directory, name))
    commit(temporary_path(rows), rows)


def adopt_shard(directory: Path, name: str, tar: Path, rows: Path) -> None:
    """Put a whole shard in place, tar first, rows last, from elsewhere on the same disk.

    The tar may be in its place already.
    """
    directory.mkdir(parents=True, exist_ok=True)
    sync(tar)  # now, for an older shard's rows go before `commit` would do it
    if tar != tar_path(directory, name):
        tar = tar.replace(temporary_path(tar_path(directory, name)))
    sync(rows)
    rows.replace(temporary_path(rows_path(directory, name)))
    _put_in_place(directory, name, tar)


def recover(directory: Path, names: Collection[str] | None = None) -> None:
    """Finish the commits that were cut short in ``directory``; remove what else is half-written.

    Args:
        directory: need not exist.
        names: of the shards that are meant; None for all.
    """
    for path in directory.glob(".*.tar.tmp"):
        if names is None or name_of_temporary(path) in names:
            claim(path).close()
    for sealed in directory.glob(".*.parquet.tmp"):
        name = name_of_temporary(sealed)
        if names is not None and name not in names:
            continue
        tar = tar_path(directory, name)
        with suppress(DamagedError):  # the rows were not whole yet
            check_seal(sealed)
            digest = read_info(sealed)["tar_sha256"]
            for path in (temporary_path(tar), tar):
                if path.is_file() and hash_file(path) == digest:
                    _put_in_place(directory, name, path)
                    break
    sweep_temporaries(directory, names)


def remove_shard(directory: Path, name: str) -> None:
    """Remove a shard, the rows first: at no moment do they name a tar that is gone."""
    rows_path(directory, name).unlink(missing_ok=True)
    sync(directory)
    tar_path(directory, name).unlink(missing_ok=True)


def remove_shards(directory: Path) -> None:
    """Remove a folder of shards, the rows first: at no moment do any name a tar that is gone."""
    for name in list_shards(directory):
        rows_path(directory, name).unlink()
    shutil.rmtree(directory)


def is_current(directory: Path, name: str, fingerprint: str) -> bool:
    """Whether a shard is done: its fingerprint matches and its tar is as long as its rows say."""
    try:
        info = read_info(rows_path(directory, name))
        size = tar_path(directory, name).stat().st_size
    except (DamagedError, OSError):
        return False
    return info.get("fingerprint") == fingerprint and info.get("tar_size") == size


def read_shard(directory: Path, name: str, schema: pa.Schema) -> tuple[pa.Table, dict[str, Any]]:
    """Return a committed shard's rows and the info about them.

    Raises:
        DamagedError: where rows or tar are missing, damaged, do not belong together, or were
            written by a version of this program to which their columns mean something else.
    """
    path = rows_path(directory, name)
    info = read_info(path)
    if info.get("schema_version") != SCHEMA_VERSION:
        raise DamagedError(
            f"{path}: its tables are of version {info.get('schema_version')}, and this program "
            f"reads version {SCHEMA_VERSION}. Make the shard anew, or take the other version."
        )
    check_tar(directory, name, info)
    return read_rows(path, schema), info


def check_tar(directory: Path, name: str, info: dict[str, Any]) -> None:
    """Check that a shard's tar is there and as long as its rows say in their ``info``.

    Raises:
        DamagedError: where it is not.
    """
    tar = tar_path(directory, name)
    if not tar.is_file() or tar.stat().st_size != info.get("tar_size"):
        raise DamagedError(f"{tar}: missing, or not as long as its rows say.")


def read_span(file: BinaryIO, span: Span) -> bytes:
    """Return a member's bytes from an open tar.

    Raises:
        DamagedError: where the span is not inside the file.
    """
    if not 0 <= span.size <= os.fstat(file.fileno()).st_size or span.offset < 0:
        raise DamagedError(f"{file.name}: its rows name an impossible place in it.")
    file.seek(span.offset)
    data = file.read(span.size)
    if len(data) != span.size:
        raise DamagedError(f"{file.name}: ends before one of its members.")
    return data
