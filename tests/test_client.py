import base64
import gzip
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from urllib3 import HTTPResponse
from werkzeug import Response

from pipeline.client import (
    Client,
    close_shared_clients,
    fate_of_status,
    shared_client,
    user_agent,
)
from pipeline.errors import UserError
from pipeline.hosts import allowed_hosts
from pipeline.pacing import SourceDownError, SourceRefusesError
from pipeline.recipe import SourceSettings
from pipeline.records import Fate, Status
from tests.faulty_server import FaultyServer, Script, answer, drip, hang, reset, send
from tests.test_pacing import FakeTime

Connect = Callable[..., Client]

FETCHED = Fate(Status.FETCHED)
NOT_ALLOWED = Fate(Status.REFUSED, "host_not_allowed")
PICTURE = bytes(range(256)) * 300


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "nurie_contact"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def wrong_host() -> Iterator[FaultyServer]:
    with FaultyServer(answer(200, b"a secret")) as server:
        yield server


def make_client(
    url: str, fake_time: FakeTime | None = None, *hosts: str, share: float = 1.0, **changes: Any
) -> Client:
    """A client for one server, with short time-outs, and jitter that draws its upper end."""
    settings: dict[str, Any] = {"rate": 0, "attempts": 1, "timeout": 0.1, **changes}
    source = SourceSettings(images=f"{url}/{{id}}", hosts=hosts, **settings)
    fake: dict[str, Any] = {}
    if fake_time:
        fake = {"sleep": fake_time.sleep, "clock": fake_time.clock}
    return Client(source, allowed_hosts(source), share, draw=lambda: 1.0, **fake)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """``make_client``, closed at the end."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(closing(make_client(*args, **kwargs)))


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

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GZIP = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
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
def test_no_bytes_make_it_raise(
    babbler: tuple[FaultyServer, list[bytes]], noise: bytes, start: bytes
) -> None:
    server, words = babbler
    words.append(start + noise)
    with closing(make_client(server.url, timeout=1.0)) as client:
        download = client.get(f"{server.url}/1")
    assert download.fate == FETCHED or not download.content


# The size cap


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
        _wait_until(lambda: rest == [b""])  # the connection was dropped
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


# Who may be asked


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
    assert wrong_host.num_connections == 0


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
        client = connect(server.url)
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
            _wait_until(lambda: len(server.requests) >= 1)
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


def _wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
