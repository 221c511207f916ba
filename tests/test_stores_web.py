"""Data sets on web servers: whole, in parts, from servers that fail, refuse or lead astray."""

import re
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from pipeline.errors import UserError
from pipeline.shards.shard import list_shards
from pipeline.share.index import INDEX
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.stores import web
from pipeline.stores.open import open_store
from pipeline.stores.transfer import SPAN
from pipeline.web import pacing
from pipeline.web.serve import serve_folder
from pipeline.work import Work
from tests.calls import call
from tests.faulty_server import FaultyServer, Script, answer, reset, stopped_server
from tests.shares import QUIET, SHARD, load_index, samples_of

SECRET = "hunter2-of-the-tests"


@pytest.fixture
def ranges(httpserver: HTTPServer, made: Path) -> str:
    """Serve the data set with ranges, as real servers do; return its URL."""

    def serve(request: Request) -> Response:
        path = made / "there" / request.path.removeprefix("/tiny/")
        if not path.is_file():
            return Response("", 404)
        data = path.read_bytes()
        response = Response(data)
        return response.make_conditional(request, accept_ranges=True, complete_length=len(data))

    httpserver.expect_request(re.compile("/tiny/")).respond_with_handler(serve)
    return httpserver.url_for("/tiny").replace("localhost", "127.0.0.1")


def test_a_web_server_is_pulled_from_in_parts(
    made: Path, tmp_path: Path, ranges: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "SPAN", 9000)
    work = Work(tmp_path / "again")
    pull(ranges, work, QUIET, split="test")
    assert list_shards(work.samples_dir) == ["test-000000"]
    pull(ranges, work, QUIET)
    assert samples_of(work) == samples_of(Work(made / "work"))


def test_a_web_server_without_ranges_will_do(made: Path, tmp_path: Path) -> None:
    with serve_folder(made / "there") as url:
        pulled = call("pull", url, tmp_path / "again")
        assert pulled.exit_code == 0, pulled.output
        assert samples_of(Work(tmp_path / "again")) == samples_of(Work(made / "work"))
        for place in (f"{url}/nothing", url.replace("http://", "http://me:hunter2@")):
            refused = call("pull", place, tmp_path / "third").exception
            assert isinstance(refused, UserError)
            assert "hunter2" not in str(refused)
        with pytest.raises(UserError, match="only pulled from"):
            push(Work(made / "work"), url, QUIET)


def test_a_server_without_ranges_is_not_asked_for_what_memory_cannot_hold(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_MAX_WHOLE", 5000)
    with (
        serve_folder(made / "there") as url,
        pytest.raises(UserError, match="sends whole files only, and this one is too large"),
    ):
        pull(url, Work(tmp_path / "again"), QUIET)


def test_a_server_that_drops_connections_is_asked_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = load_index(made / "there").by_name[f"samples/{SHARD}.tar"]
    data = (made / "there" / file.name).read_bytes()
    monkeypatch.setattr(web, "SPAN", 1 + len(data) // 3)
    span = range(1 + len(data) // 3)
    part = f"HTTP/1.1 206 Partial\r\nContent-Length: {len(span)}\r\n\r\n".encode()
    scripts: list[Script] = []
    for start in range(0, len(data), len(span)):
        block = data[start : start + len(span)]
        scripts += [reset(part + block[:100]), answer(502), answer(206, block)]
    with FaultyServer(*scripts) as server:
        store = open_store(server.url)
        store._client._draw = lambda: 0.0  # type: ignore[attr-defined]
        with (tmp_path / "x").open("wb", 0) as out:
            store.download(file.name, out, file.size, lambda num_bytes: None)
        assert (tmp_path / "x").read_bytes() == data
        assert len(server.requests) == len(scripts)
        starts = [
            line for head in server.requests for line in head.splitlines() if "Range:" in line
        ]
        assert starts[-1] == f"Range: bytes={2 * len(span)}-{len(data) - 1}"


def test_a_server_may_send_the_whole_file_midway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where only some of the machines behind a name serve ranges."""
    data = bytes(range(90))
    monkeypatch.setattr(web, "SPAN", 40)
    with FaultyServer(answer(206, data[:40]), answer(200, data)) as server:
        with (tmp_path / "x").open("wb", 0) as out:
            open_store(server.url).download("x", out, len(data), lambda num_bytes: None)
        assert (tmp_path / "x").read_bytes() == data
        assert len(server.requests) == 3


@pytest.mark.parametrize("start", [0, 50])
def test_a_file_that_has_ended_is_asked_for_no_further(tmp_path: Path, start: int) -> None:
    """One that a server has now, or ever had, shorter than its index says."""
    with FaultyServer(answer(416)) as server:
        store = open_store(server.url)
        with (tmp_path / "x").open("wb", 0) as out:
            out.write(b"x" * start)
            store.download("x", out, 100 * SPAN, lambda num_bytes: None)
            assert out.tell() == start
        assert len(server.requests) == 1


def test_no_redirect_leads_to_another_host(made: Path, tmp_path: Path) -> None:
    with serve_folder(made / "there") as inner, FaultyServer() as outer:
        outer.scripts = [answer(302, Location=f"{inner}/{INDEX}".replace("127.0.0.1", "localhost"))]
        with pytest.raises(UserError, match="leads elsewhere .* give the URL of the place"):
            pull(outer.url, Work(tmp_path / "again"), QUIET)


def test_only_the_host_that_was_named_may_be_local(tmp_path: Path) -> None:
    with FaultyServer(answer(302, Location="http://169.254.169.254/latest/meta-data")) as server:
        with pytest.raises(UserError, match="leads elsewhere .* give the URL of the place"):
            pull(server.url, Work(tmp_path / "again"), QUIET)
        assert len(server.requests) == 1


def test_a_server_out_of_reach_is_said_by_the_option_that_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "_MAX_MISSES", 1)
    server = stopped_server()
    train = ["train", "white-background-256", "--work", tmp_path / "work"]
    for command, named_in in (
        (["pull", server.url, tmp_path / "again"], "URL"),
        ([*train, "--shards", server.url], "--shards"),
    ):
        said = str(call(*command).exception)
        assert said.startswith(
            f"{server.host} is out of reach, again and again: Connection refused"
        )
        assert f"Look at the network and at the host's name ({named_in}), then run again" in said
    for command, named_in in (
        (["pull", "http:///x", tmp_path / "again"], "URL"),
        ([*train, "--shards", "http:///x"], "--shards"),
    ):
        assert str(call(*command).exception).startswith(f"{named_in} 'http:///x': no host can be")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("status", "authorization", "advice"),
    [
        (401, "", "If the data set is not for everyone, set NURIE_AUTHORIZATION to the value"),
        (403, f"Bearer {SECRET}", "It does not accept NURIE_AUTHORIZATION for this: look at its"),
    ],
)
def test_a_server_that_refuses_is_said_with_what_to_do_about_it(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    authorization: str,
    advice: str,
) -> None:
    monkeypatch.setenv("NURIE_AUTHORIZATION", authorization)
    index = answer(200, (made / "there" / INDEX).read_bytes())
    train = ["train", "white-background-256", "--work", tmp_path / "work"]
    for command in (["pull"], [*train, "--shards"]):
        end = [tmp_path / "again"] if command == ["pull"] else []
        with FaultyServer(answer(status)) as server:
            said = str(call(*command, server.url, *end).exception)
            assert said.startswith(f"{server.url}/{INDEX}: refused (HTTP {status}). {advice}")
    with FaultyServer(index, answer(status)) as server:  # not one file of it is let out
        said = str(call(*train, "--shards", server.url).exception)
        assert advice in said
        assert SECRET not in said


def test_a_server_that_refuses_again_and_again_is_left_alone_with_the_same_advice() -> None:
    with FaultyServer(answer(403)) as server:
        store = open_store(server.url)
        for _ in range(4):
            with pytest.raises(UserError, match=r"refused \(HTTP 403\)\. If the data set is not"):
                store.read("x", 9)
        for _ in range(2):
            with pytest.raises(UserError, match=r"\(HTTP 403\), so .* alone\. If the data set"):
                store.read("x", 9)
        assert len(server.requests) == 5
        store.close()


def test_authorization_comes_from_the_environment_and_stays_there(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NURIE_AUTHORIZATION", f"Bearer {SECRET}")
    with FaultyServer(answer(404)) as server:
        told = call("--debug", "pull", server.url, tmp_path / "again")
        assert f"Authorization: Bearer {SECRET}" in server.requests[0]
    assert SECRET not in told.output + str(told.exception)
    with serve_folder(made / "there") as url:
        call("pull", url, tmp_path / "again")
    for path in (tmp_path / "again").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
