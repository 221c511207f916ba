"""Files as tests compare them, and damage them."""

import errno
import hashlib
import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import disk


def files_in(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, but for locks, by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
    }


def flip(path: Path, at: int | None = None) -> None:
    """Change a bit of a file, in the byte at a place, or in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def fail_to_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file's sum be asked of a disk that fails."""
    real = hashlib.file_digest

    def digest(file: Any, name: str) -> Any:
        if Path(file.name) == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", digest)


def fill_disk(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let each ``number``-th file that is to be written whole find the disk full."""
    real, count = disk.sync, itertools.count(1)

    def sync(path: Path) -> None:
        if next(count) % number == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path)

    monkeypatch.setattr(disk, "sync", sync)


def size_now(path: Path) -> int:
    """Return a file's size, 0 where it was renamed or removed since it was listed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 512)
