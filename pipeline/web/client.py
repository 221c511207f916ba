"""HTTP, politely: one URL -> its bytes or a fate. Retries, rate limit, size cap, allow-list.

Tried again: time-outs, broken connections, short bodies, 408, 425, 429 and every 5xx (Danbooru
answers 500 when a query takes over three seconds; Cloudflare has its own from 520 on). Every other
answer stands. 404 and 410 are ``missing``, 401, 403 and 451 ``refused``; the rest, such as
Danbooru's 422 for a query out of bounds, is ``failed``, and a later run may ask again.
"""

import importlib.metadata
import os
import random
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from urllib.parse import urljoin

import requests
from urllib3.exceptions import HTTPError

from pipeline.errors import UserError, WholeFilesOnlyError
from pipeline.recipe import SourceSettings
from pipeline.records import NOT_ALLOWED, Download, Fate, Status
from pipeline.stores.files import UnreachableError, read_store
from pipeline.urls import without_password
from pipeline.web.hosts import is_local, named_hosts
from pipeline.web.pacing import (
    REFUSED_PICTURES,
    Clock,
    HostPacer,
    Sleep,
    choose_wait,
    may_pass,
    parse_retry_after,
)
from pipeline.web.responses import drain, fate_of_status, read_body
from pipeline.web.transport import (
    PrivateAddressError,
    Transport,
    host_of,
    origin_of,
    prepare_get,
    why_unreachable,
)

_MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class _Ask:
    """What ``Client.get`` is asked for."""

    url: str
    authorization: str
    span: range | None
    max_bytes: int


def user_agent() -> str:
    """Return who asks: ``Nurie/VERSION``, and ``(+CONTACT)`` where NURIE_CONTACT is set.

    Danbooru blocks the names of browsers and libraries, and wants to be able to reach people.

    Raises:
        UserError: when the contact cannot stand in a header.
    """
    contact = os.environ.get("NURIE_CONTACT", "").strip()
    if not (contact.isascii() and contact.isprintable()):
        raise UserError(f"NURIE_CONTACT={contact!r}: use printable ASCII, such as a mail address.")
    try:
        name = f"Nurie/{importlib.metadata.version('nurie')}"
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        name = "Nurie/dev"
    return f"{name} (+{contact})" if contact else name


class Client:
    """Downloads URLs for many threads at once. Keep one for a whole process.

    Turns, Retry-After and refusals are counted within one client. Processes divide the rate by
    ``share``; of a Retry-After they hear each for itself.

    Only ``hosts`` are asked, over http or https. Redirects are followed as long as they stay
    there, and a URL's own user and password never go along to another host. A *name* among the
    hosts must not lead to a private address (see ``Transport``), unless the user named it as local:
    the hosts of the template and of the metadata's API, ``localhost``, and addresses written out.

    Args:
        source: rate, attempts, time-out and size cap; the template.
        hosts: that may be asked, as ``allowed_hosts`` returns them.
        share: this process's share of ``source.rate``, above 0 up to 1.
        sleep: waits some seconds; by default a wait that ``close`` cuts short.
        clock: monotonic seconds.
        draw: uniform in [0, 1), for the jitter.
        named_in: where people gave the hosts' names, for errors.
        if_refused: what to do where a host turns everything down, for errors.
    """

    def __init__(
        self,
        source: SourceSettings,
        hosts: Collection[str],
        share: float = 1.0,
        *,
        sleep: Sleep | None = None,
        clock: Clock = time.monotonic,
        draw: Callable[[], float] = random.random,
        named_in: str = "source.images, source.hosts",
        if_refused: str = REFUSED_PICTURES,
    ) -> None:
        self._source = source
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._clock = clock
        self._draw = draw
        self._headers = {
            "User-Agent": user_agent(),
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        interval = 1 / (source.rate * share) if source.rate else 0.0
        # Processes start together: a random phase keeps their requests from coming in volleys.
        start = clock() + (draw() * interval if share < 1 else 0.0)
        words = (named_in, if_refused)
        self._hosts = {
            name: HostPacer(name, interval, start, self._sleep, clock, *words) for name in hosts
        }
        store = "/".join(without_password(source.images).split("/")[:3])
        in_settings = "source.images, or an endpoint in the store's own settings"
        self._store = HostPacer(store, 0.0, start, self._sleep, clock, in_settings)
        local_hosts = {*named_hosts(source), *filter(is_local, hosts)}
        self._transport = Transport(source.timeout, source.connections, local_hosts)

    def get(
        self,
        url: str,
        *,
        authorization: str = "",
        span: range | None = None,
        max_bytes: int | None = None,
    ) -> Download:
        """Download one URL, with as many tries as the source's settings allow.

        Args:
            url: over http or https.
            authorization: value of that header. It goes to the URL's own scheme and host only,
                wherever redirects lead.
            span: the bytes to ask for; all of the file by default. What came is as long as it, or
                ``failed/truncated``.
            max_bytes: a longer body is ``rejected``; the source's limit by default.

        Content type and magic are not looked at. A body that ends early is ``failed/truncated``
        where its length was announced, or it came in chunks; without either nobody can tell.

        While the host is out of reach, tries do not count: all threads wait for it.

        Raises:
            SourceRefusesError: when the host has answered 401 or 403 five times in a row, and from
                then on.
            SourceDownError: when the host cannot be reached, or answers nothing of use again and
                again; see ``HostPacer.note_missed`` and ``HostPacer.note_end``.
            WholeFilesOnlyError: when a span was asked for, and the host sends the whole file.
            RuntimeError: when the client was closed.
        """
        ask = _Ask(url, authorization, span, max_bytes or self._source.max_bytes)
        started = self._clock()
        num_tries = attempt = 0
        while True:
            num_tries += 1
            download = self._try(ask)
            if download is None:
                continue
            attempt += 1
            fate, status = download.fate, download.http_status
            wait = choose_wait(attempt, self._source.attempts, fate, status, self._draw())
            if wait is None:
                seconds = self._clock() - started
                if fate == NOT_ALLOWED and not status:  # nothing was sent
                    num_tries -= 1
                return replace(download, num_attempts=num_tries, seconds=seconds)
            self._sleep(wait)

    def read_stored(self, place: str, span: range | None, max_bytes: int) -> Download:
        """Read from the store that the source's template names; see ``read_store``.

        While the store is out of reach all threads wait for it, as ``get`` does for a host.

        Raises:
            SourceDownError: when it cannot be reached; see ``HostPacer.note_missed``.
            UserError: where its library lacks credentials.
            RuntimeError: when the client was closed.
        """
        num_misses = 0
        while num_misses < self._source.attempts:
            self._wait_for_turn(self._store)
            try:
                download = read_store(place, max_bytes, span)
            except UnreachableError as error:
                num_misses += not self._store.note_missed(str(error))
            else:
                self._store.note_reached()
                return download
        return Download(Fate(Status.FAILED, "connection"), num_attempts=num_misses)

    def close(self) -> None:
        """Close the connections and wake the threads that wait; their calls raise."""
        self._closed.set()
        self._transport.close()

    def _wait_for_turn(self, host: HostPacer) -> None:
        host.wait_for_turn()
        if self._closed.is_set():
            raise RuntimeError("the client was closed")

    def _try(self, ask: _Ask) -> Download | None:
        """Ask once, and follow where it leads; None while the host is out of reach."""
        url, location, status, origin = ask.url, "", 0, ""
        headers = self._headers
        if ask.span:
            headers = headers | {"Range": f"bytes={ask.span[0]}-{ask.span[-1]}"}
        for _ in range(1 + _MAX_REDIRECTS):
            name = ""
            try:
                request = prepare_get(urljoin(url, location), headers)
                name = host_of(request)
                host = self._hosts[name]
            except (ValueError, KeyError):  # no URL at all, or none that may be asked
                return Download(NOT_ALLOWED, http_status=status, host=name)
            origin = origin or origin_of(request)
            if ask.authorization and origin_of(request) == origin:
                request.headers["Authorization"] = ask.authorization
            self._wait_for_turn(host)
            try:
                response = self._transport.send(request, len(ask.span or ()) or ask.max_bytes)
            except PrivateAddressError:
                return Download(NOT_ALLOWED, http_status=status, host=name)
            except (requests.RequestException, HTTPError) as error:
                why = why_unreachable(error)
                if why and host.note_missed(why):
                    return None
                host.note_end(failed=True)
                is_late = isinstance(error, requests.Timeout)
                return Download(Fate(Status.FAILED, "timeout" if is_late else "connection"))
            host.note_reached()
            with response:
                status = response.status_code
                if not response.is_redirect:
                    download = self._receive(response, host, ask)
                    host.note_end(may_pass(download.fate, status))
                    return download
                url, location = str(request.url), response.headers["Location"]
                drain(response)
        return Download(fate_of_status(status), http_status=status)

    def _receive(self, response: requests.Response, host: HostPacer, ask: _Ask) -> Download:
        status, span = response.status_code, ask.span
        host.note_status(status)
        fate = fate_of_status(status)
        if span and status == 200:
            raise WholeFilesOnlyError(
                f"{host.name} sends whole files only (it answers 200 to a request for a range of "
                "bytes), so no picture can be taken out of a tar there. Use a mirror that serves "
                "ranges, or download the tars."
            )
        if span and status == 206:
            fate, content = read_body(response, len(span))
            if fate.status is not Status.FAILED and len(content) != len(span):
                fate = Fate(Status.FAILED, "truncated")
            return Download(fate, content if fate.status is Status.FETCHED else b"", status)
        if fate.status is Status.FETCHED:
            return Download(*read_body(response, ask.max_bytes), status)
        if may_pass(fate, status):
            headers = response.headers
            host.hold(parse_retry_after(headers.get("Retry-After", ""), headers.get("Date", "")))
        drain(response)
        return Download(fate, http_status=status)
