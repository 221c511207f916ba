"""The wire under ``client.py``: one request -> one answer, with a deadline and a known peer."""

import http.client
import io
import ipaddress
import socket
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PATIENCE = 4  # an answer may take so many time-outs ...
_MIN_RATE = 64 * 2**10  # ... and a second for so many bytes that have come
_MAX_HEAD = 2**20  # bytes before and around the body: headers, 100 Continue, trailers

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # Linux only; it holds for a while, not for good


class PrivateAddressError(Exception):
    """A name led to a private address. Not an OSError, which urllib3 would take for a fault."""


def prepare_get(url: str, headers: Mapping[str, str]) -> requests.PreparedRequest:
    """Return the request as it will be sent.

    Raises:
        ValueError: when ``url`` is no URL.
    """
    request = requests.PreparedRequest()
    request.prepare_method("GET")
    request.prepare_url(url, None)
    request.prepare_headers(headers)
    request.prepare_auth(None)  # the URL's own; ``prepare`` goes on to cookies, which takes longer
    return request


def host_of(request: requests.PreparedRequest) -> str:
    """Return whom a request goes to: ``host``, meaning its ports 80 and 443, or ``host:port``.

    Only a prepared request can be asked. Parsers differ about backslashes and the like, and the
    one that decides must be the one that connects.

    Raises:
        ValueError: when it is not over http or https, or the port is not a number up to 65535.
    """
    parts = urlsplit(str(request.url))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL starts with http:// or https:// and a host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return host if parts.port in (None, 80, 443) else f"{host}:{parts.port}"


def origin_of(request: requests.PreparedRequest) -> str:
    """Return scheme, host and port of a prepared request, as its URL writes them."""
    url = str(request.url)
    return url[: url.index("/", len("https://"))]


def why_unreachable(error: Exception) -> str:
    """Return why no connection was made, from what ``Transport.send`` raised; "" where one was.

    An unknown name, a closed port, silence, a certificate that does not fit, a proxy.
    """
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(reason, NewConnectionError):
        cause = reason.__cause__
        return (isinstance(cause, OSError) and cause.strerror) or str(reason)
    if isinstance(error, requests.ConnectTimeout):
        return "it does not take the connection"
    if isinstance(error, requests.exceptions.SSLError | requests.exceptions.ProxyError):
        return str(reason or error)
    return ""


class Transport:
    """Sends requests over pooled connections, from many threads at once.

    An answer, headers included, may take four time-outs, and a second more for every 64 KiB that
    have come; after that nothing more is read. A slow line gets its time, and a server that drips
    does not hold a thread for days. Nor does one that sends without an end what comes to nothing,
    such as empty gzip members: no more is read than twice what is wanted, and a mebibyte.

    A name that leads to a private address (loopback, local network) is turned down on the
    connected peer before a byte is sent, so that neither a record nor a changed DNS entry can
    point into the local network. Through a proxy the peer is the proxy, and names are its affair.

    The environment's proxies and CA bundle (HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE) count. No
    ``.netrc`` is read and no cookie kept; redirects are not followed.

    Args:
        timeout: seconds to connect, and seconds without a byte.
        num_connections: to keep open for each host.
        local_hosts: those that may have a private address, each as ``host_of`` returns it.
    """

    def __init__(self, timeout: float, num_connections: int, local_hosts: Collection[str]) -> None:
        self._timeout = timeout
        self._session = requests.Session()
        self._adapter = _Adapter(num_connections, local_hosts)
        self._session.mount("http://", self._adapter)
        self._session.mount("https://", self._adapter)
        self._environments: dict[str, Any] = {}

    def send(self, request: requests.PreparedRequest, max_bytes: int) -> requests.Response:
        """Send a request and return its answer, the body unread, of which ``max_bytes`` are wanted.

        Raises:
            PrivateAddressError: when the name leads to a private address.
            requests.RequestException, urllib3.exceptions.HTTPError: when no answer came.
        """
        origin = origin_of(request)
        environment = self._environments.get(origin)
        if environment is None:  # reading it takes as long as half a request
            merge = self._session.merge_environment_settings
            environment = self._environments[origin] = merge(origin, {}, True, True, None)
        response = self._adapter.send(request, timeout=self._timeout, **environment)
        body: Any = cast(Any, response.raw)._original_response.fp
        if body is not None:  # None where there is no body
            body.raw.num_left += 2 * max_bytes
        return response

    def close(self) -> None:
        """Close the connections that are at rest; the others when their answers are through."""
        self._session.close()


class _Adapter(HTTPAdapter):
    def __init__(self, num_connections: int, local_hosts: Collection[str]) -> None:
        super().__init__(pool_maxsize=num_connections)
        self._local_hosts = local_hosts

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> HTTPConnectionPool:
        """Guard the pool's connections, whatever class they are of: plain, TLS, by a proxy."""
        pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
        pool = cast(HTTPConnectionPool, pool)
        if not issubclass(pool.ConnectionCls, _GuardedConnection):
            direct = select_proxy(str(request.url), proxies) is None
            public_only = direct and host_of(request) not in self._local_hosts
            bases = (_GuardedConnection, pool.ConnectionCls)
            pool.ConnectionCls = type("Guarded", bases, {"public_only": public_only})
        return pool


class _TimedReader(io.RawIOBase):
    """Reads from a socket up to a deadline. The socket's own time-out begins anew at each byte.

    Attributes:
        num_left: bytes that may still come.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._deadline = time.monotonic() + _PATIENCE * (sock.gettimeout() or 0.0)
        self.num_left = _MAX_HEAD

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        if time.monotonic() > self._deadline:
            raise TimeoutError("the answer comes too slowly")
        num_bytes = self._raw.readinto(buffer) or 0
        self._deadline += num_bytes / _MIN_RATE
        self.num_left -= num_bytes
        if self.num_left < 0:
            raise ConnectionError("the answer does not end")
        return num_bytes

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if _QUICKACK is not None and isinstance(sock, socket.socket):
            # A server that sends headers and body apart may hold the body back until the headers
            # are acknowledged; on a reused connection that takes 40 ms, unless it is asked for.
            sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        self.fp = io.BufferedReader(_TimedReader(self.fp.detach(), sock))


def find_private(address: str) -> str:
    """Return the private address that one is or, mapped, 6to4 or NAT64, stands for; "" for none."""
    peer = ipaddress.ip_address(address)
    if isinstance(peer, ipaddress.IPv6Address):
        nat64 = ipaddress.IPv4Address(int(peer) & 0xFFFFFFFF) if peer in _NAT64 else None
        peer = nat64 or peer.ipv4_mapped or peer.sixtofour or peer
    return "" if peer.is_global else str(peer)


class _GuardedConnection(HTTPConnection):
    response_class = _TimedResponse
    public_only: bool

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        if self.public_only and (private := find_private(sock.getpeername()[0])):
            sock.close()
            raise PrivateAddressError(f"{self.host} leads to {private}")
        return sock
