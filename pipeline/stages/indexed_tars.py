"""Pictures in tars with an index beside each, as in danbooru2024: one is read by its bytes' range.

``images/0123.tar`` has ``images/0123.json``: ``{"files": {NAME: {"offset", "size", "sha256"}}}``.
An index is a promise by somebody else: what it points to must be a member of that name and size
by the tar's own header, and must have the hash, or it is not taken.
"""

import contextlib
import hashlib
import tarfile
import tempfile
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec

from pipeline.records import Download, Fate, Status

_MAX_INDEX_BYTES = 16 * 2**20  # enough for 100,000 pictures

_HEADER = tarfile.BLOCKSIZE  # bytes: a member's own header, just before its data
_MAX_PARSED = 32 * 2**20  # bytes of indexes in memory, where they take about three times as much
_WRONG_INDEX = Fate(Status.FAILED, "wrong_index")


class _Entry(msgspec.Struct, frozen=True):
    offset: Annotated[int, msgspec.Meta(ge=_HEADER, lt=2**62)]  # no file system has longer files
    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: str = ""


class _Index(msgspec.Struct, frozen=True):
    files: dict[str, _Entry]


def index_of(tar: str) -> str:
    """Return where a tar's index lies: ``X.json`` beside ``X.tar``."""
    return f"{tar.removesuffix('.tar')}.json"


Read = Callable[[str, range | None, int], Download]
"""Reads a file, by its place, or a range of its bytes, up to a limit."""


class TarReader:
    """Reads members of indexed tars, from many threads.

    Indexes are kept in ``cache_dir``, where all workers find them: the posts of one shard are
    spread over all tars, and a server must not be asked for an index for every picture.

    Args:
        read: reads a place, all of it or a range of its bytes.
        cache_dir: a folder for indexes; None reads each where it lies.
        max_bytes: largest member that is taken.
    """

    def __init__(self, read: Read, cache_dir: Path | None, max_bytes: int) -> None:
        self._read = read
        self._cache_dir = cache_dir
        self._max_bytes = max_bytes
        self._parsed: OrderedDict[str, tuple[_Index, int]] = OrderedDict()
        self._parsed_lock = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def get(self, tar: str, member: str) -> Download:
        """Read one member.

        An index that is no index, or does not fit its tar, is ``failed/wrong_index``; the next
        run reads it anew. A member that the index does not have is ``missing/no_file``.
        """
        with self._locks[tar]:
            index = self._load(tar)
        if isinstance(index, Download):
            return index
        entry = index.files.get(member)
        if entry is None:
            return Download(Fate(Status.MISSING, "no_file"), num_attempts=1)
        if not entry.size:
            return Download(Fate(Status.REJECTED, "empty"), num_attempts=1)
        if entry.size > self._max_bytes:
            return Download(Fate(Status.REJECTED, "too_many_bytes"), num_attempts=1)
        span = range(entry.offset - _HEADER, entry.offset + entry.size)
        download = self._read(tar, span, len(span))
        beyond_the_end = download.http_status == 416
        if download.fate.status is not Status.FETCHED and not beyond_the_end:
            return download
        header, content = download.content[:_HEADER], download.content[_HEADER:]
        if beyond_the_end or not _fits(entry, member, header, content):
            self._forget(tar)
            return replace(download, fate=_WRONG_INDEX, content=b"")
        return replace(download, content=content)

    def _load(self, tar: str) -> _Index | Download:
        """Return a tar's index, or what came instead."""
        with self._parsed_lock:
            parsed = self._parsed.get(tar)
            if parsed is not None:
                self._parsed.move_to_end(tar)
                return parsed[0]
        content = self._read_cached(tar)
        if content is None:
            download = self._read(index_of(tar), None, _MAX_INDEX_BYTES)
            if download.fate.status is not Status.FETCHED:
                return download
            content = download.content
            self._write_cached(tar, content)
        try:
            index = msgspec.json.decode(content, type=_Index)
        except (ValueError, RecursionError):
            self._forget(tar)
            return Download(_WRONG_INDEX, num_attempts=1)
        with self._parsed_lock:
            self._parsed[tar] = index, len(content)
            while len(self._parsed) > 1 and sum(n for _, n in self._parsed.values()) > _MAX_PARSED:
                self._parsed.popitem(last=False)
        return index

    def _cached(self, tar: str) -> Path | None:
        if self._cache_dir is None:
            return None
        return self._cache_dir / f"{hashlib.sha256(tar.encode()).hexdigest()[:32]}.json"

    def _read_cached(self, tar: str) -> bytes | None:
        path = self._cached(tar)
        with contextlib.suppress(FileNotFoundError):
            return path.read_bytes() if path is not None else None
        return None

    def _write_cached(self, tar: str, content: bytes) -> None:
        path = self._cached(tar)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(content)
            Path(file.name).replace(path)  # at once: other workers may be writing the same

    def _forget(self, tar: str) -> None:
        with self._parsed_lock:
            self._parsed.pop(tar, None)
        path = self._cached(tar)
        if path is not None:
            path.unlink(missing_ok=True)


def _fits(entry: _Entry, member: str, header: bytes, content: bytes) -> bool:
    """Whether bytes are the member that the index speaks of, by the tar's header and the hash."""
    try:
        found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    name = found.name.removeprefix("./")
    expected = member.removeprefix("./")
    is_named = name == expected or (len(name) >= 98 and expected.startswith(name))
    if not (found.isreg() and found.size == entry.size and is_named):
        return False
    return not entry.sha256 or hashlib.sha256(content).hexdigest() == entry.sha256.lower()
