"""push: what it takes along, replaces and removes, and what stops it."""

import shlex
import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from pipeline import run
from pipeline.errors import DamagedError, UserError
from pipeline.hold import Part
from pipeline.maintenance.verify import verify
from pipeline.recipe_file import load_recipe
from pipeline.shards.shard import list_shards, rows_path, tar_path
from pipeline.share import push as push_module
from pipeline.share.index import CARD, INDEX, LOCK, PENDING, RECIPE, Index
from pipeline.share.push import push
from pipeline.stores import folder
from pipeline.stores.folder import FolderStore
from pipeline.stores.transfer import Outgoing, Tick, copy_bytes
from pipeline.work import Work
from tests.calls import call
from tests.files import files_in, flip
from tests.shares import (
    NUM_FILES,
    QUIET,
    SHARD,
    forge_rows,
    load_index,
    make_prepared,
    pull_to,
    refused,
    samples_of,
)


def test_a_push_of_less_takes_the_rest_away(there: Path, tmp_path: Path) -> None:
    less = make_prepared(tmp_path / "less", 10)
    push(less, str(there), QUIET)
    assert 0 < len(list_shards(less.samples_dir)) < 5
    assert files_in(there / "samples") == samples_of(less)


def test_a_recipe_alone_takes_no_pictures_away(work: Work, there: Path) -> None:
    before = files_in(there)
    result = call("push", work.root, there, "--recipe-only")
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == (
        f"{there}: holds 5 shards of an earlier push, which push --recipe-only would remove; "
        "push --recipe-only to another URL."
    )
    assert files_in(there) == before
    (there / INDEX).rename(there / PENDING)  # as of a push that was cut short
    with pytest.raises(UserError, match="holds 5 shards"):
        push(work, str(there), QUIET, recipe_only=True)
    for path in (there / "samples").iterdir():
        path.unlink()
    push(work, str(there), QUIET, recipe_only=True)  # nothing is lost any more
    assert set(files_in(there)) == {CARD, "croissant.json", INDEX, LOCK, RECIPE}
    assert push(work, str(there), QUIET, recipe_only=True).num_moved == 0
    assert push(work, str(there), QUIET).has_samples


def test_what_is_to_be_run_after_a_recipe_alone_can_be_copied(work: Work, tmp_path: Path) -> None:
    push(work, str(tmp_path / "there"), QUIET, recipe_only=True)
    said = call("pull", tmp_path / "there", tmp_path / "a [b] c").output
    words = shlex.split(said.partition("`")[2].rstrip("`\n"))
    place = str(tmp_path / "a [b] c")
    assert words == ["fetch", f"{place}/share", "--locked", "--work", place, "--images", "TEMPLATE"]


@pytest.mark.parametrize("name", ["index.json", "incomplete.json"])
def test_what_a_newer_version_pushed_is_left_alone(work: Work, there: Path, name: str) -> None:
    index = there / "index.json"
    data = index.read_bytes().replace(b'"version": 1', b'"version": 2')
    index.unlink()
    (there / name).write_bytes(data)
    before = files_in(there)
    with pytest.raises(UserError, match=rf"{name}: a newer version of this program wrote it"):
        push(work, str(there), QUIET)
    assert files_in(there) == before


def test_an_interrupted_push_goes_on(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    copy = folder._copy
    copied: list[Path] = []

    def fail_late(path: Path, *rest: Any) -> None:
        if len(copied) == 6:
            raise OSError(5, "Input/output error")
        copied.append(path)
        copy(path, *rest)

    monkeypatch.setattr(folder, "_copy", fail_late)
    with pytest.raises(UserError, match="Input/output error"):
        push(work, str(there), QUIET)
    assert not (there / INDEX).exists()
    assert "its push is not complete yet" in refused(there, tmp_path / "again")
    monkeypatch.setattr(folder, "_copy", copy)
    num_left = NUM_FILES - (len(copied) - 1)  # the first was the pending index
    assert push(work, str(there), QUIET).num_moved == num_left
    assert not (there / PENDING).exists()
    assert samples_of(pull_to(there, tmp_path / "again")) == samples_of(work)


def test_a_changed_data_set_is_at_no_moment_half_old(
    work: Work, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(work, str(there), QUIET)
    recipe = load_recipe(str(work.share_dir))
    run.prepare(replace(recipe, prepare=replace(recipe.prepare, size=32)), work, QUIET)
    old = load_index(there).by_name

    def fail(path: Path, *rest: Any) -> None:
        if path.suffix == ".tar":
            raise OSError(5, "Input/output error")
        copy(path, *rest)

    copy = folder._copy
    monkeypatch.setattr(folder, "_copy", fail)
    with pytest.raises(UserError):
        push(work, str(there), QUIET)
    assert "not complete" in refused(there, work.root.parent / "again")
    left = {path.name for path in (there / "samples").iterdir()}
    assert left == set()  # all shards have changed: nothing old can be taken for new
    assert any(name.endswith(".tar") for name in old)


def test_of_two_pushes_at_a_time_none_passes_for_whole(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, put_beside = tmp_path / "two", push_module._put_beside
    other = Work(tmp_path / "other")
    shutil.copytree(work.root, other.root)
    recipe = load_recipe(str(work.share_dir))
    run.prepare(replace(recipe, prepare=replace(recipe.prepare, size=32)), other, QUIET)

    def push_other_meanwhile(*arguments: Any) -> Index:
        monkeypatch.setattr(push_module, "_put_beside", put_beside)
        index = put_beside(*arguments)
        push(other, str(there), QUIET)
        return index

    monkeypatch.setattr(push_module, "_put_beside", push_other_meanwhile)
    with pytest.raises(UserError, match="something else was pushed there at the same time"):
        push(work, str(there), QUIET)
    assert "its push is not complete yet" in refused(there, tmp_path / "again")
    push(other, str(there), QUIET)
    assert verify(there) == []
    assert samples_of(pull_to(there, tmp_path / "again")) == samples_of(other)


def test_a_push_whose_file_another_one_writes_says_so(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_over(source: BinaryIO, out: BinaryIO, *rest: Any) -> None:
        copy_bytes(source, out, *rest)
        out.seek(0)
        out.write(b"theirs")

    monkeypatch.setattr(folder, "copy_bytes", copy_over)
    with pytest.raises(UserError, match="two: something else was pushed there at the same time"):
        push(work, str(tmp_path / "two"), QUIET)


def test_a_push_whose_files_another_one_takes_says_so(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, copy = tmp_path / "two", folder._copy

    def push_another_meanwhile(*arguments: Any) -> None:
        copy(*arguments)
        if arguments[0].name == f"{SHARD}.tar":
            monkeypatch.setattr(folder, "_copy", copy)
            same = {f"samples/{SHARD}.tar": arguments[:2]}
            folder.FolderStore(str(there)).put(same, lambda num_bytes: None)

    monkeypatch.setattr(folder, "_copy", push_another_meanwhile)
    with pytest.raises(UserError, match="two: something else was pushed there at the same time"):
        push(work, str(there), QUIET)


def test_a_damaged_folder_is_not_pushed(work: Work, tmp_path: Path) -> None:
    path = tar_path(work.samples_dir, SHARD)
    flip(path, 700)
    with pytest.raises(UserError, match=rf"{SHARD}\.tar: damaged"):
        push(work, str(tmp_path / "there"), QUIET)
    assert not (tmp_path / "there" / INDEX).exists()
    path.unlink()
    with pytest.raises(DamagedError, match=rf"{SHARD}\.tar: missing"):
        push(work, str(tmp_path / "there"), QUIET)


@pytest.mark.parametrize("is_half", [True, False])
def test_samples_that_do_not_go_together_take_nothing_away(
    work: Work, there: Path, is_half: bool
) -> None:
    before = files_in(there)
    if is_half:
        recipe = load_recipe(str(work.share_dir), ["prepare.size=32"])
        run.prepare(recipe, work, QUIET, part=Part(0, 2))
    else:
        forge_rows(work.samples_dir, SHARD, source_sha256=lambda sums: sums[::-1])
    with pytest.raises(UserError, match="run `prepare`"):
        push(work, str(there), QUIET)
    assert files_in(there) == before
    assert verify(there) == []


def test_samples_that_are_not_planned_stay_behind(work: Work, there: Path, tmp_path: Path) -> None:
    for path in work.samples_dir.glob(f"{SHARD}.*"):
        shutil.copy(path, work.samples_dir / path.name.replace(SHARD, "train-000077"))
    push(work, str(there), QUIET)
    assert verify(pull_to(there, tmp_path / "again").root) == []


def test_damaged_rows_are_not_pushed(work: Work, tmp_path: Path) -> None:
    flip(rows_path(work.samples_dir, SHARD), 100)
    with pytest.raises(UserError, match=rf"{SHARD}\.parquet: "):
        push(work, str(tmp_path / "there"), QUIET)
    assert not (tmp_path / "there").exists()


def test_the_work_folder_is_no_place_to_push_to_by_any_name(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(work.root)
    monkeypatch.chdir(tmp_path)
    for url in (f"{work.root}", f"file://{work.root}/", "work/samples", "link", "link/new"):
        with pytest.raises(UserError, match="is the work folder, or within it"):
            push(work, url, QUIET)


def test_what_is_pushed_again_on_another_day_stays_of_its_first(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    with monkeypatch.context() as patch:
        then = SimpleNamespace(now=lambda zone: datetime(2020, 2, 2, tzinfo=zone))
        patch.setattr(push_module, "datetime", then)
        push(work, str(there), QUIET)
    assert push(work, str(there), QUIET).num_moved == 0
    assert load_index(there).published == "2020-02-02"


def test_a_push_needs_another_place(work: Work) -> None:
    for place in (f"{work.root}/../work", f"{work.root}/samples", f"{work.root}/new"):
        with pytest.raises(UserError, match="is the work folder, or within it"):
            push(work, place, QUIET)
    with pytest.raises(UserError, match="no such folder"):
        push(Work(work.root / "x"), str(work.root / "y"), QUIET)
    assert not (work.root / "new").exists()


def test_ctrl_c_does_not_wait_for_what_a_slow_store_has_under_way(tmp_path: Path) -> None:
    begun, may_end, ended = (threading.Event() for _ in range(3))

    class SlowStore(FolderStore):
        def put(self, files: Mapping[str, Outgoing], tick: Tick) -> None:
            begun.set()
            may_end.wait(20)
            ended.set()

    def interrupt() -> Index:
        assert begun.wait(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push_module._put_beside(SlowStore(str(tmp_path)), {}, lambda num_bytes: None, interrupt)
    assert not ended.is_set()
    may_end.set()


def test_no_secret_is_written_anywhere(tmp_path: Path, made: Path) -> None:
    recipe = load_recipe(str(made / "work" / "share"))
    images = f"file://me:hunter2@{made}/512px/{{bucket}}/{{id}}.jpg?key=hunter3"
    source = replace(recipe.source, images=images.replace("file://me:hunter2@", ""))
    assert source.images.endswith("hunter3")
    work = Work(tmp_path / "work")
    shutil.copytree(made / "work", work.root)
    shutil.rmtree(work.samples_dir)
    secret = replace(recipe, source=replace(source, images="https://me:hunter2@h/{id}?k=hunter3"))
    run.prepare(secret, work, QUIET)
    push(work, str(tmp_path / "there"), QUIET)
    again = pull_to(tmp_path / "there", tmp_path / "again")
    call("report", again.root)
    for folder_ in (tmp_path / "there", again.root, work.samples_dir, work.share_dir):
        for path in folder_.rglob("*"):
            assert not path.is_file() or b"hunter" not in path.read_bytes(), path
