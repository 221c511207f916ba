"""The whole of fetch, from servers with trouble, tars with an index, and every store."""

import re
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import fsspec
import orjson
import pytest
from pytest_httpserver import HTTPServer
from rich.console import Console
from werkzeug import Request, Response

from pipeline import run
from pipeline.errors import UserError
from pipeline.executor import Summary
from pipeline.hold import Part
from pipeline.maintenance.status import read_status
from pipeline.recipe import SplitSettings
from pipeline.run import fetch, prepare
from pipeline.schema import RAW
from pipeline.shards.shard import list_shards, read_shard
from pipeline.stages.fetch import FetchStage
from pipeline.web import pacing
from pipeline.web.pacing import SourceDownError, SourceRefusesError
from pipeline.web.serve import serve_folder
from pipeline.work import Work
from tests.faulty_server import FaultyServer, Script, answer, drip, hang, reset, send
from tests.file_server import HUB_REPO, point_stores_at, serve_files
from tests.indexed_tars import write_tars
from tests.metadata_records import lines_of, make_post, new_record
from tests.pictures import draw_picture, encoded
from tests.sources import PICTURES, POSTS, originals, recipe_of

QUIET = Console(quiet=True)
PICTURE = encoded(draw_picture(1, 90, 90), "jpeg")


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Forty posts as JSON lines."""
    path = tmp_path / "posts.json"
    path.write_bytes(lines_of([new_record(make_post(i, "solo")) for i in range(1, 41)]))
    return path


def test_one_client_serves_shard_after_shard(lines: Path, tmp_path: Path) -> None:
    work = Work(tmp_path / "work")
    with FaultyServer(answer(200, PICTURE)) as server:
        recipe = recipe_of(lines, f"{server.url}/{{id}}.jpg", connections=2)
        assert fetch(recipe, work, QUIET).fates == {"fetched": 40}
        assert len(list_shards(work.raw_dir)) > 3
        assert server.num_connections <= 2


@pytest.mark.parametrize(("rate", "num_workers"), [(1.0, 1), (120.0, 3), (0.0, 8)])
def test_no_more_workers_divide_a_pace_than_it_needs(
    rate: float, num_workers: int, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three shards and eight workers five would have nothing to do, and five eighths of it."""
    stages: list[tuple[FetchStage, int]] = []

    def take_down(stage: FetchStage, sizes: object, num_workers: int, *_: object) -> Summary:
        stages.append((stage, num_workers))
        return Summary()

    monkeypatch.setattr(run, "run_stage", take_down)
    recipe = recipe_of(lines, "http://127.0.0.1:9/{id}.jpg", rate=rate)
    fetch(recipe, Work(tmp_path / "work"), QUIET, num_workers=8)
    fetch(recipe, Work(tmp_path / "work"), QUIET, num_workers=8, part=Part(1, 2))
    assert [(stage.num_workers, num) for stage, num in stages] == [
        (num_workers, num_workers),
        (2 * min(num_workers, 4), min(num_workers, 4)),
    ]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_refusals_are_counted_from_shard_to_shard(
    lines: Path, tmp_path: Path, num_workers: int
) -> None:
    recipe = recipe_of(lines, "", connections=num_workers)
    recipe = replace(recipe, split=SplitSettings(shard_size=2))
    with FaultyServer(answer(403)) as server:
        source = replace(recipe.source, images=f"{server.url}/{{id}}.jpg")
        with pytest.raises(SourceRefusesError, match="refused 5 requests in a row"):
            fetch(
                replace(recipe, source=source),
                Work(tmp_path / "work"),
                QUIET,
                num_workers=num_workers,
            )
        assert len(server.requests) <= 5 * num_workers + 1


def test_a_dead_host_stops_the_run_and_the_next_run_goes_on(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "_MAX_MISSES", 1)
    work = Work(tmp_path / "work")
    server = FaultyServer(answer(200, PICTURE))
    recipe = recipe_of(lines, f"{server.url}/{{id}}.jpg")
    with server:
        pass
    why = rf"^{server.host} is out of reach, .* the host's name \(source.images, source.hosts\)"
    with pytest.raises(SourceDownError, match=why):
        fetch(recipe, work, QUIET)
    with FaultyServer(answer(200, PICTURE), port=server.port):
        assert fetch(recipe, work, QUIET).fates == {"fetched": 40}


def test_every_trouble_of_a_server_ends_in_its_fate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "_MAX_BACKOFF", 0)
    good, head = answer(200, PICTURE), b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
    scripts: dict[int, tuple[list[Script], str]] = {
        1: ([good], "fetched"),
        2: ([answer(429, Retry_After="0"), good], "fetched"),
        3: ([answer(503), good], "fetched"),
        4: ([reset(), good], "fetched"),
        5: ([send(head, PICTURE), good], "fetched"),  # shorter than it says
        6: ([drip(head, repeat(b"x"), 0.03), good], "fetched"),
        7: ([hang(), hang()], "failed/timeout"),
        8: ([answer(500), answer(502)], "failed/http"),
        9: ([send(head, PICTURE)] * 2, "failed/truncated"),
        10: ([answer(200, b"<html>please wait</html>")], "rejected/not_an_image"),
        11: ([answer(200)], "rejected/empty"),
        12: ([answer(200, b"x" * 20_001)], "rejected/too_many_bytes"),
        13: ([answer(302, Location="http://127.0.0.2:9/x")], "refused/host_not_allowed"),
        14: ([answer(404)], "missing/http_404"),
        15: ([answer(410)], "missing/http_410"),
        16: ([answer(451)], "refused/http_451"),
        17: ([answer(403)], "refused/http_403"),
        18: ([answer(200, encoded(draw_picture(1, 200, 200)))], "rejected/too_many_pixels"),
    }
    metadata = tmp_path / "posts.json"
    metadata.write_bytes(lines_of([new_record(make_post(i, "solo")) for i in scripts]))
    asked: Counter[int] = Counter()

    def reply(sock: socket.socket) -> None:
        post_id = int(server.requests[-1].split()[1].removeprefix("/"))
        replies = scripts[post_id][0]
        asked[post_id] += 1
        replies[min(asked[post_id], len(replies)) - 1](sock)

    work = Work(tmp_path / "work")
    with FaultyServer(reply) as server:
        settings = {"attempts": 2, "timeout": 0.1, "max_bytes": 20_000, "max_pixels": 10_000}
        recipe = recipe_of(metadata, f"{server.url}/{{id}}", connections=1, **settings)
        fetch(recipe, work, QUIET)
        assert asked == {post_id: len(replies) for post_id, (replies, _) in scripts.items()}
        before = asked.copy()
        mended = {post_id for post_id, (_, fate) in scripts.items() if fate.startswith("failed")}
        assert fates_of(work) == {post_id: fate for post_id, (_, fate) in scripts.items()}
        for post_id in mended:
            scripts[post_id] = ([good], "fetched")
        fetch(recipe, work, QUIET, retry_failed=True)
        assert asked - before == dict.fromkeys(mended | {13}, 1)  # the host might be allowed now
    assert fates_of(work) == {post_id: fate for post_id, (_, fate) in scripts.items()}
    assert read_status(work).adds_up


def fates_of(work: Work) -> dict[int, str]:
    tables = [read_shard(work.raw_dir, name, RAW)[0] for name in list_shards(work.raw_dir)]
    rows = [row for table in tables for row in table.to_pylist()]
    return {row["post_id"]: f"{row['status']}/{row['reason']}".strip("/") for row in rows}


# Tars with an index, and stores


TREES = {
    "path": "{folder}",
    "file": "file://{folder}",
    "memory": "memory://sources-test",
    "http": "{url}/files",
    "s3": "s3://files",
    "hf": f"hf://datasets/{HUB_REPO}",
}


@pytest.fixture(params=TREES)
def tree(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    httpserver: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """A place of each kind with the pictures in tars, and also by themselves."""
    folder = tmp_path / "tars"
    files = write_tars(folder, [(n, "jpg", data) for n, data in PICTURES.items()])
    files |= {f"{n}.jpg": data for n, data in PICTURES.items()}
    for n, data in PICTURES.items():
        (folder / f"{n}.jpg").write_bytes(data)
    serve_files(httpserver, files)
    point_stores_at(httpserver, monkeypatch)
    memory = fsspec.filesystem("memory")
    for name, data in files.items():
        memory.pipe_file(f"memory://sources-test/{name}", data)
    yield TREES[request.param].format(folder=folder, url=httpserver.url_for("").rstrip("/"))
    memory.rm("memory://sources-test", recursive=True)


@pytest.fixture
def few_lines(tmp_path: Path) -> Path:
    """The six posts of the tars, and one that is not in them."""
    path = tmp_path / "few.json"
    path.write_bytes(lines_of([new_record(post) for post in [*POSTS, make_post(3001, "solo")]]))
    return path


def test_pictures_come_out_of_indexed_tars_wherever_they_lie(
    tree: str, few_lines: Path, tmp_path: Path, httpserver: HTTPServer
) -> None:
    work = Work(tmp_path / "work")
    recipe = recipe_of(few_lines, f"{tree}/{{bucket}}.tar#{{id}}.{{ext}}")
    assert fetch(recipe, work, QUIET).fates == {"fetched": 6, "missing/no_file": 1}
    assert originals(work) == PICTURES
    asked = [request for request, _ in httpserver.log if request.path.endswith(".json")]
    assert len(asked) in (0, 3)  # each index once, over all shards
    for request, _ in httpserver.log:
        if request.path.endswith(".tar"):
            first, last = request.headers["Range"].removeprefix("bytes=").split("-")
            assert int(last) - int(first) < 512 + max(map(len, PICTURES.values()))
    assert not work.index_dir.exists()


def test_pictures_come_from_every_store(tree: str, few_lines: Path, tmp_path: Path) -> None:
    work = Work(tmp_path / "work")
    fates = fetch(recipe_of(few_lines, f"{tree}/{{id}}.{{ext}}"), work, QUIET).fates
    missing = "missing/http_404" if tree.startswith("http") else "missing/no_file"
    assert fates == {"fetched": 6, missing: 1}
    assert originals(work) == PICTURES


def test_a_dead_store_stops_the_run_and_the_next_run_goes_on(
    few_lines: Path, tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "_MAX_MISSES", 1)
    work, recipe = Work(tmp_path / "work"), recipe_of(few_lines, f"{TREES['hf']}/{{id}}.jpg")
    serve_files(httpserver, {f"{n}.jpg": data for n, data in PICTURES.items()})
    point_stores_at(httpserver, monkeypatch)
    with FaultyServer(hang()) as server:
        pass
    with monkeypatch.context() as dead:
        dead.setitem(fsspec.config.conf, "hf", {"endpoint": server.url, "token": False})
        with pytest.raises(SourceDownError, match=r"^hf://datasets is out of reach, .*refused"):
            fetch(recipe, work, QUIET)
    assert not list_shards(work.raw_dir)
    assert fetch(recipe, work, QUIET).fates == {"fetched": 6, "missing/no_file": 1}


def test_a_wrong_index_fails_its_posts_and_a_mended_one_mends_them(
    few_lines: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tars"
    write_tars(folder, [(n, "jpg", data) for n, data in PICTURES.items()])
    good = (folder / "0001.json").read_bytes()
    index = orjson.loads(good)
    files = index["files"]
    files["1.jpg"], files["1001.jpg"] = files["1001.jpg"], files["1.jpg"]
    (folder / "0001.json").write_bytes(orjson.dumps(index))
    recipe = recipe_of(few_lines, f"{folder}/{{bucket}}.tar#{{id}}.jpg")
    work = Work(tmp_path / "work")
    assert fetch(recipe, work, QUIET).fates["failed/wrong_index"] == 2
    (folder / "0001.json").write_bytes(good)
    fates = fetch(recipe, work, QUIET, retry_failed=True).fates
    assert fates == {"fetched": 6, "missing/no_file": 1}
    assert originals(work) == PICTURES


def test_workers_share_the_indexes(few_lines: Path, tmp_path: Path, httpserver: HTTPServer) -> None:
    files = write_tars(tmp_path / "tars", [(n, "jpg", data) for n, data in PICTURES.items()])
    serve_files(httpserver, files)
    images = httpserver.url_for("/files/{bucket}.tar#{id}.jpg")
    recipe = replace(recipe_of(few_lines, images), split=SplitSettings(shard_size=1))
    work = Work(tmp_path / "work")
    assert fetch(recipe, work, QUIET, num_workers=2).fates["fetched"] == 6
    assert originals(work) == PICTURES
    asked = [request.path for request, _ in httpserver.log if request.path.endswith(".json")]
    assert all(asked.count(path) <= 2 for path in set(asked))  # both may need one at once


def test_indexes_that_ranks_shared_go_once_all_is_fetched(
    few_lines: Path, tmp_path: Path, httpserver: HTTPServer
) -> None:
    files = write_tars(tmp_path / "tars", [(n, "jpg", data) for n, data in PICTURES.items()])
    serve_files(httpserver, files)
    images = httpserver.url_for("/files/{bucket}.tar#{id}.jpg")
    recipe = replace(recipe_of(few_lines, images), split=SplitSettings(shard_size=1))
    work = Work(tmp_path / "work")
    for rank in range(2):
        fetch(recipe, work, QUIET, part=Part(rank, 2))
        assert list(work.index_dir.iterdir())
        if not rank:  # the others' shards are still to come
            prepare(recipe, work, QUIET)
    prepare(recipe, work, QUIET)
    assert not work.index_dir.exists()


@pytest.mark.parametrize("is_allowed", [True, False])
def test_ranges_follow_redirects_to_allowed_hosts_only(
    is_allowed: bool, few_lines: Path, tmp_path: Path, httpserver: HTTPServer
) -> None:
    files = write_tars(tmp_path / "tars", [(n, "jpg", data) for n, data in PICTURES.items()])
    with HTTPServer(host="127.0.0.1", port=0) as cdn:
        serve_files(cdn, files)

        def lead_on(request: Request) -> Response:
            return Response(status=302, headers={"Location": cdn.url_for(request.path)})

        httpserver.expect_request(re.compile("/files/")).respond_with_handler(lead_on)
        images = httpserver.url_for("/files/{bucket}.tar#{id}.jpg")
        hosts = (f"127.0.0.1:{cdn.port}",) if is_allowed else ()
        fates = fetch(recipe_of(few_lines, images, hosts=hosts), Work(tmp_path / "w"), QUIET).fates
        assert fates == (
            {"fetched": 6, "missing/no_file": 1} if is_allowed else {"refused/host_not_allowed": 7}
        )
        assert bool(cdn.log) is is_allowed


def test_a_server_without_ranges_stops_the_run(few_lines: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    write_tars(folder, [(n, "jpg", data) for n, data in PICTURES.items()])
    with serve_folder(folder) as url, pytest.raises(UserError, match="sends whole files only"):
        fetch(recipe_of(few_lines, f"{url}/{{bucket}}.tar#{{id}}.jpg"), Work(tmp_path / "w"), QUIET)
