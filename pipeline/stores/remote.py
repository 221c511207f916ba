"""A data set in a store that fsspec knows."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pipeline.errors import AbsentError, UserError, WholeFilesOnlyError
from pipeline.stores.files import file_system, read_range, why_unavailable
from pipeline.stores.transfer import (
    SPAN,
    Outgoing,
    Tick,
    check_sum,
    in_threads,
    unreadable,
    unwritable,
    write_blocks,
)

_T = TypeVar("_T")

PATIENCE = 600.0  # seconds that a store which has answered may be out of reach
_MAX_WAIT = 60.0

_BEYOND_END = re.compile(
    r"\brange\b[^/]*\b(satisf|invalid)|InvalidRange|out of the range \[", re.IGNORECASE
)
"""How stores say that a range begins where the file has ended. A folder may be called orange."""


def retry_while_down(do: Callable[[], _T], patience: float) -> _T:
    """Call ``do``, and again after growing waits while a store is out of reach, or busy.

    Args:
        do: asks a store; ``files.why_unavailable`` knows the errors after which to wait.
        patience: seconds after which no further try is made; ``PATIENCE`` for a store that has
            answered, and so is worth waiting for.
    """
    give_up_at, wait = time.monotonic() + patience, 1.0
    while True:
        try:
            return do()
        except Exception as error:
            if not why_unavailable(error) or time.monotonic() >= give_up_at:
                raise
        time.sleep(wait)
        wait = min(2 * wait, _MAX_WAIT)


class RemoteStore:
    """A store that fsspec knows. Credentials are its own library's affair."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.num_connections = 8
        self._root = url.rstrip("/")
        files, _ = file_system(url)
        files.invalidate_cache()
        self._type: Any = type(files)
        self._has_answered = False

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return a small file, or None; see ``Store``."""
        try:
            data = self._read(name, 0, max_bytes + 1)
        except FileNotFoundError:
            return None
        if len(data) > max_bytes:
            raise UserError(f"{self._root}/{name}: larger than {max_bytes} bytes.")
        return data

    def download(self, name: str, out: BinaryIO, size: int, tick: Tick) -> None:
        """Append the rest of a file; see ``Store``."""
        write_blocks(self._blocks(name, out.tell(), size), out, tick)

    def _blocks(self, name: str, start: int, size: int) -> Iterator[bytes]:
        """Yield a file from byte ``start`` on."""
        for place in range(start, size + 1, SPAN):
            # One byte more than there ought to be, so that a file that is longer is found out.
            stop = min(place + SPAN, size + 1)
            block = self.read_range(name, range(place, stop))
            yield block
            if len(block) < stop - place:
                return

    def read_range(self, name: str, span: range) -> bytes:
        """Return some bytes of a file; see ``Store``."""
        try:
            return self._read(name, span.start, span.stop)
        except FileNotFoundError as error:
            raise AbsentError(f"{self._root}/{name}: is not there.") from error

    def close(self) -> None:
        """Leave the connections to the store's own library."""

    def _read(self, name: str, start: int, stop: int) -> bytes:
        try:
            return self._retry(read_range, f"{self._root}/{name}", start, stop)
        except (FileNotFoundError, WholeFilesOnlyError):
            raise
        except Exception as error:  # each store has its own
            if start and _BEYOND_END.search(str(error)):
                return b""
            raise unreadable(f"{self._root}/{name}", error) from error

    def sizes(self) -> dict[str, int]:
        """Return what is there; see ``WritableStore``."""
        try:
            root, found = self._retry(self._find)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise unreadable(self._root, error) from error
        return {path.removeprefix(f"{root}/"): about["size"] for path, about in found.items()}

    def _find(self) -> tuple[str, dict[str, Any]]:
        files, root = file_system(self._root)
        return root.rstrip("/"), files.find(root, detail=True)

    def put(self, files: Mapping[str, Outgoing], tick: Tick) -> None:
        """Put files there; see ``WritableStore``."""

        def put_one(name: str) -> None:
            path, sum_ = files[name]
            check_sum(path, sum_)
            try:
                self._retry(self._put_file, path, name)
            except Exception as error:
                raise unwritable(f"{self._root}/{name}", error) from error
            tick(path.stat().st_size)

        in_threads(put_one, files, self.num_connections)

    def _put_file(self, path: Path, name: str) -> None:
        files, place = file_system(f"{self._root}/{name}")
        if "sftp" not in files.protocol:
            files.put_file(str(path), place)
            return
        temporary = _temporary(place)  # else half a file would have its name
        files.put_file(str(path), temporary)
        try:
            files.mv(temporary, place)
        except OSError:  # a server without OpenSSH's way to replace a file
            files.rm_file(temporary)
            files.put_file(str(path), place)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; see ``WritableStore``."""
        for name in names:
            try:
                self._retry(self._remove, name)
            except FileNotFoundError:
                continue
            except Exception as error:
                raise unwritable(f"{self._root}/{name}", error) from error

    def _remove(self, name: str) -> None:
        files, place = file_system(f"{self._root}/{name}")
        if "sftp" in files.protocol:  # what a put that was killed has left
            with suppress(FileNotFoundError):
                files.rm_file(_temporary(place))
        files.rm_file(place)

    def _retry(self, do: Callable[..., _T], *arguments: object) -> _T:
        """Call ``do``, and again on a new connection where it fails.

        Most libraries keep a broken one. A store that has answered before is waited for as well.
        """

        def once() -> _T:
            try:
                found = do(*arguments)
            except FileNotFoundError:  # an answer, too
                self._has_answered = True
                raise
            self._has_answered = True
            return found

        def once_more() -> _T:
            self._type.clear_instance_cache()
            return once()

        patience = PATIENCE if self._has_answered else 0.0
        if self._type.async_impl:  # such a library has tried again itself
            return retry_while_down(once, patience)
        try:
            return once()
        except Exception as error:
            if isinstance(error, FileNotFoundError | WholeFilesOnlyError):
                raise
        return retry_while_down(once_more, patience)


def _temporary(place: str) -> str:
    folder, _, last = place.rpartition("/")
    return f"{folder}/.{last}.tmp"
