"""Tars held open for many threads that read members by their places, not too many at a time."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from pipeline.shards.shard import Span

MAX_OPEN = 256
"""Systems allow a process 1,024 open files or more, and it needs others."""


class OpenTar:
    """An open tar; it is closed when the last of those who have it lets go of it."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_file"):  # it was opened
            os.close(self._file)

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """Return the bytes of members, fewer where the tar ends before."""
        return [os.pread(self._file, span.size, span.offset) for span in spans]


class TarPool:
    """Open tars by path; the one opened first makes way where there are too many."""

    def __init__(self, max_open: int = MAX_OPEN) -> None:
        self._max_open = max_open
        self._lock = threading.Lock()
        self._tars: dict[str, OpenTar] = {}

    def open(self, path: str) -> OpenTar:
        """Return an open tar.

        Raises:
            OSError: where it cannot be opened.
        """
        found = self._tars.get(path)
        if found is not None:
            return found
        with self._lock:
            if path not in self._tars:
                if len(self._tars) >= self._max_open:
                    del self._tars[next(iter(self._tars))]
                self._tars[path] = OpenTar(path)
            return self._tars[path]

    def drop(self, path: str) -> None:
        """Forget an open tar: its file was replaced, or removed."""
        with self._lock:
            self._tars.pop(path, None)

    def close(self) -> None:
        """Let go of all."""
        with self._lock:
            self._tars.clear()
