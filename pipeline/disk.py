"""Files on this disk: written whole or not at all, and what the disk says in sentences."""

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from pipeline.errors import DamagedError, UserError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARIES = ".*.tmp"
_PATIENCE = 120.0  # seconds; Ray's machines end their work a minute after they are cut off


def is_out_of_space(error: Exception) -> bool:
    """Whether a write failed because the disk is full: the next one would fail as well."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


@contextmanager
def telling_out_of_space(where: Path, remedy: str) -> Iterator[None]:
    """Say in a sentence that a write under ``where`` had no room, and what to do.

    Raises:
        UserError: where there was none.
    """
    try:
        yield
    except OSError as error:
        if not is_out_of_space(error):
            raise
        raise UserError(f"{where}: {reason(error).lower()}; {remedy}") from error


@contextmanager
def telling_unwritable(path: Path) -> Iterator[None]:
    """Say in a sentence that a file or folder cannot be written.

    Raises:
        UserError: where it cannot.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {reason(error)}.") from error


def reason(error: Exception) -> str:
    """Return what went wrong, without the number, path and further lines that others add."""
    if not isinstance(error, OSError) or not error.errno:
        return str(error).partition("\n")[0].rstrip(".")
    known_to_system = error.errno > 0  # what is said of host names has numbers under 0
    return os.strerror(error.errno) if known_to_system else str(error.strerror)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed into place.

    On any failure the temporary file is removed, with the folders that were made for it, and
    ``path`` stays as it was. Where another process replaces it at the same time, this one waits.

    Raises:
        UserError: where ``path`` is a folder, or a device or pipe, whose place a file would take,
            or the other process does not end.
    """
    check_plain(path)
    with _making(path.parent):
        temporary = temporary_path(path)
        if temporary.is_symlink():  # a stranger's: what it leads to would be written
            temporary.unlink()
        with claim(temporary):
            try:
                yield temporary
                commit(temporary, path)
            except BaseException:  # else the name may be another process's by now
                temporary.unlink(missing_ok=True)
                raise


def replace_together(directory: Path, files: dict[str, bytes]) -> None:
    """Write several files: none is put in place before all are whole on the disk.

    Args:
        directory: made where it is missing.
        files: by name; the last one is put in place last.

    Raises:
        UserError: as ``replacing``.
    """
    with ExitStack() as stack:
        for name, content in reversed(files.items()):
            temporary = stack.enter_context(replacing(directory / name))
            temporary.write_bytes(content)
            sync(temporary)


def check_writable(*paths: Path) -> None:
    """Check that files can be written at some paths, before the work that they are to hold.

    Leaves nothing behind: folders that are missing are not made yet.

    Raises:
        UserError: where one cannot be written.
    """
    for path in paths:
        with telling_unwritable(path):
            check_plain(path)
    for folder in {next(filter(os.path.lexists, path.parents)) for path in paths}:
        with telling_unwritable(folder), TemporaryFile(dir=folder):
            pass


def check_place(path: Path) -> None:
    """Check that a plain file is where the program keeps one, or nothing, or raise UserError."""
    check_plain(path, ", where a file goes; move it away")


def check_plain(path: Path, remedy: str = "; give the path of a file") -> None:
    """Check that a path is that of a plain file, or free: a pipe would be waited for.

    Raises:
        UserError: where it is not; it ends with ``remedy``.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no plain file"
        raise UserError(f"{path}: is {what}{remedy}.")


@contextmanager
def _making(folder: Path) -> Iterator[None]:
    """Make a folder where it is missing; on a failure what was made is removed, if still empty."""
    missing = list(takewhile(lambda place: not place.exists(), (folder, *folder.parents)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in missing:
            with suppress(OSError):
                place.rmdir()
        raise


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file, text as UTF-8: all of it, or it stays as it was; see ``replacing``."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def open_no_link(path: str, flags: int) -> int:
    """Open a file, made where it is missing, but not through a link: an ``opener`` of ``open``.

    Work folders and caches may hold links that somebody else has put there.
    """
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def claim(path: Path) -> BinaryIO:
    """Open a file for writing, its bytes kept, once no other process has it open by this function.

    Commands may write the same file at once. And a cluster gives a shard to another machine when
    the one that had it seems dead. That one may only be cut off, or slow to die, and go on writing
    for a while, with the same temporary name.

    It is held until it is closed, under whatever name it is then. File systems without locks let
    everybody in.

    Raises:
        UserError: when the other process does not end.
    """
    give_up_at = time.monotonic() + _PATIENCE
    while True:
        file = open(path, "wb", 2**20, opener=_open_as_it_is)  # noqa: SIM115
        if _lock(file) and _is_at(file, path):
            return file
        file.close()
        if time.monotonic() > give_up_at:
            raise UserError(
                f"{path}: another process goes on writing it, of an earlier run or on a machine "
                "that was given up; run again when it has ended."
            )
        time.sleep(0.1)


def _open_as_it_is(path: str, flags: int) -> int:
    return open_no_link(path, flags & ~os.O_TRUNC)


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file still has its name: who held it may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def temporary_path(path: Path) -> Path:
    """Return the name under which ``path`` is written until it is whole."""
    return path.with_name(f".{path.name}.tmp")


def is_temporary(path: Path) -> bool:
    """Whether a file has a name as ``temporary_path`` gives it."""
    return path.match(_TEMPORARIES)


def sweep_temporaries(directory: Path, names: Collection[str] | None = None) -> None:
    """Remove what an interrupted run left half-written in ``directory``, but nothing claimed.

    Args:
        directory: need not exist.
        names: of the shards whose temporaries are meant; None for all files.
    """
    for path in directory.glob(_TEMPORARIES):
        if names is None or name_of_temporary(path) in names:
            _remove_unclaimed(path)


def _remove_unclaimed(path: Path) -> None:
    try:
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115
    except OSError:  # a link, or it is gone
        path.unlink(missing_ok=True)
        return
    with file:
        if _lock(file):
            path.unlink(missing_ok=True)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would be waited for


def name_of_temporary(path: Path) -> str:
    """Return the stem of the file that is written under a temporary name."""
    return path.name.removeprefix(".").removesuffix(".tmp").partition(".")[0]


def commit(temporary: Path, path: Path) -> None:
    """Sync ``temporary`` to disk, rename it to ``path``, sync the folder."""
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex.

    Raises:
        FileNotFoundError: where it is not there.
        DamagedError: where it cannot be read.
    """
    with telling_unreadable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def telling_unreadable(path: Path) -> Iterator[None]:
    """Say in a sentence that a file which is there cannot be read.

    Raises:
        FileNotFoundError: where it is not there.
        DamagedError: where it cannot be read.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read: {error.strerror}.") from error
