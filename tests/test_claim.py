"""Two writers of one shard: the later waits, and what it writes is whole."""

import errno
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest

from pipeline import disk as module
from pipeline.disk import claim, temporary_path
from pipeline.errors import UserError
from pipeline.schema import RAW
from pipeline.shards.shard import ShardWriter, recover, tar_path

NAME = "train-000000"


def test_a_claimed_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"whole")
    claim(path).close()
    assert path.read_bytes() == b"whole"


def test_a_file_that_was_renamed_meanwhile_is_not_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the opening and the lock its holder put it in place."""
    path, other, plain = tmp_path / "a", tmp_path / "b", module._lock

    def lock(file: BinaryIO) -> bool:
        if not other.exists():
            path.rename(other)
        return plain(file)

    monkeypatch.setattr(module, "_lock", lock)
    with claim(path) as file:
        file.write(b"mine")
    assert (path.read_bytes(), other.read_bytes()) == (b"mine", b"")


def test_a_file_system_without_locks_lets_everybody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: BinaryIO, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    with claim(tmp_path / "file"), claim(tmp_path / "file"):
        pass


def test_who_does_not_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    with (
        claim(tmp_path / "file"),
        pytest.raises(UserError, match="file: another process goes on writing it"),
    ):
        claim(tmp_path / "file")
    claim(tmp_path / "file").close()


def test_who_waits_keeps_none_of_its_tries_open_and_gives_up_after_two_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 60.0 * len(waits), sleep=waits.append)
    monkeypatch.setattr(module, "time", clock)
    with claim(tmp_path / "file"):
        before = len(list(Path("/dev/fd").iterdir()))
        with pytest.raises(UserError) as error:  # it holds on to what the function held
            claim(tmp_path / "file")
        assert len(list(Path("/dev/fd").iterdir())) == before
        assert error.value.__traceback__ is not None
    assert waits == [0.1] * 3  # tried at 0, 60, 120 and 180 seconds


@pytest.mark.parametrize("commits", [False, True])
def test_a_second_writer_of_a_shard_waits_for_the_first(tmp_path: Path, commits: bool) -> None:
    """The first is one that a cluster took for dead: it gives up, or finishes after all."""
    entered = threading.Event()

    def write_again() -> None:
        with ShardWriter(tmp_path, NAME) as shard:
            entered.set()
            shard.add("000000002.jpg", b"second")
            shard.commit(RAW.empty_table(), {"fingerprint": "2"})

    second = threading.Thread(target=write_again)
    with ShardWriter(tmp_path, NAME) as shard:
        shard.add("000000001.jpg", b"a" * 10**5)
        second.start()
        time.sleep(0.3)
        assert not entered.is_set()
        if commits:
            shard.commit(RAW.empty_table(), {"fingerprint": "1"})
            assert not entered.is_set()
    second.join(120)
    with tarfile.open(tar_path(tmp_path, NAME)) as tar:
        assert tar.getnames() == ["000000002.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{NAME}.parquet", f"{NAME}.tar"]


def test_what_is_being_written_is_not_swept_away(tmp_path: Path) -> None:
    swept = threading.Thread(target=recover, args=(tmp_path,))
    temporary = temporary_path(tar_path(tmp_path, NAME))
    with ShardWriter(tmp_path, NAME) as shard:
        swept.start()
        time.sleep(0.3)
        assert temporary.exists()
        shard.commit(RAW.empty_table(), {"fingerprint": "1"})
    swept.join(120)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{NAME}.parquet", f"{NAME}.tar"]
