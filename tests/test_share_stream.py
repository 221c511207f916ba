"""Training from afar: the same samples in the same order as from disk, and each byte once."""

import dataclasses
from collections import Counter
from contextlib import closing
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from model.data.epochs import iterate_steps
from model.data.order import epoch_windows
from model.data.samples import Samples
from model.ranks import Ranks
from pipeline.errors import UserError
from pipeline.schema import SAMPLES
from pipeline.shards.rows import read_rows
from pipeline.shards.shard import rows_path
from pipeline.share.push import push
from pipeline.share.stream import RemoteShards
from pipeline.web.serve import serve_folder
from pipeline.work import Work
from tests.file_server import forget_stores
from tests.files import size_now
from tests.s3_server import BUCKET, lead_to, serve_s3
from tests.share_caches import until
from tests.shares import QUIET
from tests.streams import BIG, CONFIG, CountingServer, assert_same, sizes_of, steps_of, streaming


@pytest.mark.slow
@pytest.mark.parametrize("together", [1, 3, 16])
def test_the_same_samples_come_in_the_same_order_and_each_tar_once(
    streamed: Path, counting_server: CountingServer, on_disk: Samples, tmp_path: Path, together: int
) -> None:
    config = dataclasses.replace(CONFIG, shuffle_shards=together)
    with streaming(counting_server.url, tmp_path, BIG) as remote:
        assert remote.fingerprint == on_disk.fingerprint
        assert (remote.size, remote.recipe) == (on_disk.size, on_disk.recipe)
        assert_same(on_disk, remote, config)
        assert_same(on_disk, remote, config, position=28)
        if together == 16:  # in smaller windows a batch may have samples of a third
            assert counting_server.num_bytes == sizes_of(streamed)
        assert all(
            counting_server.num_bytes[name] >= size for name, size in sizes_of(streamed).items()
        )
    whole = [
        name for name, span in counting_server.requests if len(span) == sizes_of(streamed)[name]
    ]
    assert Counter(whole) == dict.fromkeys(sizes_of(streamed), 1)


def test_a_small_cache_stays_small_and_brings_each_tar_once_an_epoch(
    streamed: Path, counting_server: CountingServer, on_disk: Samples, tmp_path: Path
) -> None:
    sizes = sizes_of(streamed)
    budget = sum(sorted(sizes.values())[-3:])
    config = dataclasses.replace(CONFIG, shuffle_shards=1, batch_size=2)
    most = 0

    def weigh() -> None:
        nonlocal most
        most = max(most, sum(map(size_now, tmp_path.glob("*.tar*"))))

    counting_server.watch = weigh
    with streaming(counting_server.url, tmp_path, budget) as remote:
        assert_same(on_disk, remote, config)
    assert 0 < most <= budget
    whole = Counter(name for name, span in counting_server.requests if len(span) == sizes[name])
    assert whole.keys() == sizes.keys()
    assert max(whole.values()) <= config.epochs
    assert whole.total() < config.epochs * len(sizes)  # what the next epoch begins with stayed


def test_what_comes_next_is_there_before_it_is_asked_for(
    streamed: Path, counting_server: CountingServer, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, shuffle_shards=1, epochs=1)
    shards = RemoteShards(counting_server.url, tmp_path, BIG)
    with closing(shards), Samples(shards, "train") as remote:
        with closing(iterate_steps(remote, config, Ranks(), 0, 0, pin=False)) as steps:
            next(steps)
            until(lambda: len(list(tmp_path.glob("*.tar"))) == len(sizes_of(streamed)))
        # What was read ahead has ended: it may ask for samples of shards that are still coming. So
        # may the next steps, until the cache knows that the last shard is in its place.
        until(lambda: not shards._cache._coming)
        num_requests = len(counting_server.requests)
        assert len(steps_of(remote, config)) > 5
    assert len(counting_server.requests) == num_requests


def test_references_from_other_windows_are_asked_for_by_themselves(
    streamed: Path, counting_server: CountingServer, on_disk: Samples, tmp_path: Path
) -> None:
    sizes = sizes_of(streamed)
    budget = sum(sorted(sizes.values())[-3:])
    config = dataclasses.replace(CONFIG, shuffle_shards=1, batch_size=2, pairs=0.5, epochs=1)
    with streaming(counting_server.url, tmp_path, budget) as remote:
        assert_same(on_disk, remote, config)
    alone = [span for name, span in counting_server.requests if len(span) < sizes[name]]
    assert alone
    largest = max(
        sum(size for name, size in row.items() if name.endswith("_size") and size)
        for shard in sizes
        for row in read_rows(rows_path(streamed / "work" / "samples", shard), SAMPLES).to_pylist()
    )
    assert max(map(len, alone)) <= largest + 3 * 512  # with the headers between its members


@pytest.mark.parametrize("attempts", [5, 1])
def test_a_server_that_drops_connections_is_asked_again(
    streamed: Path,
    counting_server: CountingServer,
    on_disk: Samples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attempts: int,
) -> None:
    """However often, as long as something comes in between."""
    monkeypatch.setattr("pipeline.stores.web.SPAN", 9000)
    counting_server.drops_every = 3  # of a tar, so that none is hit twice in a row
    shards = RemoteShards(counting_server.url, tmp_path, BIG)
    client = shards._store._client  # type: ignore[attr-defined]
    client._draw = lambda: 0.0
    client._source = dataclasses.replace(client._source, attempts=attempts)
    with closing(shards), Samples(shards, "train") as remote:
        assert_same(on_disk, remote, CONFIG)
    assert counting_server.num_dropped > 3
    assert counting_server.num_bytes == sizes_of(streamed)


def test_a_server_of_whole_files_will_do_where_the_cache_holds_all(
    streamed: Path, on_disk: Samples, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, shuffle_shards=1, epochs=1)
    with serve_folder(streamed / "there") as url:
        with streaming(url, tmp_path / "all", BIG) as remote:
            assert_same(on_disk, remote, config)
        budget = sum(sorted(sizes_of(streamed).values())[-2:])
        with closing(RemoteShards(url, tmp_path / "few", budget)) as shards:
            whole = dataclasses.replace(config, shuffle_shards=16)
            with Samples(shards, "train") as remote, pytest.raises(UserError) as caught:
                steps_of(remote, whole)
    assert "gives whole files only" in str(caught.value)


def test_a_server_of_whole_files_is_waited_for(
    streamed: Path, on_disk: Samples, tmp_path: Path
) -> None:
    """Also for a shard of the last window, of which a server of ranges is asked for the sample."""
    windows = epoch_windows(on_disk.shard_sizes(), 1, 0, 0)
    place = int(np.flatnonzero(on_disk.shards == windows[-1].shards[0])[0])
    with serve_folder(streamed / "there") as url, streaming(url, tmp_path, BIG) as remote:
        remote.expect(windows)
        assert torch.equal(remote.load([place]).color, on_disk.load([place]).color)


def test_any_store_of_fsspecs_will_do(streamed: Path, on_disk: Samples, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(streamed / "there"), "/streamed", recursive=True)
    budget = sum(sorted(sizes_of(streamed).values())[-3:])
    try:
        for i, url in enumerate(("memory://streamed", str(streamed / "there"))):
            with streaming(url, tmp_path / str(i), budget) as remote:  # which may still be written
                assert_same(on_disk, remote, CONFIG)
    finally:
        files.rm("/streamed", recursive=True)


@pytest.mark.slow
def test_from_s3_comes_the_same(
    streamed: Path, on_disk: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_s3() as endpoint:
        lead_to(endpoint, monkeypatch)
        push(Work(streamed / "work"), f"s3://{BUCKET}/set", QUIET)
        with streaming(f"s3://{BUCKET}/set", tmp_path, BIG) as remote:
            assert_same(on_disk, remote, CONFIG)
    forget_stores()
