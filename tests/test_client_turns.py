"""Many threads and processes on one host: the rate, the connections, and who closes them."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from pipeline.recipe import SourceSettings
from pipeline.web.pacing import SourceRefusesError
from pipeline.web.responses import fate_of_status
from pipeline.web.shared import close_shared_clients, shared_client
from tests.clients import (
    FETCHED,
    PICTURE,
    Connect,
    FakeTime,
    wait_until,
)
from tests.faulty_server import FaultyServer, answer


def test_the_rate_holds_over_all_threads(connect: Connect) -> None:
    with FaultyServer(answer(200, PICTURE)) as server:
        client = connect(server.url, rate=20, timeout=60.0)
        with ThreadPoolExecutor(8) as pool:
            downloads = list(pool.map(client.get, [f"{server.url}/{n}" for n in range(21)]))
        assert {download.fate for download in downloads} == {FETCHED}
        spread = max(server.arrivals) - min(server.arrivals)
    assert spread > 0.5  # half of what it takes: an arrival may be noticed late, on a busy machine


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
