"""Shards that are made in scratch and lie in a store: their bytes, and what they cost."""

import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from filelock import FileLock, Timeout

from pipeline.errors import DamagedError, UserError
from pipeline.executor import Summary
from pipeline.hold import Part
from pipeline.maintenance.status import read_status
from pipeline.maintenance.verify import verify
from pipeline.recipe_file import load_recipe
from pipeline.shard_store import driver
from pipeline.shard_store.identity import bind
from pipeline.shard_store.worker import StageInStore
from pipeline.shards.shard import list_shards, rows_path
from pipeline.share.index import INDEX, PENDING
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.stages.fetch import FetchStage
from pipeline.stores.remote import RemoteStore
from pipeline.work import Work
from tests.crashing import (
    NUM_POSTS,
    QUIET,
    contents,
    fetch,
    make_source,
    original_path,
    prepare,
    temporaries,
)
from tests.real_commands import Source
from tests.shard_stores import URL, both, contents_of, rows_of, shards_in

Command = Callable[..., Summary]

pytestmark = pytest.mark.usefixtures("scratch_dir")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


def test_the_name_of_a_store_may_end_in_a_space(work: Work, tmp_path: Path) -> None:
    make_source(tmp_path)
    store = f"{tmp_path}/store "
    fetch(tmp_path, work, store=store)
    assert prepare(tmp_path, work, store=store).fates.total() == NUM_POSTS
    assert work.store == store


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_store_gets_the_bytes_of_a_work_folder(
    local: Source,
    work: Work,
    scratch_dir: Path,
    s3: "fsspec.AbstractFileSystem",
    num_workers: int,
) -> None:
    both(local, work, URL, num_workers)
    assert shards_in(s3) == local.expected
    assert contents(work) == rows_of(local.expected)
    assert list(scratch_dir.glob("nurie-scratch-*")) == []
    assert temporaries(work) == []
    status = read_status(work)
    undisturbed = read_status(Work(local.root / "undisturbed"))
    assert status.adds_up
    assert status.stages == undisturbed.stages
    assert status.asked.num_attempts == undisturbed.asked.num_attempts == NUM_POSTS


def test_the_requests_that_a_shard_costs(
    local: Source, work: Work, s3: "fsspec.AbstractFileSystem", monkeypatch: pytest.MonkeyPatch
) -> None:
    """As benchmarks/SCALE.md says; beside them come a few a run."""
    plain, asked = type(s3)._call_s3, Counter[str]()

    def call_s3(self: object, method: str, *args: object, **options: object) -> object:
        key = str(options.get("Key"))
        if Path(key).suffix in (".tar", ".parquet"):
            asked[method] += 1
        return plain(self, method, *args, **options)

    monkeypatch.setattr(type(s3), "_call_s3", call_s3)
    for command, num_put, num_got in ((fetch, 4, 4), (prepare, 2, 3)):
        asked.clear()
        command(local.root, work, store=URL)
        num_shards = len(list_shards(work.raw_dir))
        one = {"put_object": num_put, "get_object": num_got, "delete_object": 1}
        assert asked == {method: num * num_shards for method, num in one.items()}
        asked.clear()
        command(local.root, work, store=URL)
        assert not asked


def test_what_is_done_is_not_done_again(
    local: Source, work: Work, s3: "fsspec.AbstractFileSystem", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where the driver's folder is lost and planned anew."""
    both(local, work, URL)
    shutil.rmtree(work.root)

    def put(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(RemoteStore, "put", put)
    for _ in range(2):
        both(local, work, URL)
    assert contents(work) == rows_of(local.expected)


def test_a_shard_that_is_handed_out_has_no_rows_in_the_folder(
    local: Source, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the run then: the folder never holds rows that the store has replaced."""
    store = str(tmp_path / "store")
    both(local, work, store)
    seen = []

    def stop(stage: StageInStore, name: str, tick: object) -> None:
        seen.append(name)
        assert not any(rows_path(work.samples_dir, name).exists() for name in list_shards(raw))
        raise KeyboardInterrupt

    raw = work.raw_dir
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StageInStore, "__call__", stop)
        prepare(local.root, work, store=store, size=48)
    assert len(seen) == 1
    both(local, work, store)
    assert contents(work) == rows_of(local.expected)


@pytest.mark.slow
def test_a_push_from_rows_alone_completes_the_store(
    local: Source, work: Work, tmp_path: Path, s3: "fsspec.AbstractFileSystem"
) -> None:
    both(local, work, URL)
    again = Work(tmp_path / "again")
    with pytest.raises(UserError, match="no data set is shared there"):
        pull(URL, again, QUIET)
    assert push(work, URL, QUIET).num_moved == 4  # sidecars
    assert push(work, f"{URL}/", QUIET).num_moved == 0
    pull(URL, again, QUIET)
    assert verify(again.root) == []
    expected = {n: d for n, d in local.expected.items() if n.startswith("samples/")}
    assert contents(again) == expected

    prepare(local.root, work, store=URL, size=48)
    names = set(s3.ls(URL, detail=False))
    root = URL.removeprefix("s3://")
    assert f"{root}/{PENDING}" in names
    assert f"{root}/{INDEX}" not in names
    with pytest.raises(UserError, match="not complete yet"):
        pull(URL, again, QUIET)
    push(work, URL, QUIET)
    pull(URL, again, QUIET)
    assert verify(again.root) == []
    assert contents(again) != expected
    assert shards_in(s3) == shards_in(s3) | contents(again)

    s3.rm_file(f"{root}/samples/{list_shards(work.samples_dir)[0]}.tar")
    with pytest.raises(DamagedError, match=r"samples/.*tar: missing, or not as its rows say; run"):
        push(work, URL, QUIET)
    prepare(local.root, work, store=URL, size=48)
    push(work, URL, QUIET)
    assert shards_in(s3) == shards_in(s3) | contents(again)


def test_a_retry_asks_again_for_what_failed_only(work: Work, tmp_path: Path) -> None:
    root = tmp_path / "source"
    make_source(root)
    store = str(tmp_path / "store")
    odd = original_path(root, 4)
    data = odd.read_bytes()
    odd.unlink()
    odd.mkdir()
    assert fetch(root, work, store=store).fates == {"fetched": NUM_POSTS - 1, "failed/io": 1}
    shutil.rmtree(root / "original")
    odd.parent.mkdir()
    odd.write_bytes(data)
    assert fetch(root, work, store=store).fates == {"fetched": NUM_POSTS - 1, "failed/io": 1}
    summary = fetch(root, work, store=store, retry_failed=True)
    assert summary.fates == {"fetched": NUM_POSTS}
    assert read_status(work).asked.num_attempts == NUM_POSTS + 1
    prepare(root, work, store=store)
    shutil.rmtree(root)
    make_source(root)
    plain = Work(tmp_path / "plain")
    fetch(root, plain)
    prepare(root, plain)
    assert contents_of(Path(store)) == contents(plain)


@pytest.mark.slow
def test_ranks_with_folders_of_their_own_give_the_bytes_of_one(
    local: Source, tmp_path: Path, s3: "fsspec.AbstractFileSystem"
) -> None:
    """Near duplicates are looked for among all, and any rank's folder will do to push."""
    parts = [Part(rank, 2) for rank in range(2)]
    works = [Work(tmp_path / f"work-{part.rank}") for part in parts]
    for part, work in zip(parts, works, strict=True):
        assert not fetch(local.root, work, store=URL, part=part).errors
        assert len(list_shards(work.raw_dir)) == 1
    for part, work in zip(parts, works, strict=True):
        assert not prepare(local.root, work, store=URL, part=part, size=48).errors
        assert len(list_shards(work.raw_dir)) == 2
        assert len(list_shards(work.samples_dir)) == 1
    push(works[0], URL, QUIET)
    for part, work in zip(parts, works, strict=True):
        assert not prepare(local.root, work, store=URL, part=part).errors
    assert shards_in(s3) == local.expected
    push(works[0], URL, QUIET)
    assert contents(works[0]) == rows_of(local.expected)
    again = Work(tmp_path / "again")
    pull(URL, again, QUIET)
    assert verify(again.root) == []


@pytest.mark.parametrize("command", [fetch, prepare])
def test_a_rank_ties_folder_and_store_before_others_come_in(
    command: Command, local: Source, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes in clears half-written files away, and writes the same."""
    store, num_ties = str(tmp_path / "store"), Counter[str]()

    def bind_alone(*arguments: Any) -> None:
        with pytest.raises(Timeout):
            FileLock(work.root / ".lock.ranks").acquire(blocking=False)
        bind(*arguments)
        num_ties["alone"] += 1

    fetch(local.root, work, store=store)
    monkeypatch.setattr(driver, "bind", bind_alone)
    assert not command(local.root, work, store=store, part=Part(1, 2)).errors
    assert num_ties == {"alone": 1}


def test_a_stage_away_needs_nothing_of_the_drivers(local: Source, tmp_path: Path) -> None:
    store, work = tmp_path / "store", Work(tmp_path / "work")
    fetch(local.root, work, store=str(store))
    shutil.rmtree(store / "raw")
    work.root.rename(tmp_path / "hidden")
    settings = load_recipe(str(local.root / "recipe.toml")).source
    gone = FetchStage(work, settings)
    away: StageInStore = pickle.loads(pickle.dumps(StageInStore(gone, str(store))))
    names = list_shards(tmp_path / "hidden" / "raw")
    assert sum((away(name, lambda n: None) for name in names), Counter()) == {"fetched": NUM_POSTS}
    raw = {name: data for name, data in local.expected.items() if name.startswith("raw/")}
    assert contents_of(store) == raw
    assert not work.root.exists()
