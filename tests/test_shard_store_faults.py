"""Shards that lie in a store: kills, damage, strangers' hands, and other runs beside."""

import errno
import shutil
import signal
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fsspec
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.disk import hash_file
from pipeline.errors import DamagedError, UserError
from pipeline.executor import Summary
from pipeline.maintenance.status import read_status
from pipeline.planning.plan import planned_shards
from pipeline.shard_store import driver
from pipeline.shard_store.files import Kind, download_rows
from pipeline.shard_store.worker import _open
from pipeline.shards.rows import check_seal, read_info, write_rows
from pipeline.shards.shard import list_shards, rows_path, tar_path
from pipeline.stores.open import open_writable
from pipeline.work import Work
from tests.calls import call
from tests.crashing import (
    contents,
    fetch,
    in_child,
    make_source,
    meet_fault,
    prepare,
    temporaries,
    watch,
)
from tests.files import flip
from tests.real_commands import LIMIT, Gate, Source, finish, run_command, start
from tests.shard_stores import URL, both, contents_of, rows_of, shards_in

pytestmark = pytest.mark.usefixtures("scratch_dir")

STEP = 40  # of the operations on disk, at which a run is killed where time is short


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


def run_until(local: Source, work: Work, store: Path, number: int) -> None:
    """Fetch and prepare, and be killed at the ``number``-th operation on disk, wherever."""
    meet_fault("kill", number, work.root.parent)
    both(local, work, str(store))


def count_operations(local: Source, work: Work, store: Path) -> int:
    operations: list[str] = []
    watch(work.root.parent, lambda kind, *_: operations.append(kind))
    both(local, work, str(store))
    return len(operations)


def check_killed(local: Source, work: Work, store: Path, number: int) -> bool:
    """Kill a run, look, run it again; return whether it was."""
    ended = in_child(partial(run_until, local, work, store, number))
    for directory in (store / "raw", store / "samples"):
        for name in list_shards(directory):
            check_seal(rows_path(directory, name))
            tar_sum = read_info(rows_path(directory, name))["tar_sha256"]
            assert hash_file(tar_path(directory, name)) == tar_sum
    both(local, work, str(store))
    assert contents_of(store) == local.expected
    assert contents(work) == rows_of(local.expected)
    assert temporaries(work) == []
    shutil.rmtree(work.root)
    shutil.rmtree(store)
    return bool(ended)


@pytest.mark.slow
@pytest.mark.parametrize("step", [STEP, pytest.param(3, marks=pytest.mark.soak)])
def test_a_kill_at_any_moment_costs_the_shard_in_hand(
    local: Source, work: Work, tmp_path: Path, scratch_dir: Path, step: int
) -> None:
    store = tmp_path / "store"
    total = in_child(partial(count_operations, local, work, store))
    assert contents_of(store) == local.expected
    shutil.rmtree(work.root)
    shutil.rmtree(store)
    number = step
    while check_killed(local, work, store, number):
        number += step
    assert number > total - 10 > 4 * STEP  # a few depend on what else the machine does
    assert list(scratch_dir.glob("nurie-scratch-*")) == []


@pytest.mark.slow
def test_killed_commands_go_on_and_a_lost_folder_is_planned_anew(
    tmp_path: Path, work: Work, local: Source, s3: "fsspec.AbstractFileSystem"
) -> None:
    root = tmp_path / "source"
    make_source(root, "http://127.0.0.1:1/original/{{id}}.jpg")
    plain = Source(root, {})
    with Gate(root, num_free=4) as gate:
        command = [*plain.fetch(gate, work), "--store", URL]
        process = start(command)
        assert gate.is_full.wait(LIMIT)
        process.send_signal(signal.SIGKILL)
        finish(process)
        assert len(list_shards(work.raw_dir)) == 1  # it has been put, and downloaded
        gate.open()
        shutil.rmtree(work.root)
        run_command(command)
    run_command([*plain.command("prepare", work), "--store", URL])
    found = {n: d for n, d in shards_in(s3).items() if n.endswith(".tar")}
    assert found == {n: d for n, d in local.expected.items() if n.endswith(".tar")}
    assert read_status(work).adds_up


def test_a_worker_that_begins_while_the_store_is_out_of_reach_waits_for_it() -> None:
    slept = list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        patch.undo()

    for place in ("stores.open.check_store", "stores.remote.read_range"):  # SFTP's is the first
        with pytest.MonkeyPatch.context() as patch:
            _open.cache_clear()
            patch.setattr("time.sleep", sleep)
            patch.setattr(f"pipeline.{place}", refuse)
            _open("memory://waited-for/tiny").sizes()
    assert slept == [1, 1]


def refuse(place: str, *rest: object, **options: object) -> None:
    try:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    except OSError as error:
        raise UserError(f"{place}: Connection refused.") from error


def test_what_another_run_put_meanwhile_is_told_and_then_taken(
    local: Source, work: Work, tmp_path: Path
) -> None:
    """Such as a worker of a killed run that was slow to die."""
    store = str(tmp_path / "store")
    fetch(local.root, work, store=store)
    first = list_shards(work.raw_dir)[0]
    known = rows_path(work.raw_dir, first)
    with pq.ParquetFile(known) as file:
        table = file.read().replace_schema_metadata(None)
    info, size = read_info(known), known.stat().st_size
    write_rows(known, [table], info | {"fingerprint": info["fingerprint"][::-1]})
    assert known.stat().st_size == size  # or it would be found out first
    assert list(prepare(local.root, work, store=store).errors) == [first]
    both(local, work, store)
    assert contents_of(Path(store)) == local.expected


def test_originals_that_were_tampered_with_are_refused(
    local: Source, work: Work, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    fetch(local.root, work, store=str(store))
    first, second = list_shards(work.raw_dir)
    flip(tar_path(store / "raw", first))
    refused = call(
        *("prepare", local.root / "recipe.toml", "--work", work.root, "--workers", 1),
        *("--store", store),
    )
    assert refused.exit_code == 1
    where = store / "raw" / first
    assert f"shard {first} failed: {where}.tar: damaged; its bytes do not" in refused.stderr
    assert list_shards(work.samples_dir) == list_shards(store / "samples") == [second]
    Path(f"{where}.parquet").unlink()  # as it says
    both(local, work, str(store))
    assert contents_of(store) == local.expected


@pytest.mark.parametrize("kind", ["raw", "samples", "ledger"])
def test_rows_that_were_tampered_with_are_refused(
    local: Source, work: Work, tmp_path: Path, kind: str
) -> None:
    store = tmp_path / "store"
    both(local, work, str(store))
    first, second = list_shards(work.raw_dir)
    forged = rows_path(store / kind, first)
    for forge in (
        lambda: flip(forged),
        lambda: shutil.copy(rows_path(store / kind, second), forged),
    ):
        forge()
        rows_path(work.root / kind, first).unlink(missing_ok=True)
        with pytest.raises(DamagedError, match=rf"{forged}: damaged, or not the rows of {first}"):
            prepare(local.root, work, store=str(store))
    forged.unlink()  # as it says
    both(local, work, str(store))
    assert contents_of(store) == local.expected


@pytest.mark.parametrize("kind", ["raw", "plan"])
def test_rows_that_another_wrote_with_a_seal_of_their_own_are_no_input(
    local: Source, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    store = tmp_path / "store"
    fetch(local.root, work, store=str(store))
    first, second = list_shards(work.raw_dir)
    forged = rows_path(store / kind, first)
    with pq.ParquetFile(forged) as file:
        table = file.read().replace_schema_metadata(None)
    before = forged.read_bytes()
    info = read_info(forged)
    if kind == "raw":
        info["fingerprint"] = info["fingerprint"][::-1]
        write_rows(forged, [table], info)
        assert len(forged.read_bytes()) == len(before)  # or it would be downloaded first
        summary = prepare(local.root, work, store=str(store))
        assert list(summary.fates.elements()) == ["kept"] * planned_shards(work.plan_path)[second]
    else:
        later = table.set_column(0, table.schema.field(0), pc.add(table["post_id"], 10))
        write_rows(forged, [later], info)
        monkeypatch.setattr(driver, "put_plans", lambda *_: None)
        (store / "raw" / f"{first}.parquet").unlink()
        summary = fetch(local.root, work, store=str(store))
    assert list(summary.errors) == [first]
    assert "parquet: not made of what" in summary.errors[first]


def test_a_large_file_in_the_place_of_rows_does_not_fill_the_memory(tmp_path: Path) -> None:
    files, path = fsspec.filesystem("memory"), tmp_path / "rows"
    files.pipe_file("/large/raw/train-000000.parquet", b"\xff" * 2**27)
    store = open_writable("memory://large")
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError, match="damaged, or not the rows of train-000000"):
            download_rows(store, Kind.RAW, "train-000000", path)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
        files.rm("/large", recursive=True)
    assert not download_rows(store, Kind.RAW, "train-000000", path)
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["page", "seal", "footer"])
@pytest.mark.parametrize("kind", ["raw", "ledger", "samples"])
@pytest.mark.parametrize("command", [fetch, prepare])
def test_a_flipped_bit_in_the_folders_rows_is_mended_from_the_store(
    local: Source,
    work: Work,
    tmp_path: Path,
    command: Callable[..., Summary],
    kind: str,
    where: str,
) -> None:
    """The rows that were not damaged are neither brought nor made anew."""
    store = tmp_path / "store"
    both(local, work, str(store))
    damaged, sound = (rows_path(work.root / kind, name) for name in list_shards(work.raw_dir))
    data, kept = damaged.read_bytes(), sound.stat()
    flip(damaged, {"page": 4, "seal": data.rindex(b"sha256:") + 9, "footer": -5}[where])
    with pytest.raises(DamagedError):
        check_seal(damaged)
    assert not command(local.root, work, store=str(store)).errors
    assert damaged.read_bytes() == data
    assert (sound.stat().st_ino, sound.stat().st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    assert contents(work) == rows_of(local.expected)
    assert contents_of(store) == local.expected
