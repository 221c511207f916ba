"""push and pull between folders: what travels, what is refused, and what a fault leaves."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline import run
from pipeline.disk import hash_file, temporary_path
from pipeline.errors import DamagedError, UserError
from pipeline.lockfile.lock import write_lock
from pipeline.maintenance.verify import verify
from pipeline.planning.plan import planned_shards, read_planned
from pipeline.recipe_file import load_recipe
from pipeline.schema import SAMPLES
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import list_shards, rows_path, tar_path
from pipeline.share.index import CARD, INDEX, LOCK, PENDING, RECIPE
from pipeline.share.pull import parse_numbers, pull
from pipeline.share.push import push
from pipeline.stores import folder
from pipeline.work import Work
from tests.calls import call
from tests.files import files_in, flip
from tests.shares import (
    NUM_FILES,
    NUM_SAMPLES,
    QUIET,
    SHARD,
    forge_files,
    forge_rows,
    make_prepared,
    pull_to,
    refused,
    samples_of,
)


def rewrite_rows(directory: Path, shard: str) -> None:
    """Write a shard's rows as another version would: other bytes of the same rows."""
    path = rows_path(directory, shard)
    write_rows(path, [read_rows(path, SAMPLES)], read_info(path) | {"fingerprint": "0" * 16})


def test_what_is_pulled_is_what_was_pushed(made: Path, tmp_path: Path) -> None:
    again = pull_to(made / "there", tmp_path / "again")
    assert samples_of(again) == samples_of(Work(made / "work"))
    assert verify(again.root) == []
    assert not again.incoming_dir.exists()
    for name in (INDEX, LOCK, CARD, RECIPE):
        assert (again.share_dir / name).read_bytes() == (made / "there" / name).read_bytes()
    assert not (made / "there" / "raw").exists()
    assert not (made / "there" / PENDING).exists()
    status = call("status", again.root)
    assert status.exit_code == 0
    assert f"{NUM_SAMPLES}  kept" in status.output
    assert call("report", again.root).exit_code == 0


def test_the_commands_tell_what_travelled(made: Path, tmp_path: Path) -> None:
    first = call("push", made / "work", tmp_path / "there")
    assert first.exit_code == 0, first.output
    assert f"{NUM_FILES} files" in first.stdout
    assert f"{NUM_FILES} travelled" in first.stdout
    assert "0 travelled" in call("push", made / "work", tmp_path / "there").stdout
    assert f"{NUM_FILES} travelled" in call("pull", tmp_path / "there", tmp_path / "a").stdout
    part = call("pull", tmp_path / "there", tmp_path / "b", "--split", "train", "--shards", "0,2-3")
    assert "10 files" in part.stdout
    assert list_shards(tmp_path / "b" / "samples") == [f"train-00000{n}" for n in (0, 2, 3)]
    assert isinstance(call("pull", tmp_path / "a" / "x", tmp_path / "c").exception, UserError)


def test_parts_come_one_after_the_other(made: Path, tmp_path: Path) -> None:
    work = pull_to(made / "there", tmp_path, split="test")
    assert list_shards(work.samples_dir) == ["test-000000"]
    assert verify(work.root) == []
    moved = pull(str(made / "there"), work, QUIET, numbers={1, 2})
    assert moved.num_moved == 4
    assert len(list_shards(work.samples_dir)) == 3
    assert pull(str(made / "there"), work, QUIET).num_moved == 4
    assert samples_of(work) == samples_of(Work(made / "work"))
    for part in ({"split": "val"}, {"numbers": {77}}, {"split": "moon"}):
        with pytest.raises(UserError, match="no such"):
            pull(str(made / "there"), work, QUIET, **part)


@pytest.mark.parametrize(
    "text", ["", "a", "1-", "-1", "3-1", "1,,2", "0-99999999", "١", "1 ", "1" * 5000]
)
def test_numbers_of_shards_are_read_strictly(text: str) -> None:
    assert parse_numbers("0,3,7-9") == {0, 3, 7, 8, 9}
    with pytest.raises(UserError, match="--shards"):
        parse_numbers(text)


def test_only_what_differs_travels(work: Work, there: Path) -> None:
    named = push(work, str(there), QUIET, contact="someone@example.org")
    assert named.num_moved == len({CARD, "croissant.json"})
    written_at = (there / INDEX).stat().st_mtime_ns
    assert push(work, str(there), QUIET).num_moved == 0
    assert (there / INDEX).stat().st_mtime_ns == written_at  # it was whole at every moment
    tar_path(there / "samples", SHARD).unlink()
    rows_path(there / "samples", "train-000002").write_bytes(b"cut")
    assert push(work, str(there), QUIET).num_moved == 2
    (there / "notes.txt").write_text("not ours")
    with_contact = push(work, str(there), QUIET, contact="me@example.org")
    assert with_contact.num_moved == 2
    assert "me@example.org" in (there / CARD).read_text()
    assert (there / "notes.txt").exists()
    again = pull_to(there, work.root.parent / "again")
    assert samples_of(again) == samples_of(work)


def test_another_preparation_replaces_the_first(work: Work, there: Path) -> None:
    push(work, str(there), QUIET)
    again = pull_to(there, work.root.parent / "again", split="test")
    recipe = load_recipe(str(work.share_dir))
    recipe = replace(recipe, prepare=replace(recipe.prepare, size=32))
    run.prepare(recipe, work, QUIET)
    push(work, str(there), QUIET)
    assert verify(pull_to(there, again.root).root) == []
    assert samples_of(again) == samples_of(work)


def test_a_tar_that_is_the_same_does_not_travel_for_its_rows(
    work: Work, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = pull_to(there, work.root.parent / "again")
    damaged = "train-000001"
    flip(tar_path(again.samples_dir, damaged), 700)
    for shard in (SHARD, damaged):
        rewrite_rows(there / "samples", shard)
    forge_files(there)
    asked: list[str] = []
    download = folder.FolderStore.download

    def note(store: folder.FolderStore, name: str, *rest: Any) -> None:
        asked.append(name)
        download(store, name, *rest)

    monkeypatch.setattr(folder.FolderStore, "download", note)
    moved = pull(str(there), again, QUIET)
    assert sorted(asked) == sorted(
        f"samples/{name}" for name in (f"{SHARD}.parquet", f"{damaged}.tar", f"{damaged}.parquet")
    )
    assert moved.num_moved == len(asked)
    assert moved.num_moved_bytes == sum((there / name).stat().st_size for name in asked)
    assert samples_of(again) == files_in(there / "samples")
    assert verify(again.root) == []


def test_a_tar_that_is_kept_outlives_rows_that_are_refused(there: Path, tmp_path: Path) -> None:
    again = pull_to(there, tmp_path / "again")
    before = samples_of(again)
    forge_rows(there / "samples", SHARD, split=lambda values: ["test"] * len(values))
    forge_files(there)
    assert f"{SHARD} is refused" in refused(there, again.root)
    assert samples_of(again) == before


def test_from_a_recipe_alone_the_same_data_set_is_made(made: Path, tmp_path: Path) -> None:
    shared = call("push", made / "work", tmp_path / "there", "--recipe-only")
    assert "5 travelled" not in shared.stdout
    pulled = call("pull", tmp_path / "there", tmp_path / "again")
    assert pulled.exit_code == 0, pulled.output
    assert f"fetch {tmp_path}/again/share --locked --work {tmp_path}/again" in pulled.output
    images = f"{made}/512px/{{bucket}}/{{id}}.jpg"
    where = ("--work", tmp_path / "again", "--workers", 1)
    recipe = tmp_path / "again" / "share"
    fetched = call("fetch", recipe, "--locked", "--images", images, *where)
    assert fetched.exit_code == 0, fetched.output
    assert "30  same" in fetched.stdout
    prepared = call("prepare", recipe, *where)
    assert prepared.exit_code == 0, prepared.output
    again = Work(tmp_path / "again")
    tars = {name: data for name, data in samples_of(again).items() if name.endswith(".tar")}
    assert tars == {
        name: data for name, data in samples_of(Work(made / "work")).items() if name in tars
    }
    assert len(tars) == 5
    assert pull(str(tmp_path / "there"), again, QUIET).num_moved == 0  # leaves what was made
    assert len(list_shards(again.samples_dir)) == 5


def test_what_was_pulled_can_be_pushed_on(made: Path, tmp_path: Path) -> None:
    again = pull_to(made / "there", tmp_path / "again")
    push(again, str(tmp_path / "onwards"), QUIET)
    third = pull_to(tmp_path / "onwards", tmp_path / "third")
    assert samples_of(third) == samples_of(again)
    part = pull_to(made / "there", tmp_path / "part", split="test")
    with pytest.raises(UserError, match="is not done yet"):
        push(part, str(tmp_path / "onwards"), QUIET)


def test_a_lock_of_a_pulled_folder_waits_for_its_samples(made: Path, tmp_path: Path) -> None:
    again, lock = pull_to(made / "there", tmp_path / "again"), tmp_path / "posts.parquet"
    tar_path(again.samples_dir, SHARD).unlink()
    with pytest.raises(DamagedError, match=f"{SHARD}.tar: missing"):
        write_lock(again, lock)
    for lose in (
        rows_path(again.samples_dir, SHARD).unlink,
        partial(shutil.rmtree, again.samples_dir),
    ):
        lose()
        with pytest.raises(UserError, match="done yet; run `pull` or `fetch --locked` first"):
            write_lock(again, lock)
    pull_to(made / "there", again.root)
    assert write_lock(again, lock).info.fates["kept"] == NUM_SAMPLES


def test_an_interrupted_pull_goes_on_within_a_file(made: Path, tmp_path: Path) -> None:
    work = Work(tmp_path / "again")
    work.incoming_dir.mkdir(parents=True)
    whole = tar_path(made / "there" / "samples", SHARD).read_bytes()
    (work.incoming_dir / f"{SHARD}.tar").write_bytes(whole[:5000])
    (work.incoming_dir / "train-000001.tar").write_bytes(b"of another version")
    (work.incoming_dir / "train-000002.tar").write_bytes(whole * 5)
    pull(str(made / "there"), work, QUIET)
    assert samples_of(work) == samples_of(Work(made / "work"))


def test_a_part_that_comes_leaves_alone_what_was_prepared_here(work: Work, there: Path) -> None:
    recipe = load_recipe(str(there))
    run.prepare(replace(recipe, prepare=replace(recipe.prepare, jpeg_quality=50)), work, QUIET)
    before = samples_of(work)
    pull(str(there), work, QUIET, split="test")
    after, shared = samples_of(work), samples_of(Work(there))
    assert {n: d for n, d in after.items() if n.startswith("train")} == {
        n: d for n, d in before.items() if n.startswith("train")
    }
    assert {n: d for n, d in after.items() if n.startswith("test")} == {
        n: d for n, d in shared.items() if n.startswith("test")
    }


def test_what_a_refused_pull_has_brought_is_in_no_later_ones_way(
    made: Path, tmp_path: Path
) -> None:
    sound, odd = made / "there", Path(shutil.copytree(made / "there", tmp_path / "odd"))
    text = (odd / RECIPE).read_text()
    (odd / RECIPE).write_text(text.replace('name = "tiny"', 'name = "other"'))
    forge_files(odd)
    pulled = pull_to(sound, tmp_path / "again")
    assert "is not the recipe of its lock" in refused(odd, pulled.root)
    pull_to(sound, pulled.root)
    assert not pulled.incoming_dir.exists()


def test_a_full_disk_is_a_sentence(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "Make room, or pull a part" in refused(made / "there", tmp_path / "again")


def test_only_a_later_state_of_the_same_data_set_takes_the_place_of_what_is_there(
    made: Path, tmp_path: Path
) -> None:
    source = make_prepared(tmp_path, 8)
    push(source, str(tmp_path / "there"), QUIET)
    other = pull_to(tmp_path / "there", tmp_path / "other")
    pulled, fetched = (Work(shutil.copytree(other.root, tmp_path / p)) for p in ("a", "b"))
    shutil.copytree(source.raw_dir, fetched.raw_dir)
    prepared = Work(shutil.copytree(source.root, tmp_path / "c"))
    shutil.rmtree(prepared.raw_dir)
    pull_to(made / "there", pulled.root)
    assert samples_of(pulled) == samples_of(Work(made / "work"))
    plan = other.plan_path
    tables = [read_planned(plan, name) for name in planned_shards(plan)]
    info = read_info(plan)
    info["recipe"]["name"] = "other"
    write_rows(plan, tables, info)
    for work in (source, prepared, fetched, other):
        before = samples_of(work) | {"plan": work.plan_path.read_bytes()}
        with pytest.raises(UserError, match="holds something else than this data set; pull into"):
            pull_to(made / "there", work.root)
        assert samples_of(work) | {"plan": work.plan_path.read_bytes()} == before


def test_what_a_folder_is_given_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.tar"
    source.write_bytes(b"x" * 1000)
    there = tmp_path / "there"
    log: list[tuple[Path, bool]] = []
    monkeypatch.setattr(
        folder, "sync", lambda path: log.append((path, (there / "samples" / "a.tar").exists()))
    )
    folder.FolderStore(str(there)).put(
        {"samples/a.tar": (source, hash_file(source))}, lambda num_bytes: None
    )
    temporary = temporary_path(there / "samples" / "a.tar")
    assert log == [(temporary, False), (there / "samples", True)]
