"""A data set in a store that fsspec knows."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from pipeline.errors import UserError
from pipeline.share.transfer import (
    SPAN,
    Outgoing,
    Tick,
    check_sum,
    in_threads,
    unreadable,
    unwritable,
    write_blocks,
)
from pipeline.stores import file_system, read_range, scheme_of


class RemoteStore:
    """A store that fsspec knows. Credentials are its own library's affair."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.num_connections = 8
        self._root = url.rstrip("/")
        self._files: Any = file_system(scheme_of(url))
        self._files.invalidate_cache()

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return a small file, or None; see ``Store``."""
        try:
            data = self._read(name, 0, max_bytes + 1)
        except FileNotFoundError:
            return None
        if len(data) > max_bytes:
            raise UserError(f"{self._root}/{name}: larger than {max_bytes} bytes.")
        return data

    def bring(self, name: str, out: BinaryIO, size: int, tick: Tick) -> None:
        """Append the rest of a file; see ``Store``."""
        write_blocks(self.blocks(name, out.tell(), size), out, tick)

    def blocks(self, name: str, start: int, size: int) -> Iterator[bytes]:
        """Yield a file from byte ``start`` on."""
        for place in range(start, size + 1, SPAN):
            # One byte more than there ought to be, so that a file that is longer is found out.
            stop = min(place + SPAN, size + 1)
            try:
                block = self._read(name, place, stop)
            except FileNotFoundError as error:
                raise UserError(f"{self._root}/{name}: is not there.") from error
            yield block
            if len(block) < stop - place:
                return

    def part(self, name: str, span: range) -> bytes:
        """Return some bytes of a file; see ``Store``."""
        try:
            return self._read(name, span.start, span.stop)
        except FileNotFoundError as error:
            raise UserError(f"{self._root}/{name}: is not there.") from error

    def close(self) -> None:
        """Leave the connections to the store's own library."""

    def _read(self, name: str, start: int, stop: int) -> bytes:
        try:
            return read_range(f"{self._root}/{name}", start, stop)
        except FileNotFoundError:
            raise
        except Exception as error:  # each store has its own
            if "range" in str(error).lower() and start:  # it begins where the file ends
                return b""
            raise unreadable(f"{self._root}/{name}", error) from error

    def sizes(self) -> dict[str, int]:
        """Return what is there; see ``WritableStore``."""
        try:
            found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise unreadable(self._root, error) from error
        root = self._files._strip_protocol(self._root).rstrip("/")
        return {path.removeprefix(f"{root}/"): about["size"] for path, about in found.items()}

    def put(self, files: Mapping[str, Outgoing], tick: Tick) -> None:
        """Put files there; see ``WritableStore``."""

        def put_one(name: str) -> None:
            path, sum_ = files[name]
            check_sum(path, sum_)
            try:
                self._files.put_file(str(path), f"{self._root}/{name}")
            except Exception as error:
                raise unwritable(f"{self._root}/{name}", error) from error
            tick(path.stat().st_size)

        in_threads(put_one, files, self.num_connections)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; see ``WritableStore``."""
        for name in names:
            try:
                self._files.rm_file(f"{self._root}/{name}")
            except FileNotFoundError:
                continue
            except Exception as error:
                raise unwritable(f"{self._root}/{name}", error) from error
