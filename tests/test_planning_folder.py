"""The plan that stands in a work folder: what it notices, and that nothing else takes its place."""

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.errors import UserError
from pipeline.maintenance.verify import verify
from pipeline.planning.plan_check import read_about
from pipeline.recipe import Recipe
from pipeline.run import fetch, prepare
from pipeline.shards.shard import list_shards, rows_path
from pipeline.work import Work
from tests.files import files_in, flip
from tests.shares import QUIET
from tests.works import make_source

NUM_POSTS = 8


@pytest.fixture
def made(tmp_path: Path) -> tuple[Recipe, Work]:
    """A recipe with a list of ids that are left out, and a folder that was fetched by it."""
    (tmp_path / "nsfw.txt").write_text("98\n99\n")
    recipe, work = make_source(tmp_path, NUM_POSTS), Work(tmp_path / "work")
    recipe = replace(recipe, select=replace(recipe.select, nsfw_ids=str(tmp_path / "nsfw.txt")))
    fetch(recipe, work, QUIET)
    return recipe, work


def test_another_plan_takes_no_place_unasked(made: tuple[Recipe, Work], tmp_path: Path) -> None:
    recipe, work = made
    before = files_in(work.root)

    def refuse(
        num_posts: int, why: str = "", recipe: Recipe = recipe, limit: int | None = None
    ) -> None:
        posts = f"{NUM_POSTS} posts; the new one has {num_posts}"
        told = rf"another plan \({posts}{re.escape(why)}\)\. .* --replan to"
        with pytest.raises(UserError, match=told):
            fetch(recipe, work, QUIET, limit=limit)
        assert files_in(work.root) == before

    fewer = replace(recipe, select=replace(recipe.select, tags=("smile",)))
    refuse(NUM_POSTS + 1, '; select.tags is ["smile"], there ["solo"]', fewer)
    other = replace(recipe, split=replace(recipe.split, seed=5))
    refuse(NUM_POSTS, "; split.seed is 5, there 0", other)
    refuse(3, "; --limit is 3, there null", limit=3)
    (tmp_path / "nsfw.txt").write_text("8\n999\n")  # as long as before
    refuse(NUM_POSTS - 1)
    (tmp_path / "nsfw.txt").write_text("98\n99\n")
    first = (tmp_path / "metadata" / "posts.json").read_text().splitlines()[0]
    more = tmp_path / "metadata" / "more.json"
    more.write_text(json.dumps(json.loads(first) | {"id": NUM_POSTS + 9, "md5": "0" * 32}))
    refuse(NUM_POSTS + 1)


def test_a_plan_stands_where_metadata_has_grown_by_what_nobody_wants(
    made: tuple[Recipe, Work], tmp_path: Path
) -> None:
    recipe, work = made
    originals = files_in(work.raw_dir)
    unwanted = (tmp_path / "metadata" / "posts.json").read_text().splitlines()[-1]
    more = tmp_path / "metadata" / "more.json"
    more.write_text(json.dumps(json.loads(unwanted) | {"id": NUM_POSTS + 9}))
    fetch(recipe, work, QUIET)
    assert files_in(work.raw_dir) == originals
    assert read_about(work.plan_path)["num_records"] == NUM_POSTS + 2


def test_metadata_is_not_read_again_for_where_it_lies_or_what_lies_beside_it(
    made: tuple[Recipe, Work], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, work = made
    moved = (tmp_path / "metadata").rename(tmp_path / "moved")
    (moved / "README.md").write_text("of whoever made it")
    (moved / "512px").mkdir()
    (moved / "512px" / "1.json").write_text("of a picture")
    monkeypatch.delattr("pipeline.planning.make.Selection")
    fetch(replace(recipe, source=replace(recipe.source, metadata=str(moved))), work, QUIET)


def test_a_plan_that_is_asked_for_keeps_the_originals_and_no_sample(
    made: tuple[Recipe, Work], tmp_path: Path
) -> None:
    recipe, work = made
    prepare(recipe, work, QUIET)
    shutil.rmtree(tmp_path / "512px")
    (tmp_path / "512px").mkdir()
    other = replace(recipe, split=replace(recipe.split, seed=5))
    assert fetch(other, work, QUIET, replan=True).fates == {"fetched": NUM_POSTS}
    assert list_shards(work.samples_dir) == []


def test_a_ledger_whose_originals_are_gone_hinders_no_other_plan(
    made: tuple[Recipe, Work],
) -> None:
    recipe, work = made
    shutil.rmtree(work.raw_dir)
    work.ledger_dir.mkdir(exist_ok=True)
    other = replace(recipe, split=replace(recipe.split, seed=5))
    assert fetch(other, work, QUIET, replan=True).fates == {"fetched": NUM_POSTS}


@pytest.mark.parametrize("split", [{"seed": 5}, {"shard_size": 2}, {"shard_size": 20}])
def test_what_a_lost_plan_has_left_is_used_by_another(
    made: tuple[Recipe, Work], tmp_path: Path, split: dict[str, Any]
) -> None:
    recipe, work = made
    prepare(recipe, work, QUIET)
    work.plan_path.unlink()
    shutil.rmtree(tmp_path / "512px")
    (tmp_path / "512px").mkdir()
    other = replace(recipe, split=replace(recipe.split, **split))
    assert fetch(other, work, QUIET).fates == {"fetched": NUM_POSTS}
    assert verify(work.root) == []
    prepare(other, work, QUIET)
    assert verify(work.root) == []


def test_what_a_lost_plan_has_left_stays_for_the_same(made: tuple[Recipe, Work]) -> None:
    recipe, work = made
    prepare(recipe, work, QUIET)
    before = files_in(work.root)
    work.plan_path.unlink()
    name = list_shards(work.raw_dir)[0]
    rows_path(work.raw_dir, name).write_bytes(b"damaged")
    fetch(recipe, work, QUIET)
    prepare(recipe, work, QUIET)
    after = files_in(work.root)
    assert {path for path in before if before[path] != after[path]} == {f"ledger/{name}.parquet"}


@pytest.mark.parametrize("plan", [None, b"damaged"], ids=["no plan", "a damaged plan"])
def test_originals_that_were_set_aside_need_no_plan(
    made: tuple[Recipe, Work], tmp_path: Path, plan: bytes | None
) -> None:
    """The shards say themselves which posts they have; earlier versions left a plan with them."""
    recipe, work = made
    aside = Work(work.reuse_dir / "1")
    aside.root.mkdir(parents=True)
    work.raw_dir.rename(aside.raw_dir)
    if plan is not None:
        aside.plan_path.write_bytes(plan)
    shutil.rmtree(tmp_path / "512px")
    (tmp_path / "512px").mkdir()
    assert fetch(recipe, work, QUIET).fates == {"fetched": NUM_POSTS}
    assert not work.reuse_dir.exists()


def test_a_damaged_shard_that_was_set_aside_is_named(
    made: tuple[Recipe, Work], tmp_path: Path
) -> None:
    recipe, work = made
    name, *_ = list_shards(work.raw_dir)
    flip(rows_path(work.raw_dir, name), 300)
    speech = io.StringIO()
    other = replace(recipe, split=replace(recipe.split, seed=5))
    fates = fetch(other, work, Console(file=speech, width=500), replan=True).fates
    assert fates == {"fetched": NUM_POSTS}
    damaged = work.reuse_dir / "1" / "raw" / f"{name}.parquet"
    assert re.search(
        rf"^{re.escape(str(damaged))}: .*\. Its posts are asked for again\.$",
        speech.getvalue(),
        re.MULTILINE,
    )
    assert speech.getvalue().count("asked for again") == 1


def test_of_originals_that_were_set_aside_the_latest_are_used(
    made: tuple[Recipe, Work], tmp_path: Path
) -> None:
    recipe, work = made
    shutil.copytree(work.root, tmp_path / "whole")
    shutil.move(tmp_path / "512px", tmp_path / "moved")
    (tmp_path / "512px").mkdir()
    shutil.rmtree(work.raw_dir)
    assert fetch(recipe, work, QUIET).fates == {"missing/no_file": NUM_POSTS}
    for number in range(10, 0, -1):  # as replans leave them that were cut short
        from_where = tmp_path / "whole" if number == 10 else work.root
        aside = work.reuse_dir / str(number)
        shutil.copytree(from_where / work.raw_dir.name, aside / work.raw_dir.name)
    other = replace(recipe, split=replace(recipe.split, seed=5))
    shutil.rmtree(work.raw_dir)
    assert fetch(other, work, QUIET, replan=True).fates == {"fetched": NUM_POSTS}
