import errno
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import repeat

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Response

from pipeline.errors import UserError
from pipeline.recipe import SourceSettings
from pipeline.records import Fate, Status
from pipeline.web.answers import fate_of_status
from pipeline.web.client import user_agent
from pipeline.web.pacing import SourceDownError, SourceRefusesError
from pipeline.web.shared import close_shared_clients, shared_client
from tests.clients import (
    CHUNKED,
    FETCHED,
    GZIP,
    HEAD,
    PICTURE,
    Connect,
    FakeTime,
    make_client,
    wait_until,
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
        assert time.monotonic() - started < 5  # four time-outs, and slack for a busy machine
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


@pytest.fixture
def closed_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_where_nobody_listens_the_run_stops_and_no_picture_is_to_blame(
    closed_url: str, fake_time: FakeTime, connect: Connect
) -> None:
    client = connect(closed_url, fake_time, attempts=2)
    for n in range(3):
        with pytest.raises(SourceDownError, match=r"out of reach.*Connection refused"):
            client.get(f"{closed_url}/{n}")
    assert fake_time.slept == [1, 2, 4]  # the hold and, the first time, the back-off within it


def test_a_name_that_nobody_knows_stops_the_run(
    fake_time: FakeTime, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    client = connect("http://pictures.example", fake_time)
    with pytest.raises(SourceDownError, match=r"^pictures\.example.*Name or service not known"):
        for n in range(4):
            client.get(f"http://pictures.example/{n}")


def test_an_outage_is_waited_out_and_costs_no_picture_its_tries(
    fake_time: FakeTime, connect: Connect
) -> None:
    server = FaultyServer(answer(200, PICTURE))
    with server:
        client = connect(server.url, fake_time, attempts=3)
        assert client.get(f"{server.url}/1").fate == FETCHED
    revived: list[FaultyServer] = []

    def revive() -> None:
        if fake_time.now > 1300:
            revived.append(FaultyServer(answer(200, PICTURE), port=server.port))
            revived[0].__enter__()
        else:
            fake_time.meanwhile.append(revive)

    fake_time.meanwhile.append(revive)
    try:
        download = client.get(f"{server.url}/2")
    finally:
        for server in revived:
            server.__exit__(None, None, None)
    assert (download.fate, download.content) == (FETCHED, PICTURE)
    assert download.num_attempts > 8
    assert max(fake_time.slept) == 60


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


# Manners


def test_a_host_that_refuses_everything_is_left_alone(
    httpserver: HTTPServer, connect: Connect
) -> None:
    httpserver.expect_request("/1").respond_with_data("no", 403)
    with FaultyServer(answer(200, PICTURE)) as other:
        client = connect(httpserver.url_for(""), None, other.host, attempts=5)
        for _ in range(4):
            assert client.get(httpserver.url_for("/1")).fate == fate_of_status(403)
        for _ in range(3):
            with pytest.raises(SourceRefusesError, match="refused 5 requests in a row"):
                client.get(httpserver.url_for("/1"))
        assert len(httpserver.log) == 5
        assert client.get(f"{other.url}/1").fate == FETCHED


@pytest.mark.parametrize("script", [answer(503), send(), send(HEAD, b"x" * 999)])
def test_a_host_that_answers_nothing_of_use_stops_the_run(
    script: Script, fake_time: FakeTime, connect: Connect
) -> None:
    with FaultyServer(script) as server:
        client = connect(server.url, fake_time, attempts=9)
        for n in range(22):
            assert client.get(f"{server.url}/{n}").fate.status is Status.FAILED
        with pytest.raises(SourceDownError, match="200 tries in a row"):
            client.get(f"{server.url}/22")
        assert len(server.requests) == 200


def test_the_rate_holds_over_all_threads(connect: Connect) -> None:
    with FaultyServer(answer(200, PICTURE)) as server:
        client = connect(server.url, rate=40, timeout=60.0)
        with ThreadPoolExecutor(8) as pool:
            downloads = list(pool.map(client.get, [f"{server.url}/{n}" for n in range(24)]))
        assert {download.fate for download in downloads} == {FETCHED}
        spread = max(server.arrivals) - min(server.arrivals)
    assert spread > 23 / 40 - 0.1  # an arrival may be noticed late, on a busy machine


def test_processes_share_the_rate_and_start_out_of_step(
    fake_time: FakeTime, connect: Connect
) -> None:
    with FaultyServer(answer(200, PICTURE)) as server:
        client = connect(server.url, fake_time, rate=4, share=0.5)
        for n in range(3):
            client.get(f"{server.url}/{n}")
    assert fake_time.slept == [0.5, 0.5, 0.5]  # the first is the phase, drawn at its longest


def test_retries_and_redirects_take_turns_too(fake_time: FakeTime, connect: Connect) -> None:
    with FaultyServer(answer(302, Location="/2"), answer(500), answer(200, PICTURE)) as server:
        client = connect(server.url, fake_time, rate=0.1, attempts=2)
        assert client.get(f"{server.url}/1").fate == FETCHED
        assert [head.split()[1] for head in server.requests] == ["/1", "/2", "/1"]
    assert fake_time.slept == [10, 1, 9]


def test_connections_are_used_again(connect: Connect) -> None:
    with FaultyServer(answer(200, PICTURE), answer(404, b"sorry"), answer(200, PICTURE)) as server:
        client = connect(server.url, timeout=60.0)  # a time-out would cost a connection
        for n in range(10):
            client.get(f"{server.url}/{n}")
        assert (len(server.requests), server.num_connections) == (10, 1)


def test_many_threads_each_get_their_own(connect: Connect) -> None:
    with HTTPServer(port=0, threaded=True) as server:
        everything = server.expect_request(re.compile(""))
        everything.respond_with_handler(lambda request: Response(request.path * 5000))
        client = connect(server.url_for(""), timeout=60.0)
        paths = [f"/{n:05}" for n in range(200)]
        with ThreadPoolExecutor(8) as pool:
            downloads = list(pool.map(client.get, [server.url_for(path) for path in paths]))
    assert [download.content for download in downloads] == [path.encode() * 5000 for path in paths]


def test_closing_wakes_those_who_wait(connect: Connect) -> None:
    with FaultyServer(answer(503, Retry_After="300")) as server:
        client = connect(server.url, attempts=9)
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(client.get, f"{server.url}/{n}") for n in range(4)]
            wait_until(lambda: len(server.requests) >= 1)
            time.sleep(0.1)
            started = time.monotonic()
            client.close()
            for call in calls:
                with pytest.raises(RuntimeError, match="closed"):
                    call.result(timeout=60)
        assert time.monotonic() - started < 60  # of 300


def test_a_process_keeps_one_client_until_an_error(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/1").respond_with_data("no", 403)
    source = SourceSettings(images=httpserver.url_for("/{id}"), rate=0)
    for _ in range(4):
        with shared_client(source, 1.0) as client:
            client.get(httpserver.url_for("/1"))
    with pytest.raises(SourceRefusesError), shared_client(source, 1.0) as client:
        client.get(httpserver.url_for("/1"))  # the fifth in a row, over all shards
    with shared_client(source, 1.0) as other:
        assert other.get(httpserver.url_for("/1")).fate == fate_of_status(403)
    close_shared_clients()
    with pytest.raises(RuntimeError, match="closed"):
        other.get(httpserver.url_for("/1"))


def test_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_agent().startswith("Nurie/")
    assert "(" not in user_agent()
    for contact in ("塗り絵", "me\r\nX-Evil: 1"):
        monkeypatch.setenv("NURIE_CONTACT", contact)
        with pytest.raises(UserError, match="NURIE_CONTACT"):
            user_agent()


# Stores of fsspec's


def _fall_out_of_reach(monkeypatch: pytest.MonkeyPatch, *errors: Exception | None) -> None:
    """Let a store's library, which has errors of its own, fail with these in turn, then answer."""
    failing = iter(errors)

    def read_range(*_: object) -> bytes:
        if error := next(failing, None):
            raise RuntimeError("cannot connect") from error
        return PICTURE

    monkeypatch.setattr("pipeline.stores.files.read_range", read_range)


def test_a_store_out_of_reach_is_waited_for(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    no_route = OSError(errno.EHOSTUNREACH, "No route to host")
    _fall_out_of_reach(monkeypatch, None, refused, no_route, socket.gaierror(-3, "no name"))
    fake_time = FakeTime()
    client = connect("http://a.org", fake_time, attempts=2)
    for _ in range(2):
        download = client.read_stored("s3://bucket/1.jpg", None, 10**6)
        assert (download.fate, download.content) == (FETCHED, PICTURE)
    assert fake_time.slept == [1, 2, 4]


def test_what_breaks_off_a_store_that_answers_fails_by_itself(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fall_out_of_reach(monkeypatch, ConnectionResetError(), None, ConnectionResetError())
    client = connect("http://a.org", FakeTime(), attempts=1)
    fates = [str(client.read_stored("s3://b/1.jpg", None, 10**6).fate) for _ in range(4)]
    assert fates == ["failed/connection", "fetched", "failed/connection", "fetched"]


def test_a_store_whose_library_is_at_a_loss_is_not_waited_for(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fall_out_of_reach(monkeypatch, ValueError("no such region"))
    with pytest.raises(RuntimeError, match="cannot connect"):
        connect("http://a.org").read_stored("s3://bucket/1.jpg", None, 10**6)
