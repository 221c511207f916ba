"""Other settings of the source in a fetched folder: the plan says how its originals came."""

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import run
from pipeline.errors import UserError
from pipeline.executor import run_stage
from pipeline.hold import Part
from pipeline.lockfile.differences import check_folder
from pipeline.lockfile.lock import write_lock
from pipeline.maintenance.repair import Repaired, repair
from pipeline.maintenance.verify import verify
from pipeline.planning.plan import planned_shards
from pipeline.recipe import Recipe
from pipeline.run import fetch, prepare
from pipeline.shards.rows import read_info
from pipeline.shards.shard import rows_path, tar_path
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.work import Work
from tests.crashing import QUIET, contents
from tests.files import flip
from tests.works import build, draw_original, make_source

FIRST = "train-000000"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Recipe]:
    """A folder that is fetched and prepared, and the recipe by which it was."""
    return build(tmp_path_factory.mktemp("made"), 20, draw_original)


@pytest.fixture
def work(made: tuple[Work, Recipe], tmp_path: Path) -> Work:
    shutil.copytree(made[0].root, tmp_path / "work")
    return Work(tmp_path / "work")


@pytest.fixture
def lower(made: tuple[Work, Recipe]) -> Recipe:
    """The recipe with a cap that half of the originals are over."""
    recipe = made[1]
    folder = Path(recipe.source.images.partition("{")[0])
    sizes = sorted(path.stat().st_size for path in folder.glob("*/*.jpg"))
    return replace(recipe, source=replace(recipe.source, max_bytes=sizes[len(sizes) // 2]))


def test_a_plan_says_by_which_settings_the_originals_came_last(
    work: Work, lower: Recipe, tmp_path: Path
) -> None:
    assert fetch(lower, work, QUIET).fates["rejected/too_many_bytes"] > 5
    prepare(lower, work, QUIET)
    fresh = Work(tmp_path / "fresh")
    fetch(lower, fresh, QUIET)
    assert work.plan_path.read_bytes() == fresh.plan_path.read_bytes()
    check_folder(work, lower)
    lock = write_lock(work, tmp_path / "posts.parquet")
    assert lock.info.recipe.source.max_bytes == lower.source.max_bytes
    expected = contents(work)
    flip(tar_path(work.raw_dir, FIRST), 5000)
    assert repair(work, QUIET) == Repaired()
    assert contents(work) == expected


def test_a_higher_cap_asks_for_what_was_over_the_lower_one_and_for_nothing_else(
    made: tuple[Work, Recipe], lower: Recipe, tmp_path: Path
) -> None:
    recipe = made[1]
    copied = shutil.copytree(lower.source.images.partition("{")[0], tmp_path / "512px")
    here = replace(recipe.source, images=f"{copied}/{{bucket}}/{{id}}.jpg")
    recipe = replace(recipe, source=here)
    lower = replace(lower, source=replace(here, max_bytes=lower.source.max_bytes))
    work, whole = Work(tmp_path / "work"), Work(tmp_path / "whole")
    fetch(recipe, whole, QUIET)
    fetch(lower, work, QUIET)
    for path in copied.glob("*/*.jpg"):
        if path.stat().st_size <= lower.source.max_bytes:
            path.unlink()
    fetch(recipe, work, QUIET)
    assert contents(work) == contents(whole)


@pytest.mark.parametrize("replan", [False, True])
def test_it_is_said_that_originals_from_elsewhere_make_way(
    replan: bool, made: tuple[Work, Recipe], work: Work, tmp_path: Path
) -> None:
    recipe = made[1]
    (tmp_path / "moved").mkdir()
    for path in Path(recipe.source.images).parent.parent.glob("*/*.jpg"):
        (tmp_path / "moved" / path.name).symlink_to(path)
    moved = replace(recipe.source, images=f"{tmp_path}/moved/{{id}}.jpg")
    other = replace(recipe, source=moved, split=replace(recipe.split, seed=5 * replan))
    raw_dir = work.reuse_dir / "1" / work.raw_dir.name if replan else work.raw_dir
    shards = f"{len(planned_shards(work.plan_path))} shards have"
    said = io.StringIO()
    fetch(other, work, Console(file=said, width=1000), replan=replan)
    assert said.getvalue() == (
        f"{raw_dir}: {shards} other settings and will be made anew: source.images is "
        f'"{moved.images}", there "{recipe.source.images}".\n'
    )


def test_samples_of_originals_that_are_gone_are_told(work: Work, lower: Recipe) -> None:
    fetch(lower, work, QUIET)
    before = contents(work)
    problems = verify(work.root)
    paths = [rows_path(work.samples_dir, name) for name in planned_shards(work.plan_path)]
    assert {problem.path for problem in problems} <= set(paths)
    assert {problem.what for problem in problems} == {"made of other originals; run `prepare`"}
    assert verify(work.root, quick=True) == problems
    stale = sorted(problem.shard for problem in problems)
    assert repair(work, QUIET) == Repaired(stale=stale)
    assert contents(work) == before
    prepare(lower, work, QUIET)
    assert verify(work.root) == []


def test_settings_that_decide_nothing_leave_the_plan_alone(
    made: tuple[Work, Recipe], work: Work
) -> None:
    stamp = work.plan_path.stat().st_mtime_ns
    recipe = made[1]
    fetch(replace(recipe, source=replace(recipe.source, rate=7.0, attempts=2)), work, QUIET)
    assert work.plan_path.stat().st_mtime_ns == stamp


def test_a_pulled_folder_that_fetches_its_originals_can_be_repaired(
    made: tuple[Work, Recipe], tmp_path: Path
) -> None:
    source, recipe = made
    lock = write_lock(source, tmp_path / "posts.parquet")
    push(source, str(tmp_path / "there"), QUIET)
    work = Work(tmp_path / "pulled")
    pull(str(tmp_path / "there"), work, QUIET)
    fetch(recipe, work, QUIET, lock=lock)
    prepare(recipe, work, QUIET)
    assert read_info(work.plan_path)["recipe"]["source"]["images"] == recipe.source.images
    expected = contents(work)
    flip(tar_path(work.raw_dir, FIRST), 5000)
    assert repair(work, QUIET) == Repaired()
    assert contents(work) == expected


def test_originals_of_two_settings_give_no_lock_and_say_so_to_repair(
    work: Work, lower: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a fetch that was cut short."""
    first = next(iter(planned_shards(work.plan_path)))
    with monkeypatch.context() as patch:
        patch.setattr(run, "run_stage", lambda stage, _, *rest: run_stage(stage, {}, *rest))
        fetch(lower, work, QUIET)
    assert read_info(work.plan_path)["recipe"]["source"]["max_bytes"] == lower.source.max_bytes
    with pytest.raises(UserError, match=f"{first}.parquet: was fetched with other settings"):
        write_lock(work, tmp_path / "posts.parquet")
    os.truncate(tar_path(work.raw_dir, FIRST), 1000)
    why = rf"source.max_bytes is {lower.source.max_bytes}, that of .* 67108864; run `fetch` with"
    with pytest.raises(UserError, match=why):
        repair(work, QUIET)
    fetch(lower, work, QUIET)
    prepare(lower, work, QUIET)
    assert write_lock(work, tmp_path / "posts.parquet").info.fates["rejected/too_many_bytes"] > 5
    assert rows_path(work.raw_dir, FIRST).is_file()


def test_metadata_that_keeps_its_size_is_read_again_to_replan(tmp_path: Path) -> None:
    recipe, work = make_source(tmp_path, 20), Work(tmp_path / "work")
    fetch(recipe, work, QUIET)
    plan = work.plan_path.read_bytes()
    fetch(recipe, work, QUIET, replan=True)
    assert work.plan_path.read_bytes() == plan
    path = tmp_path / "metadata" / "posts.json"
    path.write_text(path.read_text().replace('"id": 9,', '"id": 8,'))
    fetch(recipe, work, QUIET)
    assert work.plan_path.read_bytes() == plan
    assert fetch(recipe, work, QUIET, replan=True).fates.total() == 19
    assert verify(work.root) == []


def test_ranks_of_other_settings_do_not_work_side_by_side(work: Work, lower: Recipe) -> None:
    plan = work.plan_path.read_bytes()
    with (
        work.lock(Part(0, 2)) as held,
        pytest.raises(UserError, match=r"other ranks .* source\.max_bytes is .*, theirs 67108864"),
    ):
        held.begin({})
        fetch(lower, work, QUIET, part=Part(1, 2))
    assert work.plan_path.read_bytes() == plan
