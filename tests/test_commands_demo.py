"""demo, as the command line calls it: which folders it draws into."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.checkpoint import load_checkpoint
from model.data import Samples
from model.evaluation.crossing import Truth
from pipeline.dolls.data_set import doll_of
from pipeline.errors import UserError
from pipeline.work import Work
from tests.calls import call
from tests.crashing import make_work


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return make_work(tmp_path)


def test_demo_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    error = call("demo", "--work", tmp_path / "file").exception
    assert str(error) == f"{tmp_path}/file/mirror: cannot be written: Not a directory."


def test_a_demo_draws_nothing_into_a_folder_with_a_data_set(work: Work) -> None:
    error = call("demo", "--work", work.root).exception
    assert str(error).startswith(f"{work.root}: holds a data set, but no demo's drawings.")
    assert not (work.root / "mirror").exists()


@pytest.fixture
def _drawn_to_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop each demo where it would begin to draw."""

    def stop(*arguments: object, **options: object) -> None:
        raise UserError("stopped here")

    monkeypatch.setattr("pipeline.dolls.data_set.write_dolls", stop)


@pytest.mark.usefixtures("_drawn_to_a_stop")
def test_another_demo_takes_another_folder(tmp_path: Path) -> None:
    first = ("demo", "--work", tmp_path, "--characters", 24)
    assert str(call(*first).exception) == "stopped here"
    others = ((), ("--characters", 24, "--epochs", 1), (*first[3:], "--recipe", "dolls-128"))
    for options in others:
        error = call("demo", "--work", tmp_path, *options).exception
        assert isinstance(error, UserError)
        assert re.fullmatch(
            rf"{tmp_path}: holds a demo with --recipe dolls-64 --characters 24 --epochs \d+\. Give "
            r"these options, or another --work\.",
            str(error),
        )
    assert str(call(*first).exception) == "stopped here"


def test_a_demo_draws_only_what_its_recipe_selects(tmp_path: Path) -> None:
    error = call("demo", "--work", tmp_path / "w", "--recipe", "characters-64").exception
    assert str(error) == (
        "--recipe characters-64: selects no drawn dolls. Give dolls-64, dolls-128 or "
        "dolls-128-varied."
    )
    assert not (tmp_path / "w").exists()


@pytest.mark.usefixtures("_drawn_to_a_stop")
def test_a_demo_from_before_there_was_a_choice_goes_on(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "options.json").write_text('{"characters": 96, "epochs": 8}')
    assert str(call("demo", "--work", tmp_path).exception) == "stopped here"


MINE = """
select = {snapshot = 2021, rating = ["safe"], tags = ["doll"]}
source = {layout = "512px", rate = 0}
prepare = {size = 96, min_side = 256, fit = "pad"}
split = {by = "character"}
train = {model = "reference", width_multiplier = 0.125, batch_size = 8, num_chroma = 8}
"""


@pytest.mark.slow
def test_a_demo_goes_by_a_recipe_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it makes the true answers: of the samples' size and fit, before backdrops."""
    asked: dict[str, Any] = {}

    def judge(
        checkpoint: Path, samples: Path, split: str, truth: Truth, sheet: Path
    ) -> dict[str, dict[str, float | None]]:
        asked.update(checkpoint=checkpoint, truth=truth)
        return {"model": {}}

    monkeypatch.setattr("model.evaluation.crossing.judge_crossing", judge)
    monkeypatch.setattr("model.commands.demo.print_table", lambda *_: None)
    (tmp_path / "mine.toml").write_text(MINE)
    options = ("--recipe", tmp_path / "mine.toml", "--characters", 24, "--epochs", 1)
    result = call("demo", "--work", tmp_path / "w", *options)
    assert result.exit_code == 0, result.output
    _, info = load_checkpoint(asked["checkpoint"])
    assert (info.size, info.train.width_multiplier, info.train.epochs) == ((96, 96), 0.125, 1)
    with Samples(tmp_path / "w" / "samples", "test") as samples:
        dolls = [doll_of(post_id, backdrops=True) for post_id in samples.post_ids.tolist()]
        odd = next(
            i
            for i, doll in enumerate(dolls)
            if doll.width != doll.height and doll.pose.backdrop.kind != "white_background"
        )
        color = samples.load([odd]).color[0].permute(1, 2, 0).numpy()
    itself = asked["truth"](dolls[odd].post_id, dolls[odd].post_id)
    assert np.abs(itself.astype(float) - color).mean() < 4
