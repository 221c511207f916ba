import errno
import os
import shutil
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.settings import to_table
from tests.calls import call
from tests.works import draw_original, make_source, odd_original


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """Write a recipe's file beside pictures and metadata; return its path."""
    settings = to_table(make_source(tmp_path, 30, odd_original))
    path = tmp_path / "mine" / "recipe.toml"
    path.parent.mkdir()
    path.write_text(
        '[select]\ntags = ["solo"]\n[prepare]\nsize = 64\n[split]\nshard_size = 10\n'
        f"[source]\nrate = 0\nimages = '{settings['source']['images']}'\n"
    )
    return str(path)


def test_from_lock_to_the_same_bytes_and_to_what_is_gone(recipe: str, tmp_path: Path) -> None:
    metadata, work, again = tmp_path / "metadata", tmp_path / "work", tmp_path / "again"
    one = ("--workers", 1)
    assert call("fetch", recipe, "--metadata", metadata, "--work", work, *one).exit_code == 0
    assert isinstance(call("lock", recipe, "--work", work).exception, UserError)
    assert call("prepare", recipe, "--work", work, *one).exit_code == 0
    made = call("lock", recipe, "--work", work)
    assert made.exit_code == 0
    assert "posts.parquet: 30 posts, 26 samples" in made.stdout.replace("\n", "")
    assert (tmp_path / "mine" / "posts.parquet").is_file()
    checked = call("lock", recipe, "--work", work, "--check")
    assert (checked.exit_code, "lock: 30 in" in checked.stdout) == (0, True)

    shutil.rmtree(metadata)
    dry = call("fetch", recipe, "--locked", "--work", again, "--dry-run")
    assert "30 originals would be fetched" in dry.stdout
    other = call("fetch", recipe, "--locked", "--work", again, "--dry-run", "--set", "split.seed=9")
    assert "is not this recipe's" in str(other.exception)
    assert not again.exists()
    fetched = call("fetch", recipe, "--locked", "--work", again, *one)
    assert fetched.exit_code == 0
    assert "30  same" in fetched.stdout
    assert call("prepare", recipe, "--work", again, *one).exit_code == 0
    for path in (*(work / "raw").iterdir(), *(work / "samples").iterdir()):
        assert (again / path.relative_to(work)).read_bytes() == path.read_bytes()

    third = tmp_path / "third"
    (tmp_path / "512px" / "0010" / "10.jpg").write_bytes(draw_original(110))
    (tmp_path / "512px" / "0011" / "11.jpg").unlink()
    changed = call("fetch", recipe, "--locked", "--work", third, *one)
    assert changed.exit_code == 1
    assert "2 posts are not as locked" in changed.stderr
    assert len((third / "differences.csv").read_text().splitlines()) == 3
    prepared = call("prepare", recipe, "--work", third, *one)
    assert prepared.exit_code == 1
    assert "1  changed" in prepared.stdout
    compared = call("lock", recipe, "--work", third, "--check")
    assert compared.exit_code == 1
    assert not (third / "posts.parquet").samefile(tmp_path / "mine" / "posts.parquet")


@pytest.mark.parametrize("why", [errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_checked_all_the_same(
    why: int, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, one = tmp_path / "work", ("--workers", 1)
    call("fetch", recipe, "--metadata", tmp_path / "metadata", "--work", work, *one)
    call("prepare", recipe, "--work", work, *one)
    call("lock", recipe, "--work", work)

    def refuse(path: Path) -> Path:
        raise OSError(why, os.strerror(why), str(path))

    monkeypatch.setattr("pipeline.disk.temporary_path", refuse)
    assert call("lock", recipe, "--work", work, "--check").exit_code == 0
    for folder in ("raw", "samples"):
        shutil.rmtree(work / folder)
    checked = call("lock", recipe, "--work", work, "--check")
    assert checked.exit_code == 1
    assert "30  waiting" in checked.stdout
    unwritten = f"{work}/differences.csv: cannot be written: {os.strerror(why)}."
    assert checked.stderr == f"30 posts are not as locked; {unwritten}\n"


@pytest.mark.parametrize("option", [("--metadata", "x"), ("--limit", "3")])
def test_what_a_lock_decides_may_not_be_given(recipe: str, option: tuple[str, str]) -> None:
    error = call("fetch", recipe, "--locked", *option).exception
    assert isinstance(error, UserError)
    assert "--locked takes the lock's posts" in str(error)
    error = call("fetch", recipe, "--locked").exception
    assert isinstance(error, UserError)
    assert "`lock` makes it" in str(error)


def test_a_lock_of_another_recipes_folder_is_not_written(recipe: str, tmp_path: Path) -> None:
    work, one = tmp_path / "work", ("--workers", 1)
    size = ("--set", "prepare.size=32")
    call("fetch", recipe, "--metadata", tmp_path / "metadata", "--work", work, *one)
    call("prepare", recipe, "--work", work, *one, *size)
    other = tmp_path / "other" / "recipe.toml"
    other.parent.mkdir()
    shutil.copy(recipe, other)
    for options, why in (
        ([other], "was made by recipe 'mine', not by 'other'; give that recipe"),
        ([recipe], r"prepare.size is 64, the folder's 32. Give what was --set then"),
        ([recipe, *size, "--set", "split.seed=3"], r"split.seed is 3, the folder's 0"),
        ([other, "--out", tmp_path / "x"], "was made by recipe 'mine'"),
    ):
        error = call("lock", *options, "--work", work).exception
        assert isinstance(error, UserError)
        assert why in str(error)
    assert list(tmp_path.glob("*/posts.parquet")) == []
    assert not (tmp_path / "x").exists()
    assert call("lock", recipe, "--work", work, *size).exit_code == 0
    assert (tmp_path / "mine" / "posts.parquet").is_file()
