"""Metadata of any known shape, a file or a folder -> posts, one at a time.

Nothing has to be declared: compression, format and schema are told from the bytes. Memory stays
bounded whatever the size of the source.
"""

import gzip
import io
import lzma
import re
import sqlite3
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.metadata.json_lines import read_json
from pipeline.metadata.record import UNREADABLE, Counted, Item, Malformed
from pipeline.metadata.tables import read_parquet, read_sqlite
from pipeline.words import is_utf8

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_FILE_NAME = re.compile(
    r"[^.].*\.((json|jsonl|ndjson|parquet|db|sqlite3?|tar)(\.(gz|xz|zst))?|tgz|txz)|\d+",
    re.IGNORECASE,
)
_MAX_XZ_MEMORY = 512 * 2**20  # xz -9 needs 65 MiB
_MAX_TAR_HEADER = 2**20
_HEADER_TYPES = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
_DAMAGE = (
    *(EOFError, OSError, UnicodeDecodeError, zlib.error, lzma.LZMAError),
    *(tarfile.TarError, pa.ArrowException, sqlite3.Error),
)


def read_posts(source: str | Path, required_tags: Collection[str] = ()) -> Iterator[Item]:
    """Yield what the metadata holds, file after file by name.

    Understood are JSON lines and JSON lists of both Danbooru2021 schemas and of the site's API,
    plain, in gzip, xz or Zstandard, or in a tar of any of these, which is read as a stream;
    Parquet with the API's column names; and KBlueLeaf's SQLite (tables ``post``, ``tag`` and one
    that links them). A file is told by its content. In a folder (not in those below it) and in
    an archive only files with a usual name for metadata are read: ``*.json``, ``*.jsonl``,
    ``*.ndjson``, ``*.parquet``, ``*.db``, ``*.sqlite``, ``*.tar``, these with ``.gz``, ``.xz``
    or ``.zst``, and plain numbers, as in Danbooru2020's archive.

    Args:
        source: path of a file or folder.
        required_tags: a record without these need not be parsed. Only a saving: posts without
            them may still come, and records that are not parsed are not found malformed.

    Raises:
        UserError: where there is no metadata, or it cannot be read at all.
    """
    for path in list_files(Path(source)):
        try:
            yield from _read_file(path, required_tags)
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno:  # the disk's fault, not the data's
                raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
            yield Counted(1)
            yield Malformed(str(path), 0, f"{UNREADABLE}: {error}")


def list_files(source: Path) -> list[Path]:
    """Return the metadata files of a folder by name, or a file as it is.

    Raises:
        UserError: where there are none, or a name in the folder is no UTF-8: the plan holds them.
    """
    try:
        if source.is_file():
            return [source]
        paths = sorted(p for p in source.iterdir() if _FILE_NAME.fullmatch(p.name) and p.is_file())
    except OSError as error:
        raise UserError(
            f"{source}: cannot be read: {error.strerror}. Is the metadata's path right?"
        ) from error
    if not paths:
        raise UserError(f"{source}: no metadata in this folder, such as posts000000000000.json.")
    if odd := next((path for path in paths if not is_utf8(str(path))), None):
        raise UserError(f"{str(odd)!a}: is not UTF-8, as what is written here must be; rename it.")
    return paths


def _read_file(path: Path, required_tags: Collection[str]) -> Iterator[Item]:
    with path.open("rb") as file, _decompress(file) as stream:
        magic = stream.peek(512)
        if magic.startswith(b"PAR1"):
            yield from read_parquet(path, required_tags)
        elif magic.startswith(b"SQLite format 3\0"):
            yield from read_sqlite(path, required_tags)
        elif magic[257:262] == b"ustar":
            yield from _read_tar(stream, path, required_tags)
        else:
            yield from read_json(stream, str(path), required_tags)


def _decompress(file: io.BufferedReader) -> io.BufferedReader:
    """Return the file's plain bytes as a stream that holds no more than a buffer of them."""
    magic = file.peek(8)
    stream: object = file
    if magic.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=file)
    elif magic.startswith(b"\xfd7zXZ\0"):
        stream = io.BufferedReader(_XzReader(file))
    elif magic.startswith(b"\x28\xb5\x2f\xfd"):
        stream = io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file), "zstd"))
    return cast(io.BufferedReader, stream)  # each has peek, read1 and readinto1


class _XzReader(io.RawIOBase):
    """Reads xz with a cap on the decoder's memory, which a file's header may ask for at will."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(memlimit=_MAX_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        with memoryview(buffer) as view:
            data = self._decompress(view.nbytes)
            view[: len(data)] = data
        return len(data)

    def _decompress(self, max_length: int) -> bytes:
        while True:
            if self._decoder.eof:
                rest = (self._decoder.unused_data or self._file.read(2**16)).lstrip(b"\0")
                if not rest:
                    return b""
                self._decoder = lzma.LZMADecompressor(memlimit=_MAX_XZ_MEMORY)  # a further stream
            elif self._decoder.needs_input:
                rest = self._file.read(2**16)
                if not rest:
                    raise EOFError("the compressed file ends too early")
            else:
                rest = b""
            if data := self._decoder.decompress(rest, max_length):
                return data


class _Member(tarfile.TarInfo):
    """A member of an archive whose names and headers are of a sensible length.

    ``tarfile`` reads a long name whole, which may be gigabytes of one letter when it is packed.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        if member.type in _HEADER_TYPES and member.size > _MAX_TAR_HEADER:
            raise tarfile.ReadError(f"a member's name or header of {member.size} bytes")
        return member


def _read_tar(
    stream: io.BufferedReader, path: Path, required_tags: Collection[str]
) -> Iterator[Item]:
    num_files = 0
    for tar, member in _iterate_members(stream):
        if (
            member.isreg()
            and not member.issparse()
            and _FILE_NAME.fullmatch(PurePosixPath(member.name).name)
        ):
            num_files += 1
            file = cast(io.BufferedReader, tar.extractfile(member))
            inner = _decompress(file)
            yield from read_json(inner, f"{path}:{member.name}", required_tags)
    if not num_files:
        raise UserError(f"{path}: no metadata in this archive, such as posts000000000000.json.")


def _iterate_members(
    stream: io.BufferedReader,
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield an archive's members with it, none of which it keeps."""
    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member, errors="replace") as tar:
            for member in tar:
                yield tar, member
                cast(Any, tar).members.clear()
    except (ValueError, OverflowError, RecursionError) as error:  # of hostile headers
        raise tarfile.ReadError(str(error)) from error
