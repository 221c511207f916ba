"""Real commands with --rank and --world-size: side by side on one folder, killed, and refused."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import run
from pipeline.errors import UserError
from pipeline.executor import Summary
from pipeline.hold import Part
from pipeline.maintenance.verify import verify
from pipeline.recipe import Recipe
from pipeline.recipe_file import load_recipe
from pipeline.shards.shard import list_shards
from pipeline.work import Work
from tests.calls import call
from tests.crashing import QUIET, contents, make_source, temporaries
from tests.real_commands import LIMIT, Gate, finish, start

NUM_RANKS = 3
SMALL_SHARDS = ["--set", "split.shard_size=1"]


class Ranks:
    """A source, what one undisturbed whole run makes of it, and commands for a part of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        make_source(root, "http://127.0.0.1:1/original/{{id}}.jpg")
        work = Work(root / "undisturbed")
        self.recipe = load_recipe(str(root / "recipe.toml"), SMALL_SHARDS[1:])
        with Gate(root, num_free=1000) as gate:
            run.fetch(self.asking(f"{gate.url}/original/{{id}}.jpg"), work, QUIET)
        run.prepare(self.recipe, work, QUIET)
        self.expected = contents(work)
        assert len(list_shards(work.raw_dir)) >= NUM_RANKS

    def asking(self, images: str) -> Recipe:
        return replace(self.recipe, source=replace(self.recipe.source, images=images))

    def command(self, name: str, work: Work, *more: object) -> list[str]:
        words = [name, self.root / "recipe.toml", "--work", work.root, "--workers", 1]
        return [*map(str, [*words, *more]), *SMALL_SHARDS]

    def start(self, name: str, work: Work, rank: int, *more: object) -> "subprocess.Popen[str]":
        share = ("--rank", rank, "--world-size", NUM_RANKS)
        return start(self.command(name, work, *share, *more))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    return Ranks(tmp_path_factory.mktemp("ranks"))


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


@pytest.mark.slow
def test_three_ranks_at_once_give_the_bytes_of_one_run(ranks: Ranks, work: Work) -> None:
    """One is killed, and run again; meanwhile neither it nor a whole run may come in beside."""
    with Gate(ranks.root, num_free=0) as gate:
        images = ("--images", f"{gate.url}/original/{{id}}.jpg", "--set", "source.connections=3")
        started = [ranks.start("fetch", work, rank, *images) for rank in range(NUM_RANKS)]
        while gate.num_waiting < NUM_RANKS:
            assert gate.is_full.wait(LIMIT)
            gate.is_full.clear()
        with pytest.raises(UserError, match=r"rank \d of 3 is using this folder; wait until all"):
            run.prepare(ranks.recipe, work, QUIET)
        with pytest.raises(UserError, match="rank 2 of 3 is using this folder already"):
            run.fetch(ranks.recipe, work, QUIET, part=Part(2, NUM_RANKS))
        started[1].kill()
        finish(started.pop(1))
        gate.open()
        for process in started:
            code, said = finish(process)
            assert code == 0, said
        with pytest.raises(UserError, match="1 of . planned shards is not fetched yet, and near"):
            run.prepare(ranks.recipe, work, QUIET, part=Part(0, NUM_RANKS))
        code, said = finish(ranks.start("fetch", work, 1, *images))
        assert code == 0, said
        assert "fetch, rank 1 of 3: " in said
    started = [ranks.start("prepare", work, rank) for rank in range(NUM_RANKS)]
    for process in started:
        code, said = finish(process)
        assert code == 0, said
    assert contents(work) == ranks.expected
    assert verify(work.root) == []
    assert temporaries(work) == []


def test_only_a_whole_run_clears_away_what_an_earlier_plan_fetched(
    ranks: Ranks, work: Work
) -> None:
    recipe = ranks.asking(f"{ranks.root}/original/{{id}}.jpg")
    run.fetch(recipe, work, QUIET, limit=3)
    for rank in range(NUM_RANKS):  # the first plans anew, the others find that it did
        part = Part(rank, NUM_RANKS)
        summary = run.fetch(recipe, work, QUIET, replan=True, part=part)
        assert not summary.errors
        assert work.reuse_dir.is_dir()
    assert run.fetch(recipe, work, QUIET).fates == {"fetched": 6}
    assert not work.reuse_dir.exists()
    assert verify(work.root) == []


def test_no_rank_plans_anew_while_others_are_at_work(ranks: Ranks, work: Work) -> None:
    recipe = ranks.asking(f"{ranks.root}/original/{{id}}.jpg")
    run.fetch(recipe, work, QUIET, limit=3)
    with (
        work.lock(Part(0, 2)) as held,
        pytest.raises(UserError, match="other ranks are at work on the plan that is there"),
    ):
        held.begin({})
        run.fetch(recipe, work, QUIET, replan=True, part=Part(1, 2))


def test_rate_and_connections_are_divided_among_all_ranks(
    ranks: Ranks, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more requests at a time than one run may make, and no more a second."""
    stages: list[tuple[int, int]] = []

    def run_stage(stage: object, sizes: object, num_workers: int, *_: object) -> Summary:
        stages.append((stage.num_workers, num_workers))  # type: ignore[attr-defined]
        return Summary()

    monkeypatch.setattr(run, "run_stage", run_stage)
    recipe = ranks.recipe
    assert recipe.source.connections == 8
    for part, num_workers in ((Part(), 4), (Part(), 40), (Part(1, 2), 4), (Part(4, 5), 4)):
        run.fetch(recipe, work, QUIET, num_workers=num_workers, part=part)
    assert stages == [(4, 4), (8, 8), (8, 4), (5, 1)]
    with pytest.raises(UserError, match="source.connections is 8, fewer than the 9 ranks"):
        run.fetch(recipe, work, QUIET, part=Part(8, 9))
    recipe = ranks.asking(f"{ranks.root}/original/{{id}}.jpg")
    run.fetch(recipe, work, QUIET, num_workers=40)
    assert stages[-1] == (40, 40)  # nobody is asked for files on this disk


@pytest.mark.parametrize("command", ["fetch", "prepare"])
@pytest.mark.parametrize("option", [("--rank", "0"), ("--world-size", "3")])
def test_rank_and_world_size_go_together(
    ranks: Ranks, work: Work, command: str, option: tuple[str, str]
) -> None:
    error = call(*ranks.command(command, work, *option)).exception
    assert isinstance(error, UserError)
    assert "--rank I and --world-size N go together" in str(error)
