import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.disk import sync, temporary_path
from pipeline.errors import DamagedError, UserError
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import (
    ShardWriter,
    Span,
    adopt_shard,
    is_current,
    list_shards,
    parse_shard_name,
    read_shard,
    read_span,
    recover,
    remove_shard,
    remove_shards,
    rows_path,
    shard_name,
    tar_path,
)

SCHEMA = pa.schema([pa.field(name, pa.string()) for name in ("key", "status", "reason")])
ROW = {"key": "a", "status": "kept", "reason": ""}
MEMBERS = {"000000001.json": b"{}", "000000001.sketch.png": b"x" * 700, "000000002.json": b""}


def write_shard(
    directory: Path, name: str = "train-000000", fingerprint: str = "f"
) -> dict[str, Span]:
    with ShardWriter(directory, name) as shard:
        spans = {member: shard.add(member, data) for member, data in MEMBERS.items()}
        shard.commit(pa.Table.from_pylist([ROW], schema=SCHEMA), {"fingerprint": fingerprint})
    return spans


def test_a_shard_is_a_plain_tar_whose_rows_say_where_everything_lies(tmp_path: Path) -> None:
    spans = write_shard(tmp_path)
    with tarfile.open(tar_path(tmp_path, "train-000000")) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert found == MEMBERS
    with tar_path(tmp_path, "train-000000").open("rb") as file:
        assert {name: read_span(file, span) for name, span in spans.items()} == MEMBERS
    rows, info = read_shard(tmp_path, "train-000000", SCHEMA)
    assert rows.to_pylist() == [ROW]
    assert info["fates"] == {"kept": 1}
    assert info["tar_size"] == tar_path(tmp_path, "train-000000").stat().st_size


def test_the_same_members_give_the_same_bytes(tmp_path: Path) -> None:
    write_shard(tmp_path / "a")
    write_shard(tmp_path / "b")
    for path in (tar_path, rows_path):
        first, second = path(tmp_path / "a", "train-000000"), path(tmp_path / "b", "train-000000")
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", ["a", "000000001.color.jpg", "b" * 99, "b" * 100, "ぬりえ.png"])
@pytest.mark.parametrize("size", [0, 1, 512, 70000])
def test_the_headers_are_those_of_tarfile(name: str, size: int, tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "train-000000") as shard:
        shard.add("first", b"x")
        span = shard.add(name, bytes(size))
        shard.commit(pa.Table.from_pylist([ROW], schema=SCHEMA), {"fingerprint": "f"})
    expected = tarfile.TarInfo(name)
    expected.size = size
    header = expected.tobuf(tarfile.USTAR_FORMAT)
    with tar_path(tmp_path, "train-000000").open("rb") as file:
        assert read_span(file, Span(span.offset - len(header), len(header))) == header


def test_without_a_commit_nothing_is_left(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "train-000000") as shard:
        shard.add("a", b"x")
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, "train-000001") as shard:
        shard.add("a", b"x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_done_means_fingerprint_and_length(tmp_path: Path) -> None:
    write_shard(tmp_path)
    assert is_current(tmp_path, "train-000000", "f")
    assert not is_current(tmp_path, "train-000000", "g")
    assert not is_current(tmp_path, "train-000001", "f")
    with tar_path(tmp_path, "train-000000").open("ab") as file:
        file.write(b"\0")
    assert not is_current(tmp_path, "train-000000", "f")
    with pytest.raises(DamagedError):
        read_shard(tmp_path, "train-000000", SCHEMA)


def test_a_shard_of_another_version_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path)
    path = rows_path(tmp_path, "train-000000")
    write_rows(path, [read_rows(path, SCHEMA)], read_info(path) | {"schema_version": 0})
    with pytest.raises(DamagedError, match="of version 0"):
        read_shard(tmp_path, "train-000000", SCHEMA)


@pytest.mark.parametrize("damaged", ["tar", "rows"])
def test_a_commit_whose_files_are_not_whole_is_not_finished(tmp_path: Path, damaged: str) -> None:
    """After a power cut names may be on the disk without the bytes."""
    write_shard(tmp_path)
    for kind, path, at in (
        ("tar", tar_path(tmp_path, "train-000000"), 600),
        ("rows", rows_path(tmp_path, "train-000000"), 10),
    ):
        data = bytearray(path.read_bytes())
        data[at] ^= kind == damaged
        temporary_path(path).write_bytes(data)
        path.unlink()
    recover(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("meant", [0, 1])
def test_only_the_commits_of_the_shards_that_are_meant_are_finished(
    tmp_path: Path, meant: int
) -> None:
    """Whichever of them the folder lists first."""
    names = ["train-000000", "train-000001"]
    for name in names:
        write_shard(tmp_path, name)
        for path in (tar_path(tmp_path, name), rows_path(tmp_path, name)):
            path.rename(temporary_path(path))
    recover(tmp_path, [names[meant]])
    others = [temporary_path(path(tmp_path, names[1 - meant])) for path in (rows_path, tar_path)]
    assert sorted(tmp_path.glob(".*")) == others
    assert list_shards(tmp_path) == [names[meant]]
    assert is_current(tmp_path, names[meant], "f")


def test_each_step_of_a_commit_is_on_the_disk_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old rows go before the tar that they prove; the new ones come after theirs."""
    log: list[str] = []
    replace, unlink = Path.replace, Path.unlink

    def log_sync(path: Path) -> None:
        log.append(f"sync {path.name}")
        sync(path)

    def log_replace(path: Path, target: Path) -> Path:
        log.append(f"to {target.name}")
        return replace(path, target)

    def log_unlink(path: Path, missing_ok: bool = False) -> None:
        log.append(f"rm {path.name}")
        unlink(path, missing_ok)

    monkeypatch.setattr("pipeline.disk.sync", log_sync)
    monkeypatch.setattr("pipeline.shards.shard.sync", log_sync)
    monkeypatch.setattr(Path, "replace", log_replace)
    monkeypatch.setattr(Path, "unlink", log_unlink)
    write_shard(tmp_path)
    log.clear()
    write_shard(tmp_path)
    first = log.index("rm train-000000.parquet")
    assert set(log[:first]) == {"sync .train-000000.tar.tmp", "sync .train-000000.parquet.tmp"}
    assert log[first:] == [
        "rm train-000000.parquet",
        f"sync {tmp_path.name}",
        "sync .train-000000.tar.tmp",
        "to train-000000.tar",
        f"sync {tmp_path.name}",
        "sync .train-000000.parquet.tmp",
        "to train-000000.parquet",
        f"sync {tmp_path.name}",
    ]


def test_what_is_adopted_is_on_the_disk_before_the_old_shard_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power loss could leave neither of them."""
    place, elsewhere, name = tmp_path / "place", tmp_path / "elsewhere", "train-000000"
    write_shard(place, fingerprint="old")
    write_shard(elsewhere, fingerprint="new")
    new = [path(elsewhere, name) for path in (tar_path, rows_path)]
    numbers = {path.stat().st_ino for path in new}
    synced: set[int] = set()

    def log_sync(path: Path) -> None:
        if rows_path(place, name).exists():
            synced.add(path.stat().st_ino)

    monkeypatch.setattr("pipeline.shards.shard.sync", log_sync)
    adopt_shard(place, name, *new)
    assert synced == numbers
    assert read_shard(place, name, SCHEMA)[1]["fingerprint"] == "new"


def test_a_tar_without_rows_does_not_exist(tmp_path: Path) -> None:
    write_shard(tmp_path)
    rows_path(tmp_path, "train-000000").unlink()
    assert list_shards(tmp_path) == []
    assert not is_current(tmp_path, "train-000000", "f")


def test_names_round_trip_and_strangers_are_refused(tmp_path: Path) -> None:
    assert parse_shard_name(shard_name("val", 12)) == ("val", 12)
    for name in ("train-1", "../train-000000", "pipe:ls", "train-000000.tar", ""):
        with pytest.raises(UserError):
            parse_shard_name(name)
    (tmp_path / "other.parquet").touch()
    write_shard(tmp_path, "val-000003")
    assert list_shards(tmp_path) == ["val-000003"]
    assert list_shards(tmp_path, "train") == []


@pytest.mark.parametrize("span", [Span(-1, 5), Span(0, -5), Span(10**9, 1), Span(0, 10**7)])
def test_spans_outside_the_tar_are_refused(tmp_path: Path, span: Span) -> None:
    write_shard(tmp_path)
    with (
        tar_path(tmp_path, "train-000000").open("rb") as file,
        pytest.raises(DamagedError, match="train-000000.tar"),
    ):
        read_span(file, span)


@pytest.mark.parametrize("whole", [False, True])
def test_a_removal_that_is_cut_short_leaves_no_rows_without_their_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    directory = tmp_path / "raw"
    names = [shard_name("train", number) for number in range(9)]
    for name in names:
        directory.mkdir(exist_ok=True)
        tar_path(directory, name).touch()
        rows_path(directory, name).touch()
    states: list[set[str]] = []
    remove = os.unlink

    def watched(path: Any, *args: Any, **kwargs: Any) -> None:
        remove(path, *args, **kwargs)
        states.append({found.name for found in directory.iterdir()})

    monkeypatch.setattr(os, "unlink", watched)
    if whole:
        remove_shards(directory)
    else:
        remove_shard(directory, names[0])
    assert len(states) == (18 if whole else 2)
    for state in states:
        tars = {name.replace(".parquet", ".tar") for name in state if name.endswith(".parquet")}
        assert tars <= state
