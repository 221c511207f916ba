"""Shards that lie in a store: what is refused, and said in a sentence."""

import errno
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.maintenance.repair import repair
from pipeline.maintenance.takedown import take_down
from pipeline.maintenance.verify import verify
from pipeline.report.page import render_report
from pipeline.shards.rows import read_info, write_rows
from pipeline.shards.shard import ShardWriter, list_shards, rows_path
from pipeline.share.index import INDEX
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.work import Work
from tests.calls import call
from tests.crashing import QUIET, contents, fetch, prepare
from tests.files import flip
from tests.forgeries import forge_info
from tests.real_commands import Source, finish, start
from tests.shard_stores import URL, both, contents_of, rows_of

pytestmark = pytest.mark.usefixtures("scratch_dir")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


def test_a_folder_whose_tars_are_in_a_store_is_for_few_commands(
    local: Source, work: Work, tmp_path: Path
) -> None:
    both(local, work, str(tmp_path / "store"))
    elsewhere, pushed = str(tmp_path / "elsewhere"), str(tmp_path / "pushed")
    push(Work(local.root / "undisturbed"), pushed, QUIET)
    refused: list[Callable[[], object]] = [
        lambda: fetch(local.root, work),
        lambda: prepare(local.root, work),
        lambda: fetch(local.root, work, store=elsewhere),
        lambda: verify(work.root),
        lambda: repair(work, QUIET),
        lambda: take_down(work, [2]),
        lambda: pull(pushed, work, QUIET),
        lambda: push(work, elsewhere, QUIET),
    ]
    for command in refused:
        with pytest.raises(UserError, match=rf"the tars of its shards are in {tmp_path}/store\. "):
            command()
    assert not work.incoming_dir.exists()
    of_models = [["train", local.root / "recipe.toml"], ["eval", tmp_path / "no.safetensors"]]
    for words in of_models:
        error = call(*words, "--work", work.root).exception
        assert isinstance(error, UserError)
        assert "`train --shards` with what was pushed" in str(error)
    note = "The pictures are in a store"
    assert note in render_report(work)
    assert note not in render_report(Work(local.root / "undisturbed"))
    assert contents(work) == rows_of(local.expected)
    assert contents_of(tmp_path / "store") == local.expected


def test_rows_in_a_store_that_name_no_tar_are_not_pushed(
    local: Source, work: Work, tmp_path: Path
) -> None:
    both(local, work, str(tmp_path / "store"))
    for root in (work.root, tmp_path / "store"):
        forge_info(root, tar_size="x")
    with pytest.raises(UserError, match="train-000000.parquet: does not say what its tar is"):
        push(work, str(tmp_path / "store"), QUIET)


def test_originals_whose_rows_name_no_tar_are_one_shards_failure(
    local: Source, work: Work, tmp_path: Path
) -> None:
    fetch(local.root, work, store=str(tmp_path / "store"))
    first, _ = list_shards(work.raw_dir)
    for root in (work.root, tmp_path / "store"):
        rows = rows_path(root / "raw", first)
        info = {name: said for name, said in read_info(rows).items() if name != "tar_sha256"}
        write_rows(rows, [pq.read_table(rows).replace_schema_metadata(None)], info)
    summary = prepare(local.root, work, store=str(tmp_path / "store"))
    assert list(summary.errors) == [first]
    assert "does not say what its tar is" in summary.errors[first]


def test_a_store_and_a_folder_that_do_not_go_together_are_refused(
    local: Source, work: Work, tmp_path: Path
) -> None:
    """What lies in either stays as it is."""
    store = str(tmp_path / "store")
    both(local, work, store)
    other = Work(tmp_path / "other")
    with pytest.raises(UserError, match="holds the shards of another plan; name another place"):
        fetch(local.root, Work(tmp_path / "less"), store=store, limit=3)
    done = Work(local.root / "undisturbed")
    with pytest.raises(UserError, match="undisturbed/raw: holds shards; with --store give a work"):
        fetch(local.root, done, store=str(tmp_path / "new"))
    pushed = str(tmp_path / "pushed")
    push(done, pushed, QUIET)
    with pytest.raises(UserError, match="holds shards that no `--store` put there"):
        fetch(local.root, other, store=pushed)
    (tmp_path / "store").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="what was put there is gone; is it the same store"):
        fetch(local.root, work, store=store)
    (tmp_path / "moved").rename(tmp_path / "store")
    assert contents(work) == rows_of(local.expected)
    for place in (other.root, other.root / "raw"):
        with pytest.raises(UserError, match="is the work folder, or within it"):
            fetch(local.root, other, store=str(place))
    with pytest.raises(UserError, match="plan in another work folder, with another --store"):
        fetch(local.root, work, store=store, replan=True)
    for url, why in (
        ("hf://datasets/me/it", "takes commits, not shards by many hands"),
        ("http://127.0.0.1:9/x", "web servers are only pulled from"),
        ("s3://KEY:SECRET@bucket/x", "user or password"),
        (
            "ftp://host/x",
            r"ftp://host/x: cannot be written to; possible: a plain path, [^h]*, s3://",
        ),
        ("s3:///x", "names no bucket; give one, as in s3://BUCKET/x"),
    ):
        with pytest.raises(UserError, match=why):
            fetch(local.root, other, store=url)
    assert contents_of(tmp_path / "store") == contents(done) == local.expected


@pytest.mark.parametrize("is_pushed", [False, True])
def test_verify_says_what_mends_a_store_and_that_does(
    local: Source, work: Work, tmp_path: Path, is_pushed: bool
) -> None:
    store = tmp_path / "store"
    both(local, work, str(store))
    if is_pushed:
        push(work, str(store), QUIET)
    for kind in ("samples",) if is_pushed else ("raw", "samples"):
        tar = next((store / kind).glob("*.tar"))
        flip(tar, -2000)
        for place in (store, store / kind):
            output = call("verify", place).output
            assert f"{store} holds what `--store` put there: remove" in output
        tar.unlink()
        tar.with_suffix(".parquet").unlink()
    error = call("repair", store).exception
    assert "is no work folder" in str(error)
    assert "holds what `--store` put there" in str(error)
    both(local, work, str(store))
    push(work, str(store), QUIET)
    assert contents_of(store) == local.expected
    assert verify(store) == []


def test_only_the_recipe_is_pushed_elsewhere(local: Source, work: Work, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    both(local, work, store)
    with pytest.raises(UserError, match="has the pictures; push --recipe-only to another place"):
        push(work, store, QUIET, recipe_only=True)
    with pytest.raises(UserError, match="the tars of its shards are in"):
        push(work, str(tmp_path / "elsewhere"), QUIET)
    push(work, str(tmp_path / "elsewhere"), QUIET, recipe_only=True)
    assert (tmp_path / "elsewhere" / INDEX).is_file()


def test_a_takedown_that_was_pushed_is_not_undone(
    local: Source, work: Work, tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    both(local, work, store)
    push(work, store, QUIET)
    again = Work(tmp_path / "again")
    pull(store, again, QUIET)
    take_down(again, [2])
    push(again, store, QUIET)
    before = contents_of(Path(store))
    tries: list[Callable[[Work], object]] = [
        lambda place: fetch(local.root, place, store=store),
        lambda place: prepare(local.root, place, store=store),
        lambda place: prepare(local.root, place, store=store, size=48),
        lambda place: push(place, store, QUIET),
    ]
    for run in tries:
        with pytest.raises(UserError, match=r"were taken down in what was pushed .* Remove raw/"):
            run(work)
    with pytest.raises(UserError, match="were taken down in what was pushed there"):
        fetch(local.root, Work(tmp_path / "new"), store=store)  # as after the folder was lost
    assert contents_of(Path(store)) == before
    for kind in ("raw", "plan", "ledger"):
        shutil.rmtree(Path(store) / kind)
    with pytest.raises(UserError, match="were taken down in what was pushed there"):
        fetch(local.root, work, store=store)
    assert verify(Path(store)) == []
    assert push(again, store, QUIET).num_moved == 0


@pytest.mark.slow
def test_a_store_out_of_reach_is_a_sentence(
    local: Source, work: Work, s3: "fsspec.AbstractFileSystem", monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["fetch", local.root / "recipe.toml", "--work", work.root, "--workers", 1, "--store"]
    code, said = finish(start([*map(str, command), "s3://no-such-bucket/x"]))
    assert code == 2
    assert said.startswith("error: s3://no-such-bucket/x/plan.json: cannot be written: ")
    assert said.count("\n") == 1
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, said = finish(start([*map(str, command), URL]))
    assert code == 2
    assert said.startswith(f"error: {URL}: cannot be read: ")
    assert said.count("\n") == 1


def test_a_worker_says_which_machine_has_no_room(
    local: Source, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ShardWriter, "add", put)
    advice = f"no space left on device; make room there on {platform.node()}, or set TMPDIR, and"
    with pytest.raises(UserError, match=advice):
        fetch(local.root, work, store=str(tmp_path / "store"))
