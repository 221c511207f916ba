"""How much a client takes from a server: the size cap, and ranges of bytes."""

import gzip
import random
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from requests import PreparedRequest, Response
from urllib3 import HTTPResponse

from pipeline.errors import UserError
from pipeline.web.transport import Transport
from tests.clients import CHUNKED, FETCHED, GZIP, PICTURE, Connect, wait_until
from tests.faulty_server import FaultyServer, Script, answer, send


def test_exactly_the_cap_is_let_through(connect: Connect) -> None:
    with FaultyServer(answer(200, PICTURE)) as server:
        client = connect(server.url, max_bytes=len(PICTURE))
        assert client.get(f"{server.url}/1").content == PICTURE


def test_too_long_by_its_own_account_is_not_read(connect: Connect) -> None:
    rest: list[bytes] = []

    def announce(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 76801\r\n\r\n")
        rest.append(sock.recv(1))

    with FaultyServer(announce) as server:
        client = connect(server.url, max_bytes=len(PICTURE), attempts=5, timeout=120.0)
        download = client.get(f"{server.url}/1")
        assert (str(download.fate), download.content) == ("rejected/too_many_bytes", b"")
        assert download.seconds < 60
        wait_until(lambda: rest == [b""])  # the connection was dropped
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("head", "part"),
    [
        pytest.param(CHUNKED, b"3e8\r\n" + b"x" * 1000 + b"\r\n", id="chunks"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000, id="no length"),
        pytest.param(GZIP, gzip.compress(bytes(10**7)), id="bomb"),
    ],
)
def test_too_long_by_count_is_dropped(head: bytes, part: bytes, connect: Connect) -> None:
    done = threading.Event()

    def pour(sock: socket.socket) -> None:
        try:
            sock.sendall(head)
            while True:
                sock.sendall(part)
        finally:
            done.set()

    with FaultyServer(pour) as server:
        download = connect(server.url, max_bytes=100_000).get(f"{server.url}/1")
        assert (str(download.fate), download.content) == ("rejected/too_many_bytes", b"")
        assert done.wait(60)  # the connection was dropped


@pytest.mark.parametrize(
    ("head", "part", "reason"),
    [
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", "connection", id="go on"),
        pytest.param(CHUNKED + b"1\r\nx\r\n0\r\n", b"X: y\r\n", "truncated", id="trailers"),
        pytest.param(GZIP, gzip.compress(b""), "truncated", id="empty members"),
    ],
)
def test_what_comes_to_nothing_is_not_read_without_an_end(
    head: bytes, part: bytes, reason: str, connect: Connect
) -> None:
    done = threading.Event()

    def pour(sock: socket.socket) -> None:
        try:
            sock.sendall(head)
            while not done.is_set():
                sock.sendall(1000 * part)
        finally:
            done.set()

    with FaultyServer(pour) as server, ThreadPoolExecutor(1) as pool:
        client = connect(server.url, max_bytes=100_000)
        try:
            download = pool.submit(client.get, f"{server.url}/1").result(60)
        finally:
            done.set()
    assert str(download.fate) == f"failed/{reason}"


def test_a_compressed_body_is_unpacked_in_small_pieces(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The length that is announced is of the compressed bytes: a bomb's is small."""
    asked, stream = [], HTTPResponse.stream

    def watch(response: HTTPResponse, amt: int, **options: bool) -> Iterator[bytes]:
        asked.append(amt)
        return stream(response, amt, **options)

    monkeypatch.setattr(HTTPResponse, "stream", watch)
    body = gzip.compress(random.Random(0).randbytes(200_000))
    head = GZIP.replace(b"Connection", b"Content-Length: %d\r\nConnection" % len(body))
    with FaultyServer(send(head, body)) as server:
        download = connect(server.url).get(f"{server.url}/1")
    assert download.content == gzip.decompress(body)
    assert asked
    assert max(asked) <= 2**16


def test_layers_of_nothing_are_not_unpacked(connect: Connect) -> None:
    """With three, an answer of 1 kB held ten million empty members, and took 22 seconds."""
    body = gzip.compress(100_000 * gzip.compress(b""))
    head = GZIP.replace(b"gzip", b"gzip, gzip")
    with FaultyServer(send(head, body)) as server:
        assert str(connect(server.url).get(f"{server.url}/1").fate) == "failed/truncated"


@pytest.mark.parametrize("script", [answer(200), send(CHUNKED, b"0\r\n\r\n"), send(GZIP)])
def test_nothing_is_no_picture(script: Script, connect: Connect) -> None:
    with FaultyServer(script) as server:
        download = connect(server.url, attempts=3).get(f"{server.url}/1")
        assert (str(download.fate), download.num_attempts) == ("rejected/empty", 1)


# Ranges

RANGE = b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n\r\n"


def test_a_range_of_bytes_comes_and_no_more(connect: Connect) -> None:
    with FaultyServer(answer(206, PICTURE[10:30])) as server:
        download = connect(server.url, max_bytes=5).get(f"{server.url}/1", span=range(10, 30))
        assert (download.fate, download.content) == (FETCHED, PICTURE[10:30])
        assert download.http_status == 206
        assert "\r\nRange: bytes=10-29\r\n" in server.requests[0]


def test_of_a_range_no_more_is_wanted_than_it_is_long(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, send_request = [], Transport.send

    def watch(wire: Transport, request: PreparedRequest, max_bytes: int) -> Response:
        wanted.append(max_bytes)
        return send_request(wire, request, max_bytes)

    monkeypatch.setattr(Transport, "send", watch)
    with FaultyServer(answer(206, PICTURE[10:30])) as server:
        connect(server.url, max_bytes=10**9).get(f"{server.url}/1", span=range(10, 30))
    assert wanted == [20]


@pytest.mark.parametrize(
    "script",
    [
        answer(206, b"x" * 19),
        answer(206, b"x" * 21),
        answer(206),
        send(RANGE % 20, b"x" * 19),
        send(b"HTTP/1.1 206 Partial Content\r\n\r\n", b"x" * 10**6),
    ],
)
def test_another_range_than_was_asked_for_is_cut_off(script: Script, connect: Connect) -> None:
    with FaultyServer(script) as server:
        download = connect(server.url).get(f"{server.url}/1", span=range(10, 30))
        assert (str(download.fate), download.content) == ("failed/truncated", b"")


def test_a_range_past_the_end_stands(connect: Connect) -> None:
    with FaultyServer(answer(416)) as server:
        download = connect(server.url, attempts=3).get(f"{server.url}/1", span=range(10, 30))
        assert (str(download.fate), download.http_status) == ("failed/http", 416)
        assert download.num_attempts == 1


def test_a_host_that_serves_no_ranges_is_the_users_error(connect: Connect) -> None:
    with (
        FaultyServer(answer(200, PICTURE)) as server,
        pytest.raises(UserError, match=rf"^{server.host} sends whole files only"),
    ):
        connect(server.url).get(f"{server.url}/1", span=range(10, 30))


def test_a_body_in_tiny_chunks_takes_no_more_memory_than_its_bytes(connect: Connect) -> None:
    body = 40_000 * b"2\r\nxy\r\n" + b"0\r\n\r\n"
    with FaultyServer(send(CHUNKED, body)) as server:
        client = connect(server.url, max_bytes=80_000)
        tracemalloc.start()
        try:
            download = client.get(f"{server.url}/1")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert download.content == 40_000 * b"xy"
    assert peak < 1e6
