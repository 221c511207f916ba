"""The server around the page: who is answered."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from model.app.page import LINE_ART, Studio, build_page
from model.app.server import MAX_UPLOAD, POLICY, Guard, bind, is_loopback, names_of
from pipeline.errors import UserError
from tests.painters import tinting_painter

HOSTS = frozenset({"127.0.0.1:7860", "localhost:7860"})


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"the page"})
    else:
        await send({"type": scope["type"]})


def ask(
    hosts: frozenset[str] | None, kind: str = "http", path: str = "/", **headers: str
) -> list[dict[str, Any]]:
    """Return what the guard sends for one request; in the headers' names _ stands for -."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "headers": pairs}
    asyncio.run(Guard(_app, hosts)(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:7860"}, 200),
        ({"host": "localhost:7860", "origin": "http://localhost:7860"}, 200),
        ({"host": "evil.example:7860"}, 403),  # a name that was made to point to loopback
        ({"host": "127.0.0.1:7861"}, 403),
        ({}, 403),
        ({"host": "127.0.0.1:7860", "origin": "http://evil.example"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "http://localhost:8000"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "null"}, 403),
        ({"host": "127.0.0.1:7860", "sec_fetch_site": "same-origin"}, 200),
        ({"host": "127.0.0.1:7860", "sec_fetch_site": "none"}, 200),  # typed in
        # Pictures, scripts and frames of other pages come without an origin.
        ({"host": "127.0.0.1:7860", "sec_fetch_site": "cross-site"}, 403),
        ({"host": "127.0.0.1:7860", "sec_fetch_site": "same-site"}, 403),  # of another port
        (
            {
                "host": "127.0.0.1:7860",
                "sec_fetch_site": "cross-site",
                "sec_fetch_dest": "document",  # a link that is followed
            },
            200,
        ),
    ],
)
def test_only_the_page_itself_is_answered(headers: dict[str, str], status: int) -> None:
    start, body = ask(HOSTS, **headers)
    assert start["status"] == status
    assert (body["body"] == b"the page") == (status == 200)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/gradio_api/queue/join", {"content_length": "1000"}, 200),
        ("/gradio_api/queue/join", {"content_length": f"{2**20 + 1}"}, 413),
        ("/gradio_api/queue/join", {"transfer_encoding": "chunked"}, 413),
        ("/gradio_api/component_server", {"content_length": f"{MAX_UPLOAD}"}, 413),
        ("/gradio_api/upload", {"content_length": f"{MAX_UPLOAD + 1000}"}, 200),
        ("/gradio_api/upload", {"content_length": f"{2 * MAX_UPLOAD}"}, 413),
    ],
)
def test_no_more_is_taken_than_the_page_sends(
    path: str, headers: dict[str, str], status: int
) -> None:
    assert ask(HOSTS, path=path, host="localhost:7860", **headers)[0]["status"] == status


def test_an_open_server_still_refuses_other_pages() -> None:
    assert ask(None, host="10.0.0.5:7860")[0]["status"] == 200
    assert ask(None, host="10.0.0.5:7860", origin="http://evil.example")[0]["status"] == 403


def test_every_answer_carries_the_policy() -> None:
    headers = dict(ask(HOSTS, host="localhost:7860")[0]["headers"])
    assert headers[b"content-security-policy"] == POLICY.encode()
    assert headers[b"a"] == b"b"
    assert headers[b"referrer-policy"] == b"no-referrer"


def test_the_policy_lets_the_page_load_from_itself_alone() -> None:
    assert {
        "default-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'self'",
        "frame-ancestors 'none'",
    } <= set(POLICY.split("; "))
    assert "://" not in POLICY
    assert "*" not in POLICY


def test_websockets_are_closed_and_the_rest_passes() -> None:
    assert ask(HOSTS, "websocket", host="localhost:7860") == [
        {"type": "websocket.close", "code": 1008}
    ]
    assert ask(HOSTS, "lifespan") == [{"type": "lifespan"}]


def test_loopback_is_known() -> None:
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.8.8.8")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "::", "10.0.0.5", "example.org")] == [False] * 4


@contextmanager
def serving(page: Any) -> Iterator[str]:
    """Serve a page until the end; yields its address."""
    running = bind(page, "127.0.0.1", 0)
    thread = Thread(target=running.server.run, kwargs={"sockets": [running.socket]})
    thread.start()
    try:
        yield running.url
    finally:
        running.server.should_exit = True
        thread.join(120)


def test_a_server_for_this_machine_answers_to_its_own_names_alone() -> None:
    gradio = pytest.importorskip("gradio")
    with serving(gradio.Blocks()) as url:
        assert requests.get(url, timeout=120).status_code == 200
        for name in ("evil.example", f"evil.example:{url.rpartition(':')[2]}"):
            answer = requests.get(url, headers={"Host": name}, timeout=120)
            assert answer.status_code == 403


def test_it_asks_no_host_that_a_client_names(monkeypatch: pytest.MonkeyPatch) -> None:
    gradio = pytest.importorskip("gradio")
    asked: list[object] = []
    look_up = socket.getaddrinfo

    def watched_look_up(host: Any, *rest: Any, **named: Any) -> Any:
        asked.append(host)
        return look_up(None, *rest, **named)

    with serving(gradio.Blocks()) as url:
        monkeypatch.setattr(socket, "getaddrinfo", watched_look_up)
        place = f"{url}/gradio_api/file=http://pictures.example/a.png"
        assert requests.get(place, timeout=120).status_code == 403
    assert "127.0.0.1" in asked
    assert "pictures.example" not in asked


def test_nobody_goes_past_the_queue(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    studio = Studio(tinting_painter(), {}, tmp_path)
    with serving(build_page(studio, [], [])) as url:
        for name in ("run", "api"):
            assert ask_to_color(url, f"{name}/color") == 404


@pytest.mark.slow
def test_no_more_wait_in_the_queue_than_the_memory_holds(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    goes_on = Event()

    def paint(*_: object) -> tuple[None, str]:
        goes_on.wait(120)
        return None, ""

    studio: Any = SimpleNamespace(painter=tinting_painter(), draw_lines={}, color=paint)
    with serving(build_page(studio, [], [])) as url:
        try:
            came = [ask_to_color(url, "queue/join") for _ in range(70)]
        finally:
            goes_on.set()
    assert came[:64] == [200] * 64
    assert came[-1] == 503


def ask_to_color(url: str, place: str) -> int:
    """Ask the server to colour nothing; return the status of its answer."""
    config = requests.get(f"{url}/config", timeout=120).json()
    (number,) = (d["id"] for d in config["dependencies"] if len(d["inputs"]) == 4)
    asked = {"data": [None, None, LINE_ART, 1.0], "fn_index": number, "session_hash": "a"}
    return requests.post(f"{url}/gradio_api/{place}", json=asked, timeout=120).status_code


def test_an_address_that_is_taken_is_named() -> None:
    gradio = pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = f"127.0.0.1 port {port}: cannot listen there: Address already in use. --port 0 "
        with pytest.raises(UserError, match=said):
            bind(gradio.Blocks(), "127.0.0.1", port)
    for host in ("host.invalid", "192.0.2.1"):  # no name, and no address of any machine
        said = f"{host} port 0: cannot listen there: .*--host takes an address of this machine"
        with pytest.raises(UserError, match=said):
            bind(gradio.Blocks(), host, 0)


def test_no_address_is_not_every_address() -> None:
    """``--host "$HOST"`` without the variable would open the page to the whole network."""
    with pytest.raises(UserError, match="--host '': names no address.*0.0.0.0 for all"):
        bind(None, "", 0)


def test_a_name_that_leads_to_loopback_is_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Debian the machine's own name is: other pages' names must not be answered there."""
    gradio = pytest.importorskip("gradio")
    guards = []
    monkeypatch.setattr("model.app.server.Guard", lambda _, names: guards.append(names))
    bind(gradio.Blocks(), "LOCALHOST", 0).socket.close()
    assert guards[0] is not None


@pytest.mark.parametrize("origin", ["http://[", "http://]:7860", "://"])
def test_an_origin_that_is_no_address_is_refused(origin: str) -> None:
    assert ask(HOSTS, host="localhost:7860", origin=origin)[0]["status"] == 403


def test_the_page_answers_to_the_address_that_it_was_given() -> None:
    assert "127.0.0.2:7860" in (names_of("127.0.0.2", 7860) or ())
    assert "[::1]:7860" in (names_of("::1", 7860) or ())
    assert names_of("0.0.0.0", 7860) is None  # whoever reaches it may use it


def test_browsers_leave_out_the_port_that_goes_without_saying() -> None:
    assert {"localhost", "localhost:80", "127.0.0.2"} < (names_of("127.0.0.2", 80) or frozenset())
    assert "localhost" not in (names_of("127.0.0.1", 7860) or ())
