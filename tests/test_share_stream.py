"""Training from afar: the same samples in the same order as from disk, and each byte once."""

import dataclasses
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import orjson
import pytest
import torch
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from model.checkpoint import load_checkpoint
from model.config import TrainConfig
from model.data.epochs import iterate_steps
from model.data.samples import Batch, Samples
from model.ranks import Ranks
from model.training.train import train as run_training
from pipeline.errors import UserError
from pipeline.schema import SAMPLES
from pipeline.serve import serve_folder
from pipeline.shards.rows import read_rows
from pipeline.shards.shard import list_shards, rows_path, tar_path
from pipeline.share.index import INDEX, PENDING
from pipeline.share.push import push
from pipeline.share.stream import RemoteShards
from pipeline.work import Work
from tests.calls import call
from tests.file_server import forget_stores
from tests.files import size_now
from tests.model_checkpoints import CONFIG as SMALL
from tests.s3_server import BUCKET, lead_to, serve_s3
from tests.shares import QUIET, forge_files, forge_index, forge_tar, load_index, make_prepared
from tests.stand_ins import Thumbnails

CONFIG = TrainConfig(batch_size=4, epochs=2, decode_threads=2)
BIG = 10**9


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a work folder, eight shards to train on, and what was pushed of it."""
    root = tmp_path_factory.mktemp("streamed")
    push(make_prepared(root, 60), str(root / "there"), QUIET)
    return root


class Server:
    """Serves a folder with ranges; counts the bytes and requests of each tar."""

    def __init__(self, server: HTTPServer, directory: Path) -> None:
        self.url = server.url_for("/set").replace("localhost", "127.0.0.1")
        self.directory = directory
        self.num_bytes: Counter[str] = Counter()
        self.requests: list[tuple[str, range]] = []
        self.spoil: Callable[[bytes], bytes] = bytes
        self.watch: Callable[[], object] = lambda: None
        self.num_dropped = 0
        self.drops_every = 0
        self._lock = threading.Lock()
        server.expect_request(re.compile("/set/")).respond_with_handler(self._serve)

    def _serve(self, request: Request) -> Response:
        path = self.directory / request.path.removeprefix("/set/")
        if not path.is_file():
            return Response("", 404)
        data = path.read_bytes()
        whole = Response(data)
        response = whole.make_conditional(request, accept_ranges=True, complete_length=len(data))
        if path.suffix != ".tar":
            return response
        wanted = request.range.range_for_length(len(data)) if request.range else (0, len(data))
        assert wanted is not None
        with self._lock:
            self.requests.append((path.stem, range(*wanted)))
            self.watch()
            num_requests = sum(name == path.stem for name, _ in self.requests)
            if self.drops_every and num_requests % self.drops_every == 0:
                self.num_dropped += 1
                headers = {"Content-Length": str(wanted[1] - wanted[0])}
                cut = data[wanted[0] : wanted[0] + (wanted[1] - wanted[0]) // 2]
                return Response(iter([cut]), 206, headers)
            self.num_bytes[path.stem] += wanted[1] - wanted[0]
        return Response(self.spoil(response.get_data()), response.status, response.headers)


@pytest.fixture
def server(httpserver: HTTPServer, made: Path) -> Server:
    return Server(httpserver, made / "there")


@pytest.fixture
def local(made: Path) -> Iterator[Samples]:
    with Samples(made / "work" / "samples", "train") as samples:
        yield samples


@contextmanager
def streaming(url: str, cache: Path, budget: int) -> Iterator[Samples]:
    with closing(RemoteShards(url, cache, budget)) as shards, Samples(shards, "train") as samples:
        yield samples


def steps_of(samples: Samples, config: TrainConfig, position: int = 0) -> list[Batch]:
    return [
        batch for _, _, batch, _ in iterate_steps(samples, config, Ranks(), 0, position, pin=False)
    ]


def assert_same(one: Samples, other: Samples, config: TrainConfig, position: int = 0) -> None:
    """Both give the same batches, from a place in the first epoch on."""
    for a, b in zip(*(steps_of(s, config, position) for s in (one, other)), strict=True):
        assert np.array_equal(a.post_ids, b.post_ids)
        for name in ("color", "sketch", "reference"):
            assert torch.equal(getattr(a, name), getattr(b, name))


def sizes_of(made: Path) -> dict[str, int]:
    samples_dir = made / "work" / "samples"
    names = list_shards(samples_dir, "train")
    return {name: tar_path(samples_dir, name).stat().st_size for name in names}


@pytest.mark.parametrize("together", [1, 3, 16])
def test_the_same_samples_come_in_the_same_order_and_each_tar_once(
    made: Path, server: Server, local: Samples, tmp_path: Path, together: int
) -> None:
    config = dataclasses.replace(CONFIG, shuffle_shards=together)
    with streaming(server.url, tmp_path, BIG) as remote:
        assert remote.fingerprint == local.fingerprint
        assert (remote.size, remote.recipe) == (local.size, local.recipe)
        assert_same(local, remote, config)
        assert_same(local, remote, config, position=28)
        if together == 16:  # in smaller windows a batch may have samples of a third
            assert server.num_bytes == sizes_of(made)
        assert all(server.num_bytes[name] >= size for name, size in sizes_of(made).items())
    whole = [name for name, span in server.requests if len(span) == sizes_of(made)[name]]
    assert Counter(whole) == dict.fromkeys(sizes_of(made), 1)


def test_a_small_cache_stays_small_and_brings_each_tar_once_an_epoch(
    made: Path, server: Server, local: Samples, tmp_path: Path
) -> None:
    sizes = sizes_of(made)
    budget = sum(sorted(sizes.values())[-3:])
    config = dataclasses.replace(CONFIG, shuffle_shards=1, batch_size=2)
    most = 0

    def weigh() -> None:
        nonlocal most
        most = max(most, sum(map(size_now, tmp_path.glob("*.tar*"))))

    server.watch = weigh
    with streaming(server.url, tmp_path, budget) as remote:
        assert_same(local, remote, config)
    assert 0 < most <= budget
    whole = Counter(name for name, span in server.requests if len(span) == sizes[name])
    assert whole.keys() == sizes.keys()
    assert max(whole.values()) <= config.epochs
    assert whole.total() < config.epochs * len(sizes)  # what the next epoch begins with stayed


def test_what_comes_next_is_there_before_it_is_asked_for(
    made: Path, server: Server, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, shuffle_shards=1, epochs=1)
    with streaming(server.url, tmp_path, BIG) as remote:
        steps = iterate_steps(remote, config, Ranks(), 0, 0, pin=False)
        next(steps)
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*.tar"))) < len(sizes_of(made)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        num_requests = len(server.requests)
        assert sum(1 for _ in steps) > 4
    assert len(server.requests) == num_requests


def test_references_from_other_windows_are_asked_for_by_themselves(
    made: Path, server: Server, local: Samples, tmp_path: Path
) -> None:
    sizes = sizes_of(made)
    budget = sum(sorted(sizes.values())[-3:])
    config = dataclasses.replace(CONFIG, shuffle_shards=1, batch_size=2, pairs=0.5, epochs=1)
    with streaming(server.url, tmp_path, budget) as remote:
        assert_same(local, remote, config)
    alone = [span for name, span in server.requests if len(span) < sizes[name]]
    assert alone
    largest = max(
        sum(size for name, size in row.items() if name.endswith("_size") and size)
        for shard in sizes
        for row in read_rows(rows_path(made / "work" / "samples", shard), SAMPLES).to_pylist()
    )
    assert max(map(len, alone)) <= largest + 3 * 512  # with the headers between its members


@pytest.mark.parametrize("attempts", [5, 1])
def test_a_server_that_drops_connections_is_asked_again(
    made: Path,
    server: Server,
    local: Samples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attempts: int,
) -> None:
    """However often, as long as something comes in between."""
    monkeypatch.setattr("pipeline.stores.web.SPAN", 9000)
    server.drops_every = 3  # of a tar, so that none is hit twice in a row
    shards = RemoteShards(server.url, tmp_path, BIG)
    client = shards._store._client  # type: ignore[attr-defined]
    client._draw = lambda: 0.0
    client._source = dataclasses.replace(client._source, attempts=attempts)
    with closing(shards), Samples(shards, "train") as remote:
        assert_same(local, remote, CONFIG)
    assert server.num_dropped > 3
    assert server.num_bytes == sizes_of(made)


def test_a_server_of_whole_files_will_do_where_the_cache_holds_all(
    made: Path, local: Samples, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, shuffle_shards=1, epochs=1)
    with serve_folder(made / "there") as url:
        with streaming(url, tmp_path / "all", BIG) as remote:
            assert_same(local, remote, config)
        budget = sum(sorted(sizes_of(made).values())[-2:])
        with closing(RemoteShards(url, tmp_path / "few", budget)) as shards:
            whole = dataclasses.replace(config, shuffle_shards=16)
            with Samples(shards, "train") as remote, pytest.raises(UserError) as caught:
                steps_of(remote, whole)
    assert "gives whole files only" in str(caught.value)


def test_any_store_of_fsspecs_will_do(made: Path, local: Samples, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(made / "there"), "/streamed", recursive=True)
    budget = sum(sorted(sizes_of(made).values())[-3:])
    try:
        for url in ("memory://streamed", str(made / "there")):
            with streaming(url, tmp_path / "cache", budget) as remote:
                assert_same(local, remote, CONFIG)
            shutil.rmtree(tmp_path / "cache")
    finally:
        files.rm("/streamed", recursive=True)


@pytest.mark.slow
def test_from_s3_comes_the_same(
    made: Path, local: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_s3() as endpoint:
        lead_to(endpoint, monkeypatch)
        push(Work(made / "work"), f"s3://{BUCKET}/set", QUIET)
        with streaming(f"s3://{BUCKET}/set", tmp_path, BIG) as remote:
            assert_same(local, remote, CONFIG)
    forget_stores()


def train(work: Path, *options: str) -> list[dict[str, Any]]:
    """Train by the command line; return the log without times."""
    arguments = ["train", "white-background-256", "--work", str(work), "--run", "one"]
    settings = ["model=reference", "width_multiplier=0.25", "log_every=1", "pairs=0.5"]
    settings += ["validations_per_epoch=1", "num_grid=2", "num_following=2", "batch_size=8"]
    arguments += [word for text in settings for word in ("--set", f"train.{text}")]
    arguments += ["--device", "cpu", *options]
    called = call(*arguments)
    assert called.exit_code == 0, called.output
    lines = [orjson.loads(s) for s in (work / "runs/one/log.jsonl").read_bytes().splitlines()]
    times = ("samples_per_second", "data_wait")
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


def test_a_run_from_afar_is_the_run_from_disk_and_can_go_on_there(
    made: Path, server: Server, tmp_path: Path
) -> None:
    shutil.copytree(made / "work" / "samples", tmp_path / "here" / "samples")
    expected = train(tmp_path / "here", "--epochs", "2")
    found = train(tmp_path / "afar", "--epochs", "2", "--shards", server.url)
    assert found == expected
    tensors = [
        load_checkpoint(tmp_path / p / "runs/one/last.safetensors") for p in ("here", "afar")
    ]
    (one, one_info), (two, two_info) = tensors
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one_info.samples == two_info.samples
    assert two_info.recipe["prepare"]["size"] == 64  # the samples' own recipe
    longer = ("--epochs", "3", "--resume")
    assert train(tmp_path / "here", *longer, "--shards", server.url) == train(
        tmp_path / "afar", *longer, "--shards", server.url, "--cache", str(tmp_path / "c")
    )
    assert list((tmp_path / "afar" / "cache").glob("*.tar"))
    assert list((tmp_path / "c").glob("*.tar"))
    assert not (tmp_path / "afar" / "samples").exists()


def test_a_discriminator_is_fitted_on_what_the_first_window_holds(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at samples before the first step, and none of them is asked for by itself."""
    monkeypatch.setattr(
        "model.training.train.build_style_network", lambda *names, **settings: Thumbnails()
    )
    config = dataclasses.replace(SMALL, epochs=1, validations_per_epoch=1)
    with (
        serve_folder(made / "there") as url,
        closing(RemoteShards(url, tmp_path / "cache", BIG)) as shards,
    ):
        result = run_training(config, shards, tmp_path / "run", console=QUIET)
    assert result.finished


def refusal(there: Path, cache: Path, budget: int = BIG) -> str:
    with pytest.raises(UserError) as caught, streaming(str(there), cache, budget) as remote:
        steps_of(remote, CONFIG)
    return str(caught.value)


def test_what_lies_is_refused(made: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(made / "there", tmp_path / name))

    shard = "train-000000"
    damaged = copy("damaged")
    tar = tar_path(damaged / "samples", shard)
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    assert f"samples/{shard}.tar: is not what its index says" in refusal(damaged, tmp_path / "c1")

    forged = copy("forged")
    forge_tar(forged / "samples", shard, lambda data: data.__setitem__(slice(0, 4), b"../x"))
    forge_files(forged)
    assert f"{shard} is refused: its tar holds another header" in refusal(forged, tmp_path / "c2")

    swapped = copy("swapped")
    shutil.copy(
        rows_path(swapped / "samples", "train-000001"), rows_path(swapped / "samples", shard)
    )
    forge_files(swapped)
    assert f"{shard} is refused: its rows are of prepare" in refusal(swapped, tmp_path / "c3")

    pending = copy("pending")
    (pending / INDEX).rename(pending / PENDING)
    assert "its push is not complete" in refusal(pending, tmp_path / "c4")

    elsewhere = copy("elsewhere")
    forge_index(elsewhere, lambda table: table["files"][-1].update(name="samples/../../x.tar"))
    assert "which no data set holds" in refusal(elsewhere, tmp_path / "c5")
    for name, there in (("c1", damaged), ("c2", forged), ("c3", swapped)):
        sha256 = load_index(there).by_name[f"samples/{shard}.tar"].sha256
        assert not list((tmp_path / name).glob(f"{sha256}*"))


def test_a_sample_that_lies_is_refused(made: Path, server: Server, tmp_path: Path) -> None:
    budget = max(sizes_of(made).values())
    server.spoil = lambda data: data[:700] + b"x" + data[701:]
    expected = pytest.raises(UserError, match="a sample of train-0.* is not what its row says")
    with streaming(server.url, tmp_path, budget) as remote, expected:
        remote.load([3])


def test_a_cache_that_the_disk_has_damaged_is_named(
    made: Path, server: Server, local: Samples, tmp_path: Path
) -> None:
    with streaming(server.url, tmp_path, BIG) as remote:
        assert_same(local, remote, CONFIG)
    for tar in tmp_path.glob("*.tar"):
        tar.write_bytes(tar.read_bytes()[:512] + bytes(100) + tar.read_bytes()[612:])
    expected = pytest.raises(UserError, match=f"its color: .* Remove the tars in {tmp_path};")
    with streaming(server.url, tmp_path, BIG) as remote, expected:
        assert_same(local, remote, CONFIG)
    for tar in tmp_path.glob("*.tar"):
        tar.unlink()
    with streaming(server.url, tmp_path, BIG) as remote:
        assert_same(local, remote, CONFIG)


def test_a_cache_that_is_too_small_is_refused_and_one_that_is_small_named(
    made: Path, tmp_path: Path
) -> None:
    sizes = sizes_of(made)
    said = refusal(made / "there", tmp_path, budget=max(sizes.values()) - 1)
    enough = re.search(r"holds no shard of \d+\.\d kB: --cache-size ([0-9.e-]+) or", said)
    assert enough is not None
    assert float(enough[1]) * 1e9 > max(sizes.values())
    file = tmp_path / "file"
    file.write_text("mine")
    assert "file: cannot be written: File exists." in refusal(made / "there", file, budget=BIG)
    for budget, together, what in (
        (BIG, 16, "the cache holds all of it"),
        (sum(sizes.values()) - 1, 1, "holds what comes next"),
        (max(sizes.values()), 4, "is less than two windows of 4 shards"),
    ):
        with closing(RemoteShards(str(made / "there"), tmp_path, budget)) as shards:
            said = shards.describe(together)
            assert what in said
            enough = re.search(r"--cache-size ([0-9.e-]+) is enough", said)
        if enough is not None:
            budget = int(float(enough[1]) * 1e9)
            tars = (made / "there" / "samples").glob("*.tar")
            assert budget < 1.03 * sum(map(size_now, tars))  # more than all of it is no use
            with closing(RemoteShards(str(made / "there"), tmp_path, budget)) as shards:
                assert "is less than two windows" not in shards.describe(together)


def test_a_cache_that_cannot_be_written_is_named(made: Path, tmp_path: Path) -> None:
    for name, file in load_index(made / "there").by_name.items():
        if name.endswith(".parquet"):
            (tmp_path / f"{file.sha256}.parquet.part").mkdir()
    told = rf"^{tmp_path}: cannot be written: Is a directory"
    with (
        closing(RemoteShards(str(made / "there"), tmp_path, BIG)) as shards,
        pytest.raises(UserError, match=told),
    ):
        shards.names("train")


def test_a_recipe_alone_cannot_be_streamed(made: Path, tmp_path: Path) -> None:
    push(Work(made / "work"), str(tmp_path / "there"), QUIET, recipe_only=True)
    assert "shares no pictures" in refusal(tmp_path / "there", tmp_path / "cache")
