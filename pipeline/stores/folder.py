"""A data set in a folder on this machine's disks."""

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from pipeline.disk import hash_file, sync, telling_unwritable, temporary_path
from pipeline.errors import AbsentError, UserError
from pipeline.stores.transfer import (
    Outgoing,
    Tick,
    changed,
    check_sum,
    copy_bytes,
    in_threads,
    not_alone,
    unreadable,
)

_FOLDERS = ("ledger", "plan", "raw", "samples")  # that `push` or `--store` puts files into


class FolderStore:
    """A folder on this machine's disks.

    Attributes:
        root: the folder; it need not be there yet.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.num_connections = 2 * (os.cpu_count() or 1)  # half of them wait for the disk
        self.root = Path(url.removeprefix("file://"))

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return a small file, or None; see ``Store``."""
        try:
            with self._open(name) as file:
                data = file.read(max_bytes + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(self.root / name, error) from error
        if len(data) > max_bytes:
            raise UserError(f"{self.root / name}: larger than {max_bytes} bytes.")
        return data

    def download(self, name: str, out: BinaryIO, size: int, tick: Tick) -> None:
        """Append the rest of a file; see ``Store``."""
        try:
            file = self._open(name)
        except FileNotFoundError as error:
            raise AbsentError(f"{self.root / name}: is not there.") from error
        except OSError as error:
            raise unreadable(self.root / name, error) from error
        with file:
            start = out.tell()
            file.seek(start)
            copy_bytes(file, out, size + 1 - start, tick)

    def read_range(self, name: str, span: range) -> bytes:
        """Return some bytes of a file; see ``Store``."""
        try:
            with self._open(name) as file:
                file.seek(span.start)
                return file.read(len(span))
        except OSError as error:
            raise unreadable(self.root / name, error) from error

    def close(self) -> None:
        """Hold nothing."""

    def _open(self, name: str) -> BinaryIO:
        """Open a plain file, and never one that a link leads to: the folder may be a stranger's."""
        path = self.root / name
        self._check_folder(path.parent)
        if path.is_symlink():
            raise UserError(f"{path}: is a link; a data set holds none.")
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", 0)
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise UserError(f"{path}: is no plain file.")
        return file

    def _check_folder(self, folder: Path) -> None:
        if folder != self.root and folder.is_symlink():
            raise UserError(f"{folder}: is a link; a data set holds none.")

    def sizes(self) -> dict[str, int]:
        """Return what is there; see ``WritableStore``."""
        found = {}
        for folder in (self.root, *(self.root / name for name in _FOLDERS)):
            self._check_folder(folder)
            try:
                for path in folder.iterdir() if folder.is_dir() else ():
                    with suppress(FileNotFoundError):  # of another one at work there
                        status = path.lstat()  # of a link itself, which no push has made
                        if not stat.S_ISDIR(status.st_mode):
                            found[path.relative_to(self.root).as_posix()] = status.st_size
            except OSError as error:
                raise unreadable(folder, error) from error
        return found

    def put(self, files: Mapping[str, Outgoing], tick: Tick) -> None:
        """Put files there; see ``WritableStore``."""

        def put_one(name: str) -> None:
            target = self.root / name
            temporary = temporary_path(target)
            try:
                _copy(*files[name], temporary, tick)
                sync(temporary)
                temporary.replace(target)
            except FileNotFoundError as error:  # another push took it away, or took it for its own
                raise not_alone(self.url) from error
            finally:
                temporary.unlink(missing_ok=True)

        folders = {(self.root / name).parent for name in files}
        with telling_unwritable(self.root):
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            for name in files:
                temporary_path(self.root / name).unlink(missing_ok=True)
            in_threads(put_one, files, self.num_connections)
            for folder in folders:  # once, after all of its files
                sync(folder)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; see ``WritableStore``."""
        folders = set()
        for name in names:
            path = self.root / name
            with telling_unwritable(path):
                temporary_path(path).unlink(missing_ok=True)  # of a put that was killed
                path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in folders:
            if folder.is_dir():
                sync(folder)


def _copy(path: Path, sha256: str, out: Path, tick: Tick) -> None:
    """Copy a file, and check what has arrived."""
    try:
        source = path.open("rb", 0)
    except OSError as error:
        raise unreadable(path, error) from error
    with source, out.open("wb", 0) as target:
        try:
            copy_bytes(source, target, path.stat().st_size, tick)
        except OSError:
            check_sum(path, sha256)  # the disk that fails may be the one that is read
            raise
    if hash_file(out) != sha256:
        raise changed(path) if hash_file(path) != sha256 else not_alone(out.parent)
