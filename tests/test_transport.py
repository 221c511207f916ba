import io
import ipaddress
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import MaxRetryError, NewConnectionError, ReadTimeoutError

from pipeline.web import transport
from pipeline.web.transport import (
    PrivateAddressError,
    Transport,
    find_private,
    host_of,
    prepare_get,
    why_unreachable,
)
from tests.faulty_server import FaultyServer, Script, answer, drip

PICTURE = bytes(range(256)) * 300
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1310720\r\n\r\n"


@pytest.fixture
def fetch() -> Iterator[Callable[..., bytes]]:
    """Fetch a URL's body with a transport of its own."""
    with ExitStack() as stack:

        def fetch(url: str, *local_hosts: str, timeout: float = 0.25) -> bytes:
            transport = stack.enter_context(closing(Transport(timeout, 2, local_hosts)))
            with transport.send(prepare_get(url, {"User-Agent": "Nurie/test"}), 2**21) as response:
                return b"".join(response.raw.stream(2**16))

        yield fetch


@pytest.fixture
def lead_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let every name lead to one address."""

    def lead_to(address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def resolve(host: str, port: int, *_: object) -> list[Any]:
            return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    return lead_to


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.org/1", "example.org"),
        ("https://example.org:443/1", "example.org"),
        ("http://example.org:8000", "example.org:8000"),
        ("http://me:secret@example.org:8000/1", "example.org:8000"),
        ("http://[::1]:8000/1", "[::1]:8000"),
        ("http://evil.org\\@example.org/1", "evil.org"),
        ("http://evil.org#@example.org/1", "evil.org"),
        ("http://example.org@evil.org/1", "evil.org"),
    ],
)
def test_the_host_is_the_one_that_is_connected_to(url: str, host: str) -> None:
    assert host_of(prepare_get(url, {})) == host


@pytest.mark.parametrize(
    "url", ["", "/1", "ftp://a.org/1", "http://", "http://[::1", "http://a:b/"]
)
def test_what_is_no_url_has_no_host(url: str) -> None:
    with pytest.raises(ValueError, match="."):
        host_of(prepare_get(url, {}))


def test_a_failed_connection_of_which_the_system_says_nothing_is_none() -> None:
    reason = NewConnectionError(HTTPConnection("a.example"), "no answer of the proxy")
    error = requests.ConnectionError(MaxRetryError(HTTPConnectionPool("a.example"), "/1", reason))
    assert "no answer of the proxy" in why_unreachable(error)


def test_an_answer_has_four_time_outs_and_a_second_for_every_64_kib(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([0.0, 40.0, 41.0, 42.0, 43.1])
    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=lambda: next(times)))
    sock: Any = SimpleNamespace(gettimeout=lambda: 10.0)
    reader = transport._TimedReader(io.FileIO("/dev/zero"), sock)
    for _ in range(3):
        assert reader.readinto(bytearray(2**16)) == 2**16
    with pytest.raises(TimeoutError, match="too slowly"):
        reader.readinto(bytearray(1))


def test_an_answer_has_a_mebibyte_around_twice_what_is_wanted() -> None:
    with FaultyServer(answer(200, b"x")) as server:
        request = prepare_get(f"{server.url}/1", {})
        with closing(Transport(10.0, 1, {server.host})) as wire:
            raw: Any = wire.send(request, 1000).raw
            num_left = raw._original_response.fp.raw.num_left
    assert 2**20 + 2000 - 200 < num_left < 2**20 + 2000  # less the headers


def test_a_slow_but_steady_answer_gets_its_time(fetch: Callable[..., bytes]) -> None:
    with FaultyServer(drip(HEAD, repeat(bytes(2**16), 20), 0.08)) as server:
        assert len(fetch(f"{server.url}/1", server.host)) == 20 * 2**16  # takes 1.6 s, not 1


def test_a_dripping_answer_does_not(fetch: Callable[..., bytes]) -> None:
    with (
        FaultyServer(drip(HEAD, repeat(bytes(100)), 0.05)) as server,
        pytest.raises(ReadTimeoutError),
    ):
        fetch(f"{server.url}/1", server.host)


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux only")
def test_what_comes_on_a_connection_used_again_is_acknowledged_at_once() -> None:
    with (
        FaultyServer(answer(200, PICTURE)) as server,
        closing(Transport(1.0, 2, [server.host])) as transport,
    ):
        for _ in range(5):
            with transport.send(prepare_get(f"{server.url}/1", {}), len(PICTURE)) as response:
                connection: Any = response.raw.connection
                assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)
                assert response.raw.read() == PICTURE
        assert server.num_connections == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_a_name_must_not_lead_to_a_private_address(
    address: str, fetch: Callable[..., bytes], lead_to: Callable[[str], None]
) -> None:
    if ":" in address and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with FaultyServer(answer(200, PICTURE)) as server:
        lead_to(address)
        port = server.host.partition(":")[2]
        with pytest.raises(PrivateAddressError, match=r"pictures\.example leads to 127\.0\.0\.1"):
            fetch(f"http://pictures.example:{port}/1")
        assert server.requests == []
        assert fetch(f"http://nas.example:{port}/1", f"nas.example:{port}") == PICTURE


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),  # a provider's own net
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:7f00:1::", False),
    ],
)
def test_an_address_is_as_public_as_the_one_that_it_stands_for(
    address: str, is_public: bool
) -> None:
    assert (find_private(address) == "") == is_public


def test_a_name_may_lead_to_a_public_address(
    fetch: Callable[..., bytes], lead_to: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyServer(answer(200, PICTURE)) as server:
        lead_to("127.0.0.1")
        public = ipaddress.ip_address("8.8.8.8")
        monkeypatch.setattr("pipeline.web.transport.ipaddress.ip_address", lambda _: public)
        port = server.host.partition(":")[2]
        assert fetch(f"http://pictures.example:{port}/1") == PICTURE


def test_the_proxies_of_the_environment_are_used(
    fetch: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyServer(answer(200, PICTURE)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert fetch("http://pictures.example/1") == PICTURE
        assert proxy.requests[0].startswith("GET http://pictures.example/1 HTTP/1.1\r\n")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with FaultyServer(answer(200, b"direct")) as server:
            assert fetch(f"{server.url}/1", server.host) == b"direct"
        proxy.scripts = [drip(HEAD[:-2], repeat(b"X-Drip: 1\r\n", 90), 0.02)]
        with pytest.raises(requests.Timeout):
            fetch("http://pictures.example/2", timeout=0.1)


def test_neither_netrc_nor_cookies_are_sent(
    fetch: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc_path = tmp_path / "netrc"
    netrc_path.write_text("machine 127.0.0.1 login me password secret\n")
    netrc_path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc_path))
    with FaultyServer(answer(200, PICTURE, Set_Cookie="id=1; Path=/")) as server:
        with closing(Transport(1.0, 2, [server.host])) as transport:
            for _ in range(2):
                with transport.send(prepare_get(f"{server.url}/1", {}), len(PICTURE)) as response:
                    assert response.raw.read() == PICTURE
        for head in server.requests:
            assert "Authorization" not in head
            assert "Cookie" not in head


class TlsServer(FaultyServer):
    def __init__(self, certificate_path: Path, *scripts: Script) -> None:
        super().__init__(*scripts)
        self.url = f"https://{self.host}"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate_path)

    def wrap(self, sock: socket.socket) -> socket.socket:
        return self._context.wrap_socket(sock, server_side=True)


@pytest.fixture
def certificate_path(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    path = tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {path} -out {tmp_path}/public.pem"
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (tmp_path / "public.pem").read_bytes())
    return path


def test_tls_is_checked_and_has_the_same_deadline(
    certificate_path: Path, fetch: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with TlsServer(certificate_path, answer(200, PICTURE)) as server:
        with pytest.raises(requests.exceptions.SSLError):
            fetch(f"{server.url}/1", server.host)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate_path.with_name("public.pem")))
        assert fetch(f"{server.url}/1", server.host) == PICTURE
        server.scripts = [drip(HEAD[:-2], repeat(b"X-Drip: 1\r\n", 90), 0.02)]
        with pytest.raises(requests.Timeout):
            fetch(f"{server.url}/2", server.host, timeout=0.1)
