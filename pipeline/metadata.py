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
from typing import cast

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.posts import Counted, Item, Malformed
from pipeline.posts_json import read_json
from pipeline.posts_tables import read_parquet, read_sqlite

_FILE_NAME = re.compile(
    r"[^.].*\.((json|jsonl|ndjson|parquet|db|sqlite3?|tar)(\.(gz|xz|zst))?|tgz|txz)|\d+",
    re.IGNORECASE,
)
_DAMAGE = (
    *(EOFError, OSError, zlib.error, lzma.LZMAError),
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
            yield Malformed(str(path), 0, f"unreadable from here on: {error}")


def list_files(source: Path) -> list[Path]:
    """Return the metadata files of a folder by name, or a file as it is.

    Raises:
        UserError: where there are none.
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
        stream = lzma.LZMAFile(file)  # noqa: SIM115 (the caller closes it)
    elif magic.startswith(b"\x28\xb5\x2f\xfd"):
        stream = io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file), "zstd"))
    return cast(io.BufferedReader, stream)  # each has peek, read1 and readinto1


def _read_tar(
    stream: io.BufferedReader, path: Path, required_tags: Collection[str]
) -> Iterator[Item]:
    num_files = 0
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            if member.isfile() and _FILE_NAME.fullmatch(PurePosixPath(member.name).name):
                num_files += 1
                file = cast(io.BufferedReader, tar.extractfile(member))
                inner = _decompress(file)
                yield from read_json(inner, f"{path}:{member.name}", required_tags)
    if not num_files:
        raise UserError(f"{path}: no metadata in this archive, such as posts000000000000.json.")
