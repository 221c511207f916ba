"""repair of a folder whose plan came from a lock: its copy there is what the plan is made of."""

import shutil
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.lockfile.lock import read_lock, rewrite_lock, write_lock
from pipeline.maintenance.repair import Repaired, repair
from pipeline.maintenance.takedown import take_down
from pipeline.maintenance.verify import verify
from pipeline.planning.plan import read_planned
from pipeline.recipe_file import load_recipe
from pipeline.run import fetch
from pipeline.shards.shard import tar_path
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.work import Work
from tests.calls import call
from tests.crashing import QUIET, contents, make_source, prepare
from tests.crashing import fetch as fetch_by_metadata
from tests.files import flip

FIRST = "train-000000"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, its lock, and a folder that was fetched by it; the metadata is gone."""
    root = tmp_path_factory.mktemp("made")
    make_source(root)
    fetch_by_metadata(root, Work(root / "first"))
    prepare(root, Work(root / "first"))
    lock = write_lock(Work(root / "first"), root / "posts.parquet")
    push(Work(root / "first"), str(root / "there"), QUIET)
    recipe = load_recipe(str(root / "recipe.toml"), ["source.metadata="])
    fetch(recipe, Work(root / "work"), QUIET, lock=lock)
    prepare(root, Work(root / "work"))
    (root / "posts.json").unlink()
    return root


def everything(work: Work) -> dict[str, bytes]:
    kept = {path.name: path.read_bytes() for path in (work.plan_path, work.lock_path)}
    return contents(work) | kept


def test_the_plan_comes_from_the_copy_and_the_originals_from_the_plan(work: Work) -> None:
    expected = everything(work)
    flip(work.plan_path, 300)
    flip(tar_path(work.raw_dir, FIRST), 5000)
    assert repair(work, QUIET) == Repaired()
    assert everything(work) == expected
    assert verify(work.root) == []


def test_a_pulled_folder_needs_no_more_than_its_lock(made: Path, tmp_path: Path) -> None:
    work = Work(tmp_path / "work")
    pull(str(made / "there"), work, QUIET)
    expected = everything(work)
    flip(work.plan_path, 300)
    assert repair(work, QUIET) == Repaired()
    assert everything(work) == expected


@pytest.mark.parametrize("is_pulled", [False, True])
@pytest.mark.parametrize("place", [0, 1])
def test_posts_that_were_taken_down_stay_so(
    made: Path, tmp_path: Path, place: int, is_pulled: bool
) -> None:
    """Whichever they are: the first of a shard decides how its words are numbered."""
    work = Work(tmp_path / "work")
    if is_pulled:
        pull(str(made / "there"), work, QUIET)
    else:
        shutil.copytree(made / "work", work.root)
    take_down(work, [read_planned(work.plan_path, FIRST)["post_id"][place].as_py()])
    expected = everything(work)
    flip(work.plan_path, 300)
    assert repair(work, QUIET) == Repaired()
    assert everything(work) == expected


def test_a_copy_that_is_damaged_or_gone_is_put_back_by_hand(made: Path, work: Work) -> None:
    expected = everything(work)
    flip(work.lock_path, 300)
    assert [problem.path for problem in repair(work, QUIET).problems] == [work.lock_path]
    flip(work.plan_path, 300)
    with pytest.raises(UserError, match=f"{work.lock_path}: damaged; .* put the lock that"):
        repair(work, QUIET)
    work.lock_path.unlink()
    with pytest.raises(UserError, match=f"{work.lock_path}: is not there; put the lock that"):
        repair(work, QUIET)
    shutil.copy(made / "posts.parquet", work.lock_path)  # as they say
    assert repair(work, QUIET) == Repaired()
    assert everything(work) == expected


def test_of_a_damaged_copy_it_says_what_mends_it(made: Path, work: Work) -> None:
    expected = everything(work)
    flip(work.lock_path, 300)
    left = call("repair", work.root, "--workers", 1)
    remedy = "posts.parquet by the `fetch --locked` that brought it"
    assert left.stderr == f"1 problem is left, which only you can mend: {remedy}.\n"
    recipe = load_recipe(str(made / "recipe.toml"), ["source.metadata="])
    fetch(recipe, work, QUIET, lock=read_lock(made / "posts.parquet"))  # as it says
    assert everything(work) == expected
    assert verify(work.root) == []


def test_another_lock_gives_no_plan(made: Path, work: Work) -> None:
    rewrite_lock(work.lock_path, [2])
    flip(work.plan_path, 300)
    damaged = everything(work)
    with pytest.raises(UserError, match="no longer gives this plan"):
        repair(work, QUIET)
    assert everything(work) == damaged
