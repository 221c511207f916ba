"""Scratch folders: how long they stay, and who sweeps them."""

import os
import signal
from pathlib import Path

import fsspec
import orjson
import pytest

from pipeline.shard_store import worker
from pipeline.shard_store.scratch import process_scratch, scratch, sweep
from pipeline.work import Work
from tests.crashing import NUM_POSTS, fetch, in_child, make_source
from tests.indexed_tars import index_tar, pack
from tests.s3_server import BUCKET


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


def hold_scratch() -> None:
    with scratch() as path:
        (path / "big").write_bytes(b"x")
        os.kill(os.getpid(), signal.SIGKILL)


def test_indexes_of_tars_stay_for_the_next_shard_of_a_process(
    work: Work,
    tmp_path: Path,
    scratch_dir: Path,
    s3: "fsspec.AbstractFileSystem",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, kept = tmp_path / "source", tmp_path / "kept"
    make_source(root, f"s3://{BUCKET}/all.tar#{{{{id}}}}.jpg")
    kept.mkdir()
    tar = pack({path.name: path.read_bytes() for path in (root / "original").iterdir()})
    s3.pipe(f"{BUCKET}/all.tar", tar)
    s3.pipe(f"{BUCKET}/all.json", orjson.dumps(index_tar(tar)))
    monkeypatch.setattr(worker, "process_scratch", lambda: kept)
    assert fetch(root, work, store=str(tmp_path / "store")).fates == {"fetched": NUM_POSTS}
    assert len(list(kept.iterdir())) == 1
    assert in_child(lambda: process_scratch() == process_scratch() and process_scratch().is_dir())
    assert len(list(scratch_dir.iterdir())) == 1
    sweep()
    assert list(scratch_dir.iterdir()) == []


def test_scratch_of_the_dead_is_swept_and_that_of_the_living_is_not(scratch_dir: Path) -> None:
    assert in_child(hold_scratch) == signal.SIGKILL
    (dead,) = scratch_dir.iterdir()
    link = dead.with_name(dead.name.replace("-scratch-", "-scratch-link-"))
    link.symlink_to(scratch_dir.parent)
    with scratch() as own:
        assert not dead.exists()
        (own / "file").write_bytes(b"x")
        sweep()
        assert (own / "file").exists()
        with scratch() as another:
            assert another != own
    assert [path.name for path in scratch_dir.iterdir()] == [link.name]


def test_scratch_of_another_machine_is_left_to_that(scratch_dir: Path) -> None:
    """Its locks need not be seen here, where TMPDIR is on a disk that many machines have."""
    others = scratch_dir / "nurie-scratch-abcdefgh@another"
    others.mkdir()
    with scratch():
        assert others.exists()
