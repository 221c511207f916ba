"""The work folder: what is in the way there is said before anything is done."""

import os
import shutil
from pathlib import Path

import pytest

from pipeline.errors import UserError
from tests.calls import call
from tests.crashing import contents, make_work

FOLDERS = ("raw", "samples", "ledger", "share", "raw.old", "runs")
FILES = ("selection.parquet", "duplicates.parquet", "posts.parquet", "store.txt", "takedown.json")
LOCK = ".lock"
NOWHERE = "listing"


@pytest.mark.parametrize("name", [*FOLDERS, *FILES, LOCK, NOWHERE])
def test_what_is_in_the_way_ends_every_command_before_any_work(name: str, tmp_path: Path) -> None:
    work = make_work(tmp_path)
    path, kind = work.root / name, "is no folder, and one goes there"
    if path.exists():
        path.rename(tmp_path / "away")
    if name in FOLDERS:
        path.write_text("mine")
    elif name == NOWHERE:
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.mkdir()
        kind = "is a folder, where a file goes"
    before = contents(work)
    recipe = (tmp_path / "recipe.toml", "--work", work.root, "--workers", 1)
    for command in (("fetch", *recipe), ("verify", work.root), ("push", work.root, tmp_path / "p")):
        done = call(*command)
        assert isinstance(done.exception, UserError)
        assert str(done.exception) == f"{path}: {kind}; move it away."
        assert done.output == ""
    assert contents(work) == before


def test_a_pipe_in_the_place_of_what_names_the_store_is_not_waited_for(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    os.mkfifo(work.store_path)
    error = call("status", work.root).exception
    assert str(error) == f"{work.store_path}: is no plain file, where a file goes; move it away."


def test_a_pipe_in_the_place_of_originals_is_not_waited_for(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    tar = next(work.raw_dir.glob("*.tar"))
    tar.unlink()
    os.mkfifo(tar)
    error = call("fetch", tmp_path / "recipe.toml", "--work", work.root, "--workers", 1).exception
    assert str(error) == f"{tar}: is no plain file, where a file goes; move it away."


def test_a_folder_in_the_place_of_a_plan_is_no_missing_plan(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    work.plan_path.unlink()
    work.plan_path.mkdir()
    recipe = (tmp_path / "recipe.toml", "--work", work.root)
    for command in (
        ("prepare", *recipe),
        ("lock", *recipe),
        ("status", work.root),
        ("report", work.root),
        ("takedown", work.root, 1),
    ):
        error = call(*command).exception
        assert str(error) == f"{work.plan_path}: is a folder, where a file goes; move it away."


def test_a_folder_in_the_place_of_a_lock_is_no_missing_lock(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    (lock := tmp_path / "posts.parquet").mkdir()
    recipe = (tmp_path / "recipe.toml", "--work", work.root)
    for command in (("fetch", *recipe, "--locked"), ("lock", *recipe, "--check")):
        error = call(*command).exception
        assert str(error) == f"{lock}: is a folder, where a file goes; move it away."


@pytest.mark.parametrize("command", ["report", "lock"])
def test_a_place_that_cannot_be_written_is_found_before_the_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make_work(tmp_path)
    monkeypatch.setattr("pipeline.report.page.render_report", None)
    monkeypatch.setattr("pipeline.lockfile.lock._lock_shard", None)
    recipe = (str(tmp_path / "recipe.toml"), "--work", str(work.root))
    words = recipe if command == "lock" else (str(work.root),)
    error = call(command, *words, "--out", "/proc/new").exception
    assert str(error) == "/proc: cannot be written: No such file or directory."


def test_links_to_folders_are_folders(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    shutil.move(work.raw_dir, tmp_path / "elsewhere")
    work.raw_dir.symlink_to(tmp_path / "elsewhere")
    assert call("verify", work.root).exit_code == 0
