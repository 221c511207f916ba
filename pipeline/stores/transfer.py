"""What all stores of shared data sets have in common: what they can do, and moving bytes.

Stores speak of files by their names within the data set, which come from a closed vocabulary. What
arrives is checked by whoever asks for it; what leaves is checked by the store, against the sum that
the index will promise.
"""

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline.disk import hash_file
from pipeline.errors import UserError
from pipeline.stores.files import first_line

_BLOCK = 8 * 2**20  # bytes that are copied from a disk at a time
_CANNOT_COPY = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

SPAN = 16 * 2**20
"""Bytes that a remote store is asked for at a time; for each connection as many are held."""

Tick = Callable[[int], None]
"""Is told how many bytes more have travelled."""

Outgoing = tuple[Path, str]
"""A file that leaves, with the SHA-256 that it must have."""


class Store(Protocol):
    """A place that a data set can be pulled from.

    Attributes:
        url: as the user gave it.
        num_connections: files that are worth asking for at a time.
    """

    url: str
    num_connections: int

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return a small file, or None where there is none.

        Raises:
            UserError: where it is larger, or the store cannot be read.
        """

    def download(self, name: str, out: BinaryIO, size: int, tick: Tick) -> None:
        """Append a file's bytes to those of it that are there; ``tick(n)`` after every n.

        Args:
            name: of the file.
            out: an unbuffered file, at its end.
            size: that the file ought to have. Of a longer one more bytes may come, by one at least;
                of a shorter one fewer.
            tick: is told of what has come.

        Raises:
            AbsentError: where the file is not there.
            UserError: where the store cannot be read.
        """

    def read_range(self, name: str, span: range) -> bytes:
        """Return some bytes of a file; fewer where it ends before.

        Raises:
            WholeFilesOnlyError: where the store gives whole files only.
            UserError: where the file is not there, or the store cannot be read.
        """

    def close(self) -> None:
        """Break off what is under way, and let go of connections."""


class WritableStore(Store, Protocol):
    """A place that a data set can be pushed to, as well."""

    def sizes(self) -> dict[str, int]:
        """Return the size of every file that is there, by name.

        Those in folders that neither ``push`` nor ``--store`` makes may be missing.

        Raises:
            UserError: where the store cannot be read.
        """

    def put(self, files: Mapping[str, Outgoing], tick: Tick) -> None:
        """Put files there, each whole or not at all; ``tick(n)`` after every n bytes.

        Raises:
            UserError: where one is not what it ought to be, or the store does not take it.
        """

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, and halves of them; those that are not there do not matter."""


def no_tick(num_bytes: int) -> None:
    """Be the ``Tick`` of what is too small to be shown."""


def in_threads(do: Callable[[str], object], names: Iterable[str], num_threads: int) -> None:
    """Call ``do`` for every name; after the first error nothing more is begun."""
    pool = ThreadPoolExecutor(num_threads)
    try:
        for future in [pool.submit(do, name) for name in names]:
            future.result()
    except Exception:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    finally:  # Ctrl-C does not wait for what a slow server has under way
        pool.shutdown(wait=False, cancel_futures=True)


def write_blocks(blocks: Iterable[bytes], out: BinaryIO, tick: Tick) -> None:
    """Write blocks to an unbuffered file."""
    for block in blocks:
        rest = memoryview(block)
        while rest:
            rest = rest[out.write(rest) :]
        tick(len(block))
        del block, rest  # free their memory before the next one comes


def copy_bytes(source: BinaryIO, out: BinaryIO, most: int, tick: Tick) -> None:
    """Copy so many bytes, or what there is, from where one unbuffered file stands to the other.

    The kernel does it where it can.
    """
    while most > 0 and (count := _copy_some(source, out, min(most, _BLOCK))):
        tick(count)
        most -= count


def _copy_some(source: BinaryIO, out: BinaryIO, most: int) -> int:
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source.fileno(), out.fileno(), most)
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
    block = source.read(most)
    write_blocks([block], out, no_tick)
    return len(block)


def check_sum(path: Path, sha256: str) -> None:
    """Check that a file is what the index will promise, or raise UserError."""
    if hash_file(path) != sha256:
        raise changed(path)


def changed(path: Path) -> UserError:
    """Return the sentence for a file that is not what it was taken for."""
    return UserError(f"{path}: damaged, or changed just now; `verify` tells which.")


def unreadable(place: object, error: Exception) -> UserError:
    """Return the sentence for a place that cannot be read."""
    return UserError(f"{place}: cannot be read: {first_line(error)}.")


def unwritable(place: object, error: Exception) -> UserError:
    """Return the sentence for a place that cannot be written."""
    return UserError(f"{place}: cannot be written: {first_line(error)}.")


def not_alone(place: object) -> UserError:
    """Return the sentence for a place that two pushes go to at a time."""
    return UserError(
        f"{place}: something else was pushed there at the same time, and what is there is of "
        "both; when that has ended, run the same command again."
    )
