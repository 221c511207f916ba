"""Hosts that are gone, refuse, or answer nothing of use: waited for, left alone, and given up."""

import socket

import pytest
from pytest_httpserver import HTTPServer

from pipeline.records import Status
from pipeline.web.pacing import SourceDownError, SourceRefusesError
from pipeline.web.responses import fate_of_status
from tests.clients import (
    FETCHED,
    HEAD,
    PICTURE,
    Connect,
    FakeTime,
)
from tests.faulty_server import FaultyServer, Script, answer, send


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
