"""One request and what comes of it: its fate, its retries, and transport that breaks."""

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import repeat

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer

from pipeline.errors import UserError
from pipeline.records import Fate, Status
from pipeline.web.client import user_agent
from tests.clients import (
    CHUNKED,
    FETCHED,
    GZIP,
    HEAD,
    PICTURE,
    Connect,
    FakeTime,
    make_client,
)
from tests.faulty_server import FaultyServer, Script, answer, drip, hang, reset, send

# One request and its answer


def test_a_picture_comes_whole(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NURIE_CONTACT", "me@example.org")
    httpserver.expect_request("/1").respond_with_data(PICTURE)
    with closing(make_client(httpserver.url_for(""))) as client:
        download = client.get(httpserver.url_for("/1"))
    assert (download.fate, download.content, download.http_status) == (FETCHED, PICTURE, 200)
    assert download.num_attempts == 1
    headers = httpserver.log[0][0].headers
    assert headers["User-Agent"].startswith("Nurie/")
    assert headers["User-Agent"].endswith(" (+me@example.org)")
    assert headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (404, "missing/http_404"),
        (410, "missing/http_410"),
        (401, "refused/http_401"),
        (403, "refused/http_403"),
        (451, "refused/http_451"),
        *((status, "failed/http") for status in (204, 206, 304, 400, 416, 418, 422)),
    ],
)
def test_what_stands_is_not_asked_for_again(
    status: int, fate: str, fake_time: FakeTime, connect: Connect
) -> None:
    with FaultyServer(answer(status, b"" if status in (204, 304) else b"sorry")) as server:
        client = connect(server.url, fake_time, attempts=5)
        download = client.get(f"{server.url}/1")
        assert (str(download.fate), download.http_status) == (fate, status)
        assert (download.content, download.num_attempts) == (b"", 1)
        assert (len(server.requests), fake_time.slept) == (1, [])


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
def test_what_may_pass_is_asked_for_again_and_then_given_up(
    status: int, fake_time: FakeTime, connect: Connect
) -> None:
    with FaultyServer(answer(status)) as server:
        download = connect(server.url, fake_time, attempts=4).get(f"{server.url}/1")
        assert (str(download.fate), download.http_status) == ("failed/http", status)
        assert (download.num_attempts, len(server.requests)) == (4, 4)
    assert fake_time.slept == [1, 2, 4]
    assert download.seconds == 7


def test_it_may_indeed_pass(httpserver: HTTPServer, fake_time: FakeTime, connect: Connect) -> None:
    httpserver.expect_ordered_request("/1").respond_with_data("busy", 503)
    httpserver.expect_ordered_request("/1").respond_with_data(PICTURE)
    download = connect(httpserver.url_for(""), fake_time, attempts=2).get(httpserver.url_for("/1"))
    assert (download.fate, download.content, download.num_attempts) == (FETCHED, PICTURE, 2)


DATE = "Sun, 06 Nov 1994 08:49:30 GMT"
LATER = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize("headers", [{"Retry_After": "7"}, {"Retry_After": LATER, "Date": DATE}])
def test_retry_after_is_waited_out(
    headers: dict[str, str], fake_time: FakeTime, connect: Connect
) -> None:
    with FaultyServer(answer(429, b"", **headers), answer(200, PICTURE)) as server:
        download = connect(server.url, fake_time, attempts=2).get(f"{server.url}/1")
    assert (download.fate, download.num_attempts) == (FETCHED, 2)
    assert fake_time.slept == [1, 6]  # the back-off, and what is left of the seven seconds


def test_retry_after_holds_the_whole_host_and_no_other(
    fake_time: FakeTime, connect: Connect
) -> None:
    with (
        FaultyServer(answer(503, Retry_After="7"), answer(200, PICTURE)) as busy,
        FaultyServer(answer(200, PICTURE)) as idle,
    ):
        client = connect(busy.url, fake_time, idle.host)
        assert client.get(f"{busy.url}/1").fate == Fate(Status.FAILED, "http")
        assert client.get(f"{idle.url}/2").fate == FETCHED
        assert fake_time.slept == []
        assert client.get(f"{busy.url}/2").fate == FETCHED
    assert fake_time.slept == [7]


# Broken transport

DRIP = b"X-Drip: 1\r\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param(send(), "connection", id="closed without a word"),
        pytest.param(reset(), "connection", id="reset without a word"),
        pytest.param(reset(HEAD[:20]), "connection", id="reset in the head"),
        pytest.param(send(b"SSH-2.0-OpenSSH_9.6\r\n"), "connection", id="another protocol"),
        pytest.param(
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd"),
            "connection",
            id="two lengths",
        ),
        pytest.param(reset(HEAD + b"x" * 500), "truncated", id="reset in the body"),
        pytest.param(send(HEAD), "truncated", id="no body"),
        pytest.param(send(HEAD, b"x" * 999), "truncated", id="short body"),
        pytest.param(send(CHUNKED, b"3e8\r\n", b"x" * 500), "truncated", id="cut in a chunk"),
        pytest.param(send(CHUNKED, b"1\r\nx\r\n"), "truncated", id="cut between chunks"),
        pytest.param(send(CHUNKED, b"many\r\nx\r\n"), "truncated", id="no chunk size"),
        pytest.param(send(GZIP, b"no gzip at all"), "truncated", id="false encoding"),
        pytest.param(hang(), "timeout", id="silence"),
        pytest.param(hang(HEAD + b"x"), "timeout", id="silence in the body"),
        pytest.param(drip(HEAD, repeat(b"x"), 0.03), "timeout", id="dripping body"),
        pytest.param(drip(CHUNKED, repeat(b"1\r\nx\r\n"), 0.03), "timeout", id="dripping chunks"),
        pytest.param(drip(HEAD[:-2], repeat(DRIP, 50), 0.03), "timeout", id="dripping head"),
        pytest.param(drip(b"", repeat(b"H"), 0.03), "timeout", id="dripping status line"),
    ],
)
def test_broken_transport_has_its_reason(script: Script, reason: str, connect: Connect) -> None:
    with FaultyServer(script, answer(200, PICTURE)) as server:
        client = connect(server.url)
        started = time.monotonic()
        broken = client.get(f"{server.url}/1")
        assert time.monotonic() - started < 60  # of what would drip for ever
        assert broken.fate == Fate(Status.FAILED, reason)
        assert broken.content == b""
        assert client.get(f"{server.url}/1").content == PICTURE


@pytest.mark.parametrize("script", [send(), reset(), send(HEAD, b"x" * 999), hang(), hang(HEAD)])
def test_broken_transport_is_tried_again(
    script: Script, connect: Connect, fake_time: FakeTime
) -> None:
    with FaultyServer(script, script, answer(200, PICTURE)) as server:
        download = connect(server.url, fake_time, attempts=3).get(f"{server.url}/1")
    assert (download.fate, download.content, download.num_attempts) == (FETCHED, PICTURE, 3)
    assert fake_time.slept == [1, 2]


@pytest.fixture(scope="module")
def babbler() -> Iterator[tuple[FaultyServer, list[bytes]]]:
    words: list[bytes] = []
    with FaultyServer(lambda sock: send(words[-1])(sock)) as server:
        yield server, words


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", HEAD, CHUNKED, GZIP, HEAD[:-2]]))
@example(b"-2\r\n", CHUNKED)  # a chunk of a negative size
@example(b"-2\r\n", CHUNKED.replace(b"200 OK", b"404 Not Found"))
def test_no_bytes_make_it_raise(
    babbler: tuple[FaultyServer, list[bytes]], noise: bytes, start: bytes
) -> None:
    server, words = babbler
    words.append(start + noise)
    with closing(make_client(server.url, timeout=1.0)) as client:
        download = client.get(f"{server.url}/1")
    assert download.fate == FETCHED or not download.content


def test_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_agent().startswith("Nurie/")
    assert "(" not in user_agent()
    for contact in ("塗り絵", "me\r\nX-Evil: 1"):
        monkeypatch.setenv("NURIE_CONTACT", contact)
        with pytest.raises(UserError, match="NURIE_CONTACT"):
            user_agent()
