"""demo, as the command line calls it: which folders it draws into."""

import re
from pathlib import Path

import pytest

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

    def stop(*arguments: object) -> None:
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
        "--recipe characters-64: selects no drawn dolls. Give dolls-64 or dolls-128."
    )
    assert not (tmp_path / "w").exists()


@pytest.mark.usefixtures("_drawn_to_a_stop")
def test_a_demo_from_before_there_was_a_choice_goes_on(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "options.json").write_text('{"characters": 96, "epochs": 8}')
    assert str(call("demo", "--work", tmp_path).exception) == "stopped here"
