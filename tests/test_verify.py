import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.errors import UserError
from pipeline.plan import planned_shards
from pipeline.run import prepare
from pipeline.shard import rows_path, tar_path
from pipeline.verify import verify
from pipeline.work import Work, read_status, status_table
from tests.test_fetch import fetch_all
from tests.test_prepare import EXPECTED, odd_original
from tests.works import make_work


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Work:
    work, recipe = make_work(tmp_path_factory.mktemp("finished"), 30, odd_original)
    fetch_all(work, recipe)
    prepare(recipe, work, Console(quiet=True))
    return work


@pytest.fixture
def work(finished: Work, tmp_path: Path) -> Work:
    shutil.copytree(finished.root, tmp_path / "work")
    return Work(tmp_path / "work")


def test_a_whole_folder_keeps_every_promise(work: Work) -> None:
    for directory in (work.root, work.raw_dir, work.samples_dir):
        assert verify(directory) == []
        assert verify(directory, quick=True) == []


def first(work: Work) -> str:
    return next(iter(planned_shards(work.plan_path)))


DAMAGE: dict[str, Callable[[Work], object]] = {
    "flip in samples tar": lambda w: flip(tar_path(w.samples_dir, first(w)), 700),
    "flip in tar padding": lambda w: flip(tar_path(w.samples_dir, first(w)), -1),
    "flip in raw tar": lambda w: flip(tar_path(w.raw_dir, first(w)), 5000),
    "flip in rows": lambda w: flip(rows_path(w.samples_dir, first(w)), 300),
    "flip in plan": lambda w: flip(w.plan_path, 300),
    "tar missing": lambda w: tar_path(w.samples_dir, first(w)).unlink(),
    "rows missing": lambda w: rows_path(w.samples_dir, first(w)).unlink(),
    "tar too long": lambda w: append(tar_path(w.samples_dir, first(w))),
    "foreign file": lambda w: (w.samples_dir / "notes.txt").write_text("?"),
    "half-written file": lambda w: (w.samples_dir / ".x.tar.tmp").write_text("?"),
    "another shard's files": lambda w: swap(w.samples_dir, first(w)),
    "a shard that is not planned": lambda w: rename(w.samples_dir, first(w)),
}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 512)


def swap(directory: Path, name: str) -> None:
    other = "test-000000"
    for path in (tar_path, rows_path):
        shutil.copy(path(directory, other), path(directory, name))


def rename(directory: Path, name: str) -> None:
    for path in (tar_path, rows_path):
        path(directory, name).rename(path(directory, "train-000999"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_is_found_and_named(work: Work, damage: str) -> None:
    DAMAGE[damage](work)
    problems = verify(work.root)
    assert problems
    assert all(str(work.root) in str(problem) for problem in problems)


@pytest.mark.parametrize("damage", ["tar missing", "tar too long", "foreign file", "flip in rows"])
def test_quick_finds_what_sizes_and_indexes_show(work: Work, damage: str) -> None:
    DAMAGE[damage](work)
    assert verify(work.root, quick=True)


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a work folder nor"):
        verify(tmp_path)


def test_status_adds_up_and_shows_when_it_does_not(work: Work) -> None:
    found = read_status(work)
    assert found.adds_up
    assert found.stages["prepare"].fates == EXPECTED
    table = status_table(found)
    assert table["prepare"]["num_posts"] == 30
    assert table["adds_up"] is True
    swap(work.samples_dir, first(work))
    assert not read_status(work).adds_up
