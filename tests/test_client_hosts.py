"""Whom a client asks: the hosts that the user named, by redirects as well, and no other."""

import base64
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from pipeline.recipe import SourceSettings
from pipeline.web.client import Client
from pipeline.web.hosts import allowed_hosts
from tests.clients import FETCHED, NOT_ALLOWED, PICTURE, Connect
from tests.faulty_server import FaultyServer, answer


@pytest.fixture
def wrong_host() -> Iterator[FaultyServer]:
    with FaultyServer(answer(200, b"a secret")) as server:
        yield server


@pytest.mark.parametrize("location", ["/2", "2", "http://HOST/2", "//HOST/2"])
def test_redirects_are_followed(location: str, connect: Connect) -> None:
    with FaultyServer(answer(200, PICTURE)) as server:
        location = location.replace("HOST", server.host)
        server.scripts[:0] = [answer(302, b"over there", Location=location)]
        download = connect(server.url).get(f"{server.url}/1")
        assert (download.fate, download.content, download.num_attempts) == (FETCHED, PICTURE, 1)
        assert [head.split()[1] for head in server.requests] == ["/1", "/2"]


@pytest.mark.parametrize(
    "location",
    [
        "http://HOST/2",
        "//HOST/2",
        "http://ALLOWED@HOST/2",
        "http://HOST\\@ALLOWED/2",  # where the standard library and urllib3 read different hosts
        "http://HOST#@ALLOWED/2",
        "ftp://ALLOWED/2",
        "file:///etc/passwd",
        "http://[::1",
        "http://ALLOWED:99999/2",
        "http://\xff/",
    ],
)
def test_redirects_to_elsewhere_are_not(
    location: str, wrong_host: FaultyServer, connect: Connect
) -> None:
    with FaultyServer(answer(200, PICTURE)) as server:
        location = location.replace("HOST", wrong_host.host).replace("ALLOWED", server.host)
        server.scripts[:0] = [answer(302, Location=location)]
        download = connect(server.url, attempts=5).get(f"{server.url}/1")
        assert (download.fate, download.content) == (NOT_ALLOWED, b"")
        assert (download.http_status, len(server.requests)) == (302, 1)
    assert wrong_host.num_connections == 0


def test_redirects_lead_to_other_hosts_that_may_be_asked(connect: Connect) -> None:
    with FaultyServer(answer(200, PICTURE)) as cdn:
        with FaultyServer(answer(301, Location=f"{cdn.url}/2")) as server:
            client = connect(server.url, None, cdn.host)
            named = f"http://me:secret@{server.host}/1"
            assert client.get(named).content == PICTURE
        login = base64.b64encode(b"me:secret").decode()
        assert f"Authorization: Basic {login}" in server.requests[0]
        assert "Authorization" not in cdn.requests[0]
        assert "secret" not in cdn.requests[0]


def test_an_authorization_stays_with_its_own_origin(connect: Connect) -> None:
    with FaultyServer(answer(200, PICTURE)) as cdn:
        with FaultyServer(answer(302, Location=f"{cdn.url}/2")) as server:
            client = connect(server.url, None, cdn.host)
            assert client.get(f"{server.url}/1", authorization="Basic eA==").content == PICTURE
        assert "Authorization: Basic eA==" in server.requests[0]
        assert "Authorization" not in cdn.requests[0]


def test_going_round_in_circles_comes_to_an_end(connect: Connect) -> None:
    with FaultyServer(answer(302, Location="/1")) as server:
        download = connect(server.url, attempts=3).get(f"{server.url}/1")
        assert (str(download.fate), download.num_attempts) == ("failed/http", 1)
        assert len(server.requests) == 6


@pytest.mark.parametrize("url", ["http://HOST/1", "ftp://HOST/1", "/etc/passwd", "", "http://["])
def test_other_hosts_are_not_asked(url: str, wrong_host: FaultyServer, connect: Connect) -> None:
    client = connect("http://localhost:1", attempts=5)
    download = client.get(url.replace("HOST", wrong_host.host))
    assert (download.fate, download.http_status) == (NOT_ALLOWED, 0)
    assert (download.num_attempts, wrong_host.num_connections) == (0, 0)


@pytest.mark.parametrize(
    ("images", "url", "allowed"),
    [
        ("http://example.org/{id}", "http://pictures.example:PORT/1", False),
        ("http://pictures.example:PORT/{id}", "http://pictures.example:PORT/1", True),
        ("http://example.org/{id}", "http://localhost:PORT/1", True),
        ("http://example.org/{id}", "http://127.0.0.1:PORT/1", True),
    ],
)
def test_only_what_the_user_named_as_local_may_be_local(
    images: str, url: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyServer(answer(200, PICTURE)) as server:
        address = ("127.0.0.1", int(server.host.partition(":")[2]))
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
        images, url = (text.replace("PORT", str(address[1])) for text in (images, url))
        source = SourceSettings(images=images, hosts=(url.split("/")[2],), rate=0)
        with closing(Client(source, allowed_hosts(source))) as client:
            download = client.get(url)
        assert download.fate == (FETCHED if allowed else NOT_ALLOWED)
        assert len(server.requests) == allowed


def test_the_port_is_part_of_the_host(wrong_host: FaultyServer, connect: Connect) -> None:
    client = connect("http://127.0.0.1")
    assert client.get(f"{wrong_host.url}/1").fate == NOT_ALLOWED
