"""How far a push or pull has come, and what it came to."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from rich.console import Console

from pipeline.progress import show_progress
from pipeline.share.index import SharedFile, match_shard
from pipeline.stores.transfer import Tick

_MB = 10**6


@dataclass(frozen=True, slots=True)
class TransferSummary:
    """What a push or pull came to.

    Attributes:
        num_files: that the data set, or the part that was asked for, consists of.
        num_bytes: of them.
        num_moved: files that travelled; the others were there.
        num_moved_bytes: of them.
        has_samples: whether it is more than the recipe.
    """

    num_files: int
    num_bytes: int
    num_moved: int
    num_moved_bytes: int
    has_samples: bool

    @classmethod
    def of(cls, files: Collection[SharedFile], moved: Collection[SharedFile]) -> Self:
        """Return what it came to for some files, of which some travelled."""
        num_bytes, num_moved_bytes = (sum(f.size for f in some) for some in (files, moved))
        has_samples = any(match_shard(file.name) for file in files)
        return cls(len(files), num_bytes, len(moved), num_moved_bytes, has_samples)


@contextmanager
def count_megabytes(console: Console, label: str, num_bytes: int) -> Iterator[Tick]:
    """Show how many megabytes have travelled; yield a ``Tick`` that many threads may call."""
    lock = threading.Lock()
    done = 0
    with show_progress(console, f"{label}, MB", -(-num_bytes // _MB)) as show:

        def tick(more: int) -> None:
            nonlocal done
            with lock:
                done += more
                show(done // _MB)

        yield tick
