"""takedown out of a store: the shards concerned are written anew there, and nothing comes back."""

import shutil
from functools import partial
from pathlib import Path

import fsspec
import pytest

from pipeline.disk import temporary_path
from pipeline.errors import DamagedError, UserError
from pipeline.hold import Part
from pipeline.maintenance.status import read_status
from pipeline.maintenance.takedown import take_down
from pipeline.maintenance.verify import verify
from pipeline.planning.plan import planned_shards, read_planned
from pipeline.removals import read_removals
from pipeline.schema import LEDGER, SAMPLES
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import list_shards, rows_path, tar_path
from pipeline.share.index import INDEX, LOCK, PENDING
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.work import Work
from tests.calls import call
from tests.crashing import QUIET, contents, fetch, in_child, meet_fault, prepare, temporaries, watch
from tests.files import files_in, flip
from tests.real_commands import Source
from tests.shard_stores import URL, both, contents_of, rows_of
from tests.takedowns import cut_short, holding, secrets_of

pytestmark = pytest.mark.usefixtures("scratch_dir")

GONE = 2


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


def shard_of(work: Work, post_id: int) -> str:
    (name,) = (
        name
        for name in planned_shards(work.plan_path)
        if post_id in read_planned(work.plan_path, name)["post_id"].to_pylist()
    )
    return name


def everything(files: "fsspec.AbstractFileSystem", into: Path) -> dict[str, bytes]:
    """Return all that lies in the bucket; a copy of it is left in a folder."""
    shutil.rmtree(into, ignore_errors=True)
    files.get(URL, str(into), recursive=True)
    return files_in(into)


def as_on_disk(local: Source, root: Path) -> Work:
    """Return a plain work folder of the same posts, out of which the post was taken."""
    work = Work(root)
    shutil.copytree(local.root / "undisturbed", root)
    take_down(work, [GONE])
    return work


@pytest.mark.slow
def test_it_gives_the_bytes_of_a_takedown_on_disk_and_leaves_the_rest(
    local: Source, work: Work, tmp_path: Path, s3: "fsspec.AbstractFileSystem"
) -> None:
    both(local, work, URL)
    push(work, URL, QUIET)
    found = secrets_of(Work(local.root / "undisturbed"), GONE)
    secrets = [secret for secret in found if len(secret) > 8]  # these records have no md5
    secrets.append(f"number_{GONE} ".encode())  # a tag
    before = everything(s3, tmp_path / "copy")
    assert len(holding(tmp_path / "copy", secrets)) > 5
    work.report_path.write_text("its picture")
    name = shard_of(work, GONE)
    done = call("takedown", work.root, GONE, "--store", URL)
    assert done.exit_code == 0, done.output
    assert "1 post taken down, 1 shard written anew." in done.output
    assert f"What was pushed to {URL} is not complete until the next `push`.\n" in done.output
    after = everything(s3, tmp_path / "copy")
    assert holding(tmp_path / "copy", secrets) == []
    assert holding(work.root, secrets) == []
    changed = {path for path in after.keys() | before.keys() if after.get(path) != before.get(path)}
    assert changed == {
        *(f"{kind}/{name}.{end}" for kind in ("raw", "samples") for end in ("tar", "parquet")),
        *(f"{kind}/{name}.parquet" for kind in ("plan", "ledger")),
        *("plan.json", "takedown.json", INDEX, PENDING, LOCK),
    }
    expected = contents(as_on_disk(local, tmp_path / "disk"))
    shards = {k: v for k, v in after.items() if k.startswith(("raw/", "samples/"))}
    assert shards == expected
    assert contents(work) == rows_of(expected)
    assert read_removals(work.removals_path).post_ids == (GONE,)
    assert temporaries(work) == []
    assert not work.cleared_dir.exists()
    assert not work.report_path.exists()
    status = read_status(work)
    assert status.adds_up
    assert status.stages["prepare"].fates["removed/takedown"] == 1


@pytest.mark.slow
def test_what_comes_after_it_does_not_bring_it_back(
    local: Source, work: Work, tmp_path: Path, s3: "fsspec.AbstractFileSystem"
) -> None:
    """Nothing is made again; the store is completed; a folder that was lost learns of it."""
    both(local, work, URL)
    push(work, URL, QUIET)
    again = Work(tmp_path / "again")
    pull(URL, again, QUIET)
    take_down(work, [GONE], store=URL)
    with pytest.raises(UserError, match="not complete yet"):
        pull(URL, again, QUIET)
    before = everything(s3, tmp_path / "copy")
    both(local, work, URL)
    assert everything(s3, tmp_path / "copy") == before
    push(work, URL, QUIET)
    pull(URL, again, QUIET)
    assert verify(again.root) == []
    rows = read_rows(rows_path(again.samples_dir, shard_of(work, GONE)), SAMPLES).to_pylist()
    assert {row["post_id"]: row["status"] for row in rows}[GONE] == "removed"
    before = everything(s3, tmp_path / "copy")
    kept = contents(work)
    shutil.rmtree(work.root)
    both(local, work, URL)
    assert contents(work) == kept
    assert read_removals(work.removals_path).post_ids == (GONE,)
    assert push(work, URL, QUIET).num_moved == 0
    assert everything(s3, tmp_path / "copy") == before
    prepare(local.root, work, store=URL, size=48)
    assert "removed" in str(read_status(work).stages["prepare"].fates)


def test_other_folders_of_the_store_have_to_begin_anew(
    local: Source, work: Work, tmp_path: Path
) -> None:
    store, other = str(tmp_path / "store"), Work(tmp_path / "other")
    both(local, work, store)
    fetch(local.root, other, store=store)
    take_down(work, [GONE], store=store)
    before = contents_of(Path(store))
    for command in (
        lambda: fetch(local.root, other, store=store),
        lambda: prepare(local.root, other, store=store),
        lambda: take_down(other, [1], store=store),
        lambda: push(other, store, QUIET),
    ):
        with pytest.raises(UserError, match=f"and {other.root} still knows them. Remove it"):
            command()
    assert contents_of(Path(store)) == before
    shutil.rmtree(other.root)  # as it says
    both(local, other, store)
    assert contents(other) == contents(work)
    take_down(other, [1], store=store)
    assert read_removals(other.removals_path).post_ids == (1, GONE)


def take_until(work: Work, store: Path, number: int) -> None:
    """Take posts down, and be killed at the ``number``-th operation on disk, wherever."""
    meet_fault("kill", number, work.root.parent)
    take_down(work, [GONE, 5], store=str(store))


def count_operations(work: Work, store: Path) -> int:
    operations: list[str] = []
    watch(work.root.parent, lambda kind, *_: operations.append(kind))
    take_down(work, [GONE, 5], store=str(store))
    return len(operations)


def all_files(*folders: Path) -> dict[str, bytes]:
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for path in paths
        if not path.name.startswith(".lock")
    }


@pytest.mark.slow
@pytest.mark.parametrize("step", [47, pytest.param(5, marks=pytest.mark.soak)])
def test_a_kill_at_any_moment_loses_nothing(
    local: Source, work: Work, tmp_path: Path, scratch_dir: Path, step: int
) -> None:
    """Not even where the source of the pictures is gone, and in any shard."""
    store, safe = tmp_path / "store", tmp_path.parent / f"{tmp_path.name}-safe"
    both(local, work, str(store))
    push(work, str(store), QUIET)
    shutil.copytree(tmp_path, safe)
    total = in_child(partial(count_operations, work, store))
    expected = all_files(work.root, store)
    number, num_killed = step, 0
    while True:
        for folder in (work.root, store):
            shutil.rmtree(folder)
            shutil.copytree(safe / folder.name, folder)
        if not in_child(partial(take_until, work, store, number)):
            break
        num_killed += 1
        if read_removals(work.removals_path).unfinished is None:  # not begun, or all but over
            take_down(work, [GONE, 5], store=str(store))
        else:
            with pytest.raises(
                UserError, match=f"finish it: `takedown {work.root} --store {store}`"
            ):
                both(local, work, str(store))
            take_down(work, (), store=str(store))
        assert all_files(work.root, store) == expected
        assert temporaries(work) == []
        number += step
    assert num_killed > 5
    assert abs(number - total) <= 2 * step
    assert list(scratch_dir.glob("nurie-scratch-*")) == []


def test_a_damaged_tar_stops_it_before_anything_is_touched(
    local: Source, work: Work, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    both(local, work, str(store))
    name = shard_of(work, GONE)
    flip(tar_path(store / "samples", name))
    before = all_files(store, work.root)
    where = store / "samples" / name
    with pytest.raises(DamagedError, match=f"{where}.tar: damaged; .* and `prepare` makes the sha"):
        take_down(work, [GONE], store=str(store))
    assert all_files(store, work.root) == before
    rows_path(store / "samples", name).unlink()  # as it says
    both(local, work, str(store))
    take_down(work, [GONE], store=str(store))
    assert contents_of(store) == contents(as_on_disk(local, tmp_path / "disk"))


def test_damaged_originals_may_go_before_it_and_be_made_anew_after(
    local: Source, work: Work, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    both(local, work, str(store))
    name = shard_of(work, GONE)
    flip(tar_path(store / "raw", name))
    with pytest.raises(DamagedError, match="Remove .*, and `fetch` makes the shard anew"):
        take_down(work, [GONE], store=str(store))
    rows_path(store / "raw", name).unlink()
    take_down(work, [GONE], store=str(store))
    both(local, work, str(store))
    push(work, str(store), QUIET)
    assert verify(store) == []
    assert contents_of(store) == contents(as_on_disk(local, tmp_path / "disk"))


@pytest.mark.parametrize("step", ["clear_plan", "clear_differences"])
def test_a_plan_that_is_damaged_since_it_has_begun_is_made_anew_after(
    local: Source, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = tmp_path / "store"
    both(local, work, str(store))
    secrets = [s for s in secrets_of(Work(local.root / "undisturbed"), GONE) if len(s) > 8]
    cut_short(work, [GONE], step, monkeypatch, str(store))
    flip(work.plan_path)
    take_down(work, (), store=str(store))
    assert holding(store, secrets) == holding(work.root, secrets) == []
    both(local, work, str(store))
    push(work, str(store), QUIET)
    assert contents_of(store) == contents(as_on_disk(local, tmp_path / "disk"))


def test_shards_that_are_not_made_yet_are_made_without_it(local: Source, tmp_path: Path) -> None:
    """Of two ranks the one has fetched its shard; what a killed worker left of it is gone."""
    store = tmp_path / "store"
    works = [Work(tmp_path / f"work-{rank}") for rank in range(2)]
    whole = Work(tmp_path / "whole")
    fetch(local.root, works[0], store=str(store), part=Part(0, 2))
    (made,) = list_shards(works[0].raw_dir)
    (missing,) = planned_shards(works[0].plan_path).keys() - {made}
    gone = read_planned(works[0].plan_path, missing)["post_id"][0].as_py()
    left = tar_path(store / "raw", missing)
    for path in (left, temporary_path(left)):
        shutil.copy(tar_path(store / "raw", made), path)
    told = rows_path(works[0].ledger_dir, made)
    ledgers = [rows_path(root, missing) for root in (store / "ledger", works[0].ledger_dir)]
    for path in ledgers:  # it is put there first, and tells what the hosts said of every post
        write_rows(path, [read_rows(told, LEDGER)], read_info(told) | {"shard": missing})
    take_down(works[0], [gone], store=str(store))
    for path in (left, temporary_path(left), *ledgers):
        assert not path.exists()
    shutil.copytree(local.root / "undisturbed", whole.root)
    take_down(whole, [gone])
    for work in works:
        both(local, work, str(store))
    assert contents_of(store) == contents(whole)


def test_only_the_store_that_has_the_shards_will_do(
    local: Source, work: Work, tmp_path: Path
) -> None:
    both(local, work, str(tmp_path / "store"))
    here = Work(tmp_path / "here")
    shutil.copytree(local.root / "undisturbed", here.root)
    for place, store, why in (
        (work, "", "the tars of its shards are in .* `takedown` with --store"),
        (work, str(tmp_path / "elsewhere"), "the tars of its shards are in"),
        (here, str(tmp_path / "store"), "has its shards itself; leave --store out"),
    ):
        with pytest.raises(UserError, match=why):
            take_down(place, [GONE], store=store)
    (tmp_path / "store").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="what was put there is gone; is it the same store"):
        take_down(work, [GONE], store=str(tmp_path / "store"))
    assert not work.removals_path.exists()
