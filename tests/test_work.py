"""The work folder: what is in the way there is said before anything is done."""

import shutil
from pathlib import Path

import pytest

from pipeline.errors import UserError
from tests.calls import call
from tests.crashing import contents, make_work

FOLDERS = ("raw", "samples", "ledger", "share", "raw.old", "runs")
FILES = ("selection.parquet", "duplicates.parquet", "posts.parquet", "store.txt", "takedown.json")
NOWHERE = "listing"


@pytest.mark.parametrize("name", [*FOLDERS, *FILES, NOWHERE])
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


def test_links_to_folders_are_folders(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    shutil.move(work.raw_dir, tmp_path / "elsewhere")
    work.raw_dir.symlink_to(tmp_path / "elsewhere")
    assert call("verify", work.root).exit_code == 0
