"""A data set on a web server."""

import os
from collections.abc import Iterator
from typing import BinaryIO

from pipeline.errors import AbsentError, UserError, WholeFilesOnlyError
from pipeline.recipe import SourceSettings
from pipeline.records import Fate, Status
from pipeline.stores.transfer import SPAN, Tick, write_blocks
from pipeline.web.client import Client
from pipeline.web.hosts import url_host

_AUTHORIZATION = "NURIE_AUTHORIZATION"
_MAX_WHOLE = 2**30  # largest file that is taken from a server that does not serve parts of files


def _read_authorization() -> str:
    value = os.environ.get(_AUTHORIZATION, "").strip()
    is_latin = all(ord(character) < 256 for character in value)
    if not (is_latin and value.isprintable()):
        raise UserError(
            f"{_AUTHORIZATION}: its value, which is not shown here, has characters that no header "
            "may have; copy it anew, as one line."
        )
    return value


class WebStore:
    """A folder on a web server, asked by the rules of ``Client``; it cannot be written.

    NURIE_AUTHORIZATION, where it is set, is the value of that header; it goes to the URL's own
    host only.

    Args:
        url: of the folder.
        named_in: where people gave it, for errors: an option or an argument.

    Raises:
        UserError: where no host can be read from it, or NURIE_AUTHORIZATION is no header's value.
    """

    def __init__(self, url: str, named_in: str) -> None:
        self.url = url
        self.num_connections = 4
        self._root = url.rstrip("/")
        source = SourceSettings(images=self._root, rate=0, connections=self.num_connections)
        self._authorization = _read_authorization()
        self._if_refused = (
            "It does not accept NURIE_AUTHORIZATION for this: look at its value, or ask whoever "
            "shares the data set; then run again."
            if self._authorization
            else "If the data set is not for everyone, set NURIE_AUTHORIZATION to the value of "
            "the Authorization header that you were given; else ask whoever shares it. Then run "
            "again."
        )
        hosts = {url_host(self._root, named_in)}
        self._client = Client(source, hosts, named_in=named_in, if_refused=self._if_refused)

    def download(self, name: str, out: BinaryIO, size: int, tick: Tick) -> None:
        """Append the rest of a file; see ``Store``."""
        write_blocks(self._blocks(name, out.tell(), size), out, tick)

    def _blocks(self, name: str, start: int, size: int) -> Iterator[bytes]:
        """Yield a file from byte ``start`` on."""
        for place in range(start, size, SPAN):
            span = range(place, min(place + SPAN, size))
            try:
                block = self.read_range(name, span)
            except WholeFilesOnlyError:
                yield self._get_whole(name, size)[place:]
                return
            has_ended = len(block) < len(span)
            yield block
            if has_ended:
                return
            del block  # before the next one comes

    def read_range(self, name: str, span: range) -> bytes:
        """Return some bytes of a file; see ``Store``."""
        return self._get_there(name, span, len(span))

    def close(self) -> None:
        """Break off what is under way; see ``Store``."""
        self._client.close()

    def _get_whole(self, name: str, size: int) -> bytes:
        if size > _MAX_WHOLE:
            raise UserError(
                f"{self._root}/{name}: its server sends whole files only, and this one is too "
                "large for that. Share it from a server that serves ranges of bytes."
            )
        return self._get_there(name, None, size)

    def _get_there(self, name: str, span: range | None, max_bytes: int) -> bytes:
        data = self.read(name, max_bytes, span)
        if data is None:
            raise AbsentError(f"{self._root}/{name}: is not there.")
        return data

    def read(self, name: str, max_bytes: int, span: range | None = None) -> bytes | None:
        """Return a small file, or some bytes of one, or None; see ``Store``."""
        download = self._client.get(
            f"{self._root}/{name}",
            authorization=self._authorization,
            span=span,
            max_bytes=max_bytes,
        )
        if download.fate.status is Status.FETCHED:
            return download.content
        if download.fate.status is Status.MISSING:
            return None
        if download.http_status == 416:  # the span begins where the file has ended
            return b""
        if download.fate == Fate(Status.REJECTED, "too_many_bytes"):
            raise UserError(f"{self._root}/{name}: larger than {max_bytes} bytes.")
        if download.http_status in (401, 403):
            raise UserError(
                f"{self._root}/{name}: refused (HTTP {download.http_status}). {self._if_refused}"
            )
        if download.fate == Fate(Status.REFUSED, "host_not_allowed"):
            raise UserError(
                f"{self._root}/{name}: its server leads elsewhere (HTTP {download.http_status}), "
                "and only the URL's own host is asked: give the URL of the place with the files."
            )
        http = f", HTTP {download.http_status}" if download.http_status else ""
        raise UserError(f"{self._root}/{name}: could not be had ({download.fate}{http}).")
