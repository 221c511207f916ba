"""Shards that are made in scratch and lie in a store: bytes, kills, strangers, and refusals."""

import errno
import os
import pickle
import platform
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fsspec
import orjson
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import cli
from pipeline import afar
from pipeline.afar import Afar
from pipeline.depot import Depot
from pipeline.errors import UserError
from pipeline.fetch import FetchStage
from pipeline.hold import Part
from pipeline.plan import planned_shards
from pipeline.recipe import load_recipe
from pipeline.repair import repair
from pipeline.rows import DamagedError, check_seal, read_info, write_rows
from pipeline.scratch import process_scratch, scratch, sweep
from pipeline.shard import ShardWriter, list_shards, rows_path, tar_path
from pipeline.share.index import INDEX, PENDING
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.share.remote import RemoteStore
from pipeline.share.transfer import hash_file
from pipeline.status import read_status
from pipeline.takedown import take_down
from pipeline.verify import verify
from pipeline.work import Work
from tests.crashing import (
    NUM_POSTS,
    QUIET,
    contents,
    fetch,
    in_child,
    make_source,
    meet_fault,
    original_path,
    prepare,
    temporaries,
    watch,
)
from tests.indexed_tars import index_tar, pack
from tests.s3_server import BUCKET
from tests.test_crash_commands import (
    LIMIT,
    Gate,
    Source,
    finish,
    make_undisturbed,
    run_command,
    start,
)

URL = f"s3://{BUCKET}/sets/tiny"
STEP = 40  # of the operations on disk, at which a run is killed where time is short


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A source, and what a run makes of it in a work folder of its own."""
    return make_undisturbed(tmp_path_factory.mktemp("source"))


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


@pytest.fixture(autouse=True)
def scratch_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scratch folders are, of this process and of those that it starts."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return place


def both(source: Source, work: Work, store: str, num_workers: int = 1) -> None:
    for command in (fetch, prepare):
        summary = command(source.root, work, store=store, num_workers=num_workers)
        assert not summary.errors


def shards_in(files: "fsspec.AbstractFileSystem") -> dict[str, bytes]:
    """Return the shards that lie in the bucket, as ``contents`` does for a work folder."""
    root = URL.removeprefix("s3://")
    found = {path.removeprefix(f"{root}/"): path for path in files.find(root)}
    names = [name for name in found if name.startswith(("raw/", "samples/"))]
    return {name: files.cat_file(found[name]) for name in names}


def rows_of(shards: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in shards.items() if name.endswith(".parquet")}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_store_gets_the_bytes_of_a_work_folder(
    source: Source,
    work: Work,
    scratch_dir: Path,
    s3: "fsspec.AbstractFileSystem",
    num_workers: int,
) -> None:
    both(source, work, URL, num_workers)
    assert shards_in(s3) == source.expected
    assert contents(work) == rows_of(source.expected)
    assert list(scratch_dir.glob("nurie-scratch-*")) == []
    assert temporaries(work) == []
    status = read_status(work)
    undisturbed = read_status(Work(source.root / "undisturbed"))
    assert status.adds_up
    assert status.stages == undisturbed.stages
    assert status.asked.num_attempts == undisturbed.asked.num_attempts == NUM_POSTS


def test_the_requests_that_a_shard_costs(
    source: Source, work: Work, s3: "fsspec.AbstractFileSystem", monkeypatch: pytest.MonkeyPatch
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
        command(source.root, work, store=URL)
        num_shards = len(list_shards(work.raw_dir))
        one = {"put_object": num_put, "get_object": num_got, "delete_object": 1}
        assert asked == {method: num * num_shards for method, num in one.items()}
        asked.clear()
        command(source.root, work, store=URL)
        assert not asked


def test_what_is_done_is_not_done_again(
    source: Source, work: Work, s3: "fsspec.AbstractFileSystem", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where the driver's folder is lost and planned anew."""
    both(source, work, URL)
    shutil.rmtree(work.root)

    def put(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(RemoteStore, "put", put)
    for _ in range(2):
        both(source, work, URL)
    assert contents(work) == rows_of(source.expected)


def test_a_shard_that_is_handed_out_has_no_rows_in_the_folder(
    source: Source, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the run then: the folder never holds rows that the store has replaced."""
    store = str(tmp_path / "store")
    both(source, work, store)
    seen = []

    def stop(stage: Afar, name: str, tick: object) -> None:
        seen.append(name)
        assert not any(rows_path(work.samples_dir, name).exists() for name in list_shards(raw))
        raise KeyboardInterrupt

    raw = work.raw_dir
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Afar, "__call__", stop)
        prepare(source.root, work, store=store, size=48)
    assert len(seen) == 1
    both(source, work, store)
    assert contents(work) == rows_of(source.expected)


def test_a_push_from_rows_alone_completes_the_store(
    source: Source, work: Work, tmp_path: Path, s3: "fsspec.AbstractFileSystem"
) -> None:
    both(source, work, URL)
    again = Work(tmp_path / "again")
    with pytest.raises(UserError, match="no data set is shared there"):
        pull(URL, again, QUIET)
    assert push(work, URL, QUIET).num_moved == 4  # papers
    assert push(work, f"{URL}/", QUIET).num_moved == 0
    pull(URL, again, QUIET)
    assert verify(again.root) == []
    expected = {n: d for n, d in source.expected.items() if n.startswith("samples/")}
    assert contents(again) == expected

    prepare(source.root, work, store=URL, size=48)
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
    prepare(source.root, work, store=URL, size=48)
    push(work, URL, QUIET)
    assert shards_in(s3) == shards_in(s3) | contents(again)


def test_a_takedown_that_was_pushed_is_not_undone(
    source: Source, work: Work, tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    both(source, work, store)
    push(work, store, QUIET)
    again = Work(tmp_path / "again")
    pull(store, again, QUIET)
    take_down(again, [2])
    push(again, store, QUIET)
    before = contents_of(Path(store))
    tries: list[Callable[[Work], object]] = [
        lambda place: fetch(source.root, place, store=store),
        lambda place: prepare(source.root, place, store=store),
        lambda place: prepare(source.root, place, store=store, size=48),
        lambda place: push(place, store, QUIET),
    ]
    for run in tries:
        with pytest.raises(UserError, match=r"were taken down in what was pushed .* Remove raw/"):
            run(work)
    with pytest.raises(UserError, match="were taken down in what was pushed there"):
        fetch(source.root, Work(tmp_path / "new"), store=store)  # as after the folder was lost
    assert contents_of(Path(store)) == before
    for kind in ("raw", "plan", "ledger"):
        shutil.rmtree(Path(store) / kind)
    with pytest.raises(UserError, match="were taken down in what was pushed there"):
        fetch(source.root, work, store=store)
    assert verify(Path(store)) == []
    assert push(again, store, QUIET).num_moved == 0


def test_only_the_recipe_is_pushed_elsewhere(source: Source, work: Work, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    both(source, work, store)
    with pytest.raises(UserError, match="has the pictures; push --recipe-only to another place"):
        push(work, store, QUIET, recipe_only=True)
    with pytest.raises(UserError, match="the tars of its shards are in"):
        push(work, str(tmp_path / "elsewhere"), QUIET)
    push(work, str(tmp_path / "elsewhere"), QUIET, recipe_only=True)
    assert (tmp_path / "elsewhere" / INDEX).is_file()


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


def contents_of(store: Path) -> dict[str, bytes]:
    return contents(Work(store))


def run_until(source: Source, work: Work, store: Path, number: int) -> None:
    """Fetch and prepare, and be killed at the ``number``-th operation on disk, wherever."""
    meet_fault("kill", number, work.root.parent)
    both(source, work, str(store))


def count_operations(source: Source, work: Work, store: Path) -> int:
    operations: list[str] = []
    watch(work.root.parent, lambda kind, *_: operations.append(kind))
    both(source, work, str(store))
    return len(operations)


def check_killed(source: Source, work: Work, store: Path, number: int) -> bool:
    """Kill a run, look, run it again; return whether it was."""
    ended = in_child(partial(run_until, source, work, store, number))
    for directory in (store / "raw", store / "samples"):
        for name in list_shards(directory):
            check_seal(rows_path(directory, name))
            tar_sum = read_info(rows_path(directory, name))["tar_sha256"]
            assert hash_file(tar_path(directory, name)) == tar_sum
    both(source, work, str(store))
    assert contents_of(store) == source.expected
    assert contents(work) == rows_of(source.expected)
    assert temporaries(work) == []
    shutil.rmtree(work.root)
    shutil.rmtree(store)
    return bool(ended)


@pytest.mark.parametrize("step", [STEP, pytest.param(3, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_costs_the_shard_in_hand(
    source: Source, work: Work, tmp_path: Path, scratch_dir: Path, step: int
) -> None:
    store = tmp_path / "store"
    total = in_child(partial(count_operations, source, work, store))
    assert contents_of(store) == source.expected
    shutil.rmtree(work.root)
    shutil.rmtree(store)
    number = step
    while check_killed(source, work, store, number):
        number += step
    assert number > total - 10 > 4 * STEP  # a few depend on what else the machine does
    assert list(scratch_dir.glob("nurie-scratch-*")) == []


def test_killed_commands_go_on_and_a_lost_folder_is_planned_anew(
    tmp_path: Path, work: Work, source: Source, s3: "fsspec.AbstractFileSystem"
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
        assert len(list_shards(work.raw_dir)) == 1  # it has been put, and brought
        gate.open()
        shutil.rmtree(work.root)
        run_command(command)
    run_command([*plain.command("prepare", work), "--store", URL])
    found = {n: d for n, d in shards_in(s3).items() if n.endswith(".tar")}
    assert found == {n: d for n, d in source.expected.items() if n.endswith(".tar")}
    assert read_status(work).adds_up


def test_ranks_with_folders_of_their_own_give_the_bytes_of_one(
    source: Source, tmp_path: Path, s3: "fsspec.AbstractFileSystem"
) -> None:
    """Near duplicates are looked for among all, and any rank's folder will do to push."""
    parts = [Part(rank, 2) for rank in range(2)]
    works = [Work(tmp_path / f"work-{part.rank}") for part in parts]
    for part, work in zip(parts, works, strict=True):
        assert not fetch(source.root, work, store=URL, part=part).errors
        assert len(list_shards(work.raw_dir)) == 1
    for part, work in zip(parts, works, strict=True):
        assert not prepare(source.root, work, store=URL, part=part, size=48).errors
        assert len(list_shards(work.raw_dir)) == 2
        assert len(list_shards(work.samples_dir)) == 1
    push(works[0], URL, QUIET)
    for part, work in zip(parts, works, strict=True):
        assert not prepare(source.root, work, store=URL, part=part).errors
    assert shards_in(s3) == source.expected
    push(works[0], URL, QUIET)
    assert contents(works[0]) == rows_of(source.expected)
    again = Work(tmp_path / "again")
    pull(URL, again, QUIET)
    assert verify(again.root) == []


def test_what_another_run_put_meanwhile_is_told_and_then_taken(
    source: Source, work: Work, tmp_path: Path
) -> None:
    """Such as a worker of a killed run that was slow to die."""
    store = str(tmp_path / "store")
    fetch(source.root, work, store=store)
    first = list_shards(work.raw_dir)[0]
    known = rows_path(work.raw_dir, first)
    with pq.ParquetFile(known) as file:
        table = file.read().replace_schema_metadata(None)
    info, size = read_info(known), known.stat().st_size
    write_rows(known, [table], info | {"fingerprint": info["fingerprint"][::-1]})
    assert known.stat().st_size == size  # or it would be found out first
    assert list(prepare(source.root, work, store=store).errors) == [first]
    both(source, work, store)
    assert contents_of(Path(store)) == source.expected


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


def test_originals_that_were_tampered_with_are_refused(
    source: Source, work: Work, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    fetch(source.root, work, store=str(store))
    first, second = list_shards(work.raw_dir)
    flip(tar_path(store / "raw", first))
    refused = call(
        *("prepare", source.root / "recipe.toml", "--work", work.root, "--workers", 1),
        *("--store", store),
    )
    assert refused.exit_code == 1
    where = store / "raw" / first
    assert f"shard {first} failed: {where}.tar: damaged; its bytes do not" in refused.stderr
    assert list_shards(work.samples_dir) == list_shards(store / "samples") == [second]
    Path(f"{where}.parquet").unlink()  # as it says
    both(source, work, str(store))
    assert contents_of(store) == source.expected


@pytest.mark.parametrize("kind", ["raw", "samples", "ledger"])
def test_rows_that_were_tampered_with_are_refused(
    source: Source, work: Work, tmp_path: Path, kind: str
) -> None:
    store = tmp_path / "store"
    both(source, work, str(store))
    first, second = list_shards(work.raw_dir)
    forged = rows_path(store / kind, first)
    for forge in (
        lambda: flip(forged),
        lambda: shutil.copy(rows_path(store / kind, second), forged),
    ):
        forge()
        rows_path(work.root / kind, first).unlink(missing_ok=True)
        with pytest.raises(DamagedError, match=rf"{forged}: damaged, or not the rows of {first}"):
            prepare(source.root, work, store=str(store))
    forged.unlink()  # as it says
    both(source, work, str(store))
    assert contents_of(store) == source.expected


@pytest.mark.parametrize("kind", ["raw", "plan"])
def test_rows_that_another_wrote_with_a_seal_of_their_own_are_no_input(
    source: Source, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    store = tmp_path / "store"
    fetch(source.root, work, store=str(store))
    first, second = list_shards(work.raw_dir)
    forged = rows_path(store / kind, first)
    with pq.ParquetFile(forged) as file:
        table = file.read().replace_schema_metadata(None)
    before = forged.read_bytes()
    info = read_info(forged)
    if kind == "raw":
        info["fingerprint"] = info["fingerprint"][::-1]
        write_rows(forged, [table], info)
        assert len(forged.read_bytes()) == len(before)  # or it would be brought first
        summary = prepare(source.root, work, store=str(store))
        assert list(summary.fates.elements()) == ["kept"] * planned_shards(work.plan_path)[second]
    else:
        write_rows(forged, [table.set_column(0, "post_id", pc.add(table["post_id"], 10))], info)
        monkeypatch.setattr(Depot, "_put_plans", lambda *_: None)
        (store / "raw" / f"{first}.parquet").unlink()
        summary = fetch(source.root, work, store=str(store))
    assert list(summary.errors) == [first]
    assert "parquet: not made of what" in summary.errors[first]


def test_a_stage_away_needs_nothing_of_the_drivers(source: Source, tmp_path: Path) -> None:
    store, work = tmp_path / "store", Work(tmp_path / "work")
    fetch(source.root, work, store=str(store))
    shutil.rmtree(store / "raw")
    work.root.rename(tmp_path / "hidden")
    settings = load_recipe(str(source.root / "recipe.toml")).source
    gone = FetchStage(work.plan_path, work.raw_dir, work.ledger_dir, settings)
    away: Afar = pickle.loads(pickle.dumps(Afar(gone, str(store))))
    names = list_shards(tmp_path / "hidden" / "raw")
    assert sum((away(name, lambda n: None) for name in names), Counter()) == {"fetched": NUM_POSTS}
    raw = {name: data for name, data in source.expected.items() if name.startswith("raw/")}
    assert contents_of(store) == raw
    assert not work.root.exists()


def test_a_folder_whose_tars_are_in_a_store_is_for_few_commands(
    source: Source, work: Work, tmp_path: Path
) -> None:
    both(source, work, str(tmp_path / "store"))
    elsewhere = str(tmp_path / "elsewhere")
    refused: list[Callable[[], object]] = [
        lambda: fetch(source.root, work),
        lambda: prepare(source.root, work),
        lambda: fetch(source.root, work, store=elsewhere),
        lambda: verify(work.root),
        lambda: repair(work, QUIET),
        lambda: take_down(work, [2]),
        lambda: pull(str(source.root), work, QUIET),
        lambda: push(work, elsewhere, QUIET),
    ]
    for command in refused[:6] + refused[7:]:
        with pytest.raises(UserError, match=rf"the tars of its shards are in {tmp_path}/store\. "):
            command()
    of_models = [["train", source.root / "recipe.toml"], ["eval", tmp_path / "no.safetensors"]]
    for words in of_models:
        error = call(*words, "--work", work.root).exception
        assert isinstance(error, UserError)
        assert "`train --shards` with what was pushed" in str(error)
    assert contents(work) == rows_of(source.expected)
    assert contents_of(tmp_path / "store") == source.expected


def test_a_store_and_a_folder_that_do_not_go_together_are_refused(
    source: Source, work: Work, tmp_path: Path
) -> None:
    """What lies in either stays as it is."""
    store = str(tmp_path / "store")
    both(source, work, store)
    other = Work(tmp_path / "other")
    with pytest.raises(UserError, match="holds the shards of another plan; name another place"):
        fetch(source.root, Work(tmp_path / "less"), store=store, limit=3)
    done = Work(source.root / "undisturbed")
    with pytest.raises(UserError, match="undisturbed/raw: holds shards; with --store give a work"):
        fetch(source.root, done, store=str(tmp_path / "new"))
    pushed = str(tmp_path / "pushed")
    push(done, pushed, QUIET)
    with pytest.raises(UserError, match="holds shards that no `--store` put there"):
        fetch(source.root, other, store=pushed)
    (tmp_path / "store").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="what was put there is gone; is it the same store"):
        fetch(source.root, work, store=store)
    (tmp_path / "moved").rename(tmp_path / "store")
    assert contents(work) == rows_of(source.expected)
    for place in (other.root, other.root / "raw"):
        with pytest.raises(UserError, match="is the work folder, or within it"):
            fetch(source.root, other, store=str(place))
    with pytest.raises(UserError, match="plan in another work folder, with another --store"):
        fetch(source.root, work, store=store, replan=True)
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
            fetch(source.root, other, store=url)
    assert contents_of(tmp_path / "store") == contents(done) == source.expected


def test_a_store_out_of_reach_is_a_sentence(
    source: Source, work: Work, s3: "fsspec.AbstractFileSystem", monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["fetch", source.root / "recipe.toml", "--work", work.root, "--workers", 1, "--store"]
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
    source: Source, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ShardWriter, "add", put)
    advice = f"no space left on device; make room there on {platform.node()}, or set TMPDIR, and"
    with pytest.raises(UserError, match=advice):
        fetch(source.root, work, store=str(tmp_path / "store"))


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
    monkeypatch.setattr(afar, "process_scratch", lambda: kept)
    assert fetch(root, work, store=str(tmp_path / "store")).fates == {"fetched": NUM_POSTS}
    assert len(list(kept.iterdir())) == 1
    assert in_child(lambda: process_scratch() == process_scratch() and process_scratch().is_dir())
    assert len(list(scratch_dir.iterdir())) == 1
    sweep()
    assert list(scratch_dir.iterdir()) == []


def test_scratch_of_the_dead_is_swept_and_that_of_the_living_is_not(scratch_dir: Path) -> None:
    assert in_child(hold_scratch) == signal.SIGKILL
    (dead,) = scratch_dir.iterdir()
    (scratch_dir / "nurie-scratch-link").symlink_to(scratch_dir.parent)
    with scratch() as own:
        assert not dead.exists()
        (own / "file").write_bytes(b"x")
        sweep()
        assert (own / "file").exists()
        with scratch() as another:
            assert another != own
    assert [path.name for path in scratch_dir.iterdir()] == ["nurie-scratch-link"]
