"""The command line's options for training, down to the settings that they become."""

from pathlib import Path
from typing import Any

import pytest

from model.commands.judge import print_metrics
from model.config import TrainConfig
from model.evaluation.remarks import remarks
from model.training.train import TrainResult
from pipeline.shards.shard import rows_path
from tests.calls import call
from tests.crashing import make_source, make_work


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """Collect what would be trained, and train nothing."""
    configs: list[TrainConfig] = []

    def note(config: TrainConfig, *rest: object, **options: Any) -> TrainResult:
        configs.append(config)
        return TrainResult(1, None, True)

    monkeypatch.setattr("model.training.train.train", note)
    return configs


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {}),
        (["--style-train"], {"style_train": True}),
        (["--set", "train.style_train=true"], {"style_train": True}),
        (["--model", "batchnorm", "--gan", "none"], {"model": "batchnorm", "gan": "none"}),
        (["--epochs", "3", "--batch-size", "4"], {"epochs": 3, "batch_size": 4}),
        (["--style-weights", "random", "--device", "cpu"], {"style_weights": "random"}),
    ],
)
def test_the_options_of_train_become_its_settings(
    trained: list[TrainConfig], tmp_path: Path, options: list[str], expected: dict[str, Any]
) -> None:
    called = call("train", "white-background-256", "--work", tmp_path, *options)
    assert called.exit_code == 0, called.output
    (config,) = trained
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.style_train == expected.get("style_train", False)


def test_train_says_which_planned_samples_it_goes_without(
    trained: list[TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make_work(tmp_path)
    command = ("train", "white-background-256", "--work", work.root)
    assert call(*command).stderr == ""
    rows_path(work.samples_dir, "val-000000").unlink()
    told = call(*command)
    assert told.stderr == (
        f"{work.samples_dir}: lacks 1 of 2 planned shards of train and val; this goes on without. "
        "`prepare`, or `pull`, brings the rest.\n"
    )
    assert (told.exit_code, len(trained)) == (0, 2)
    monkeypatch.setenv("RANK", "1")
    assert call(*command).stderr == ""
    monkeypatch.setenv("RANK", "0")
    work.plan_path.unlink()  # samples alone are enough
    assert call(*command).stderr == ""


def test_eval_says_which_planned_samples_it_goes_without(tmp_path: Path) -> None:
    make_source(tmp_path)
    work = tmp_path / "work"
    for stage in ("fetch", "prepare"):
        recipe = (tmp_path / "recipe.toml", "--set", "split.shard_size=1")
        call(stage, *recipe, "--work", work, "--workers", 1)
    rows_path(work / "samples", "train-000000").unlink()
    (run := work / "runs" / "none").mkdir(parents=True)
    told = call("eval", run, "--split", "train").stderr
    assert f"{work}/samples: lacks 1 of " in told
    assert " planned shards of train; this goes on without." in told
    assert call("eval", run, "--split", "val").stderr == ""


@pytest.mark.parametrize(
    ("best_by", "best", "expected"),
    [
        ("mse", 0.25, "best by mse: 0.2500"),
        ("following", 0.25, "best by following: 0.2500 off 1"),  # it is 0.75 or 1.25
        ("following", None, "best by following: none yet"),
    ],
)
def test_train_says_how_good_the_best_one_is(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    best_by: str,
    best: float | None,
    expected: str,
) -> None:
    monkeypatch.setattr("model.training.train.train", lambda *_, **__: TrainResult(8, best, True))
    arguments = ["train", "white-background-256", "--work", str(tmp_path), "--best-by", best_by]
    output = call(*arguments).output
    assert output.endswith(f"finished after 8 steps, {expected}\n")
    monkeypatch.setenv("RANK", "1")  # of the processes of torchrun one says it
    assert call(*arguments).output == ""


def test_a_training_that_was_stopped_is_not_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("model.training.train.train", lambda *_, **__: TrainResult(8, 0.25, False))
    called = call("train", "white-background-256", "--work", tmp_path)
    assert called.exit_code == 130
    assert called.output.endswith(": stopped after 8 steps, best by mse: 0.2500\n")


def test_eval_prints_which_picture_and_no_negative_zero(capsys: pytest.CaptureFixture[str]) -> None:
    baselines = {"mean": {"following": -1e-17}, "grey": {"following": None}}
    block = {"reference": "picture-2", "file": "teal.png", "num_samples": 2, "following": 0.5}
    print_metrics("batchnorm", "test", {**block, "unavailable": {}, "baselines": baselines})
    said, *table = capsys.readouterr().out.splitlines()
    assert said == "2 test samples, reference: picture-2 (teal.png)"
    expected = [["batchnorm", "mean", "grey"], ["following", "0.5000", "0.0000", "-"]]
    assert [line.split() for line in table] == expected


def test_eval_says_once_why_figures_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = {"fid": "no weights", "lpips": "no truth", "mse": "no truth", "kid": "no weights"}
    block = {"reference": "any", "num_samples": 2, "unavailable": reasons, "baselines": {}}
    print_metrics("reference", "test", block)
    said = capsys.readouterr().out.splitlines()[2:]
    assert said == ["no fid, kid: no weights", "no mse, lpips: no truth"]


def test_eval_says_what_a_bad_figure_means(capsys: pytest.CaptureFixture[str]) -> None:
    average = {"following": 0.01, "chroma_error": 0.9}
    block = {"reference": "self", "num_samples": 2, "unavailable": {}, "baselines": {}}
    print_metrics("zhang2017", "test", block | average)
    assert capsys.readouterr().out.splitlines()[-1] == remarks(average)["following"]


def test_all_figures_of_an_evaluation_fit_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["mse", "psnr", "ssim", "lpips", "fid", "kid"]
    names += ["following", "chroma_error", "regional_error", "paper_error"]
    figures = dict.fromkeys(names, 123.45678)
    block = {"reference": "character", "num_samples": 56, "unavailable": {}, **figures}
    baselines = dict.fromkeys(("mean", "grey", "copy"), figures)
    print_metrics("reference", "test", block | {"baselines": baselines})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(names) + len(remarks(figures))
    assert max(map(len, lines)) <= 80
