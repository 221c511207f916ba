"""The figures in an exported model's card: those of this checkpoint, and how they came about."""

import dataclasses
from pathlib import Path
from typing import Any

import orjson
import pytest

from model.checkpoint import load_checkpoint, read_sum, save_checkpoint
from model.use.export import CARD, Export, export
from pipeline.errors import UserError
from tests.calls import call
from tests.model_checkpoints import write_checkpoint, write_metrics
from tests.model_samples import write_samples


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Return a run with two checkpoints of one step and other weights."""
    run_dir = tmp_path / "work" / "runs" / "one"
    tensors, info = load_checkpoint(write_checkpoint(run_dir / "best.safetensors", "reference"))
    raw = {name: tensor + 0.01 for name, tensor in tensors.items()}
    save_checkpoint(run_dir / "last.safetensors", raw, info)
    return run_dir


def card_of(checkpoint: Path, out: Path) -> tuple[Export, str]:
    found = export(checkpoint, out, onnx=False)
    return found, (out / CARD).read_text()


@pytest.mark.slow
def test_each_checkpoint_of_a_step_has_its_own_evaluation(run_dir: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "work" / "samples", {"train": 2, "test": 2})
    sets = ("num_sketches=2", "num_references=2", "device=cpu")
    options = [word for pair in sets for word in ("--set", f"eval.{pair}")]
    for name, folder in (("", "eval-test"), ("last.safetensors", "eval-test-last")):
        done = call("eval", run_dir / name, *options)
        assert done.exit_code == 0, done.output
        metrics = orjson.loads((run_dir / folder / "metrics.json").read_bytes())
        assert metrics["sha256"] == read_sum(run_dir / name)
    ours, others = (run_dir / name / "metrics.json" for name in ("eval-test", "eval-test-last"))
    found, _ = card_of(run_dir, tmp_path / "best")
    assert (found.evaluations, found.passed_over) == ([ours], [others])
    found, _ = card_of(run_dir / "last.safetensors", tmp_path / "last")
    assert (found.evaluations, found.passed_over) == ([others], [ours])
    with pytest.raises(UserError, match="judges another checkpoint of step 3, of SHA-256"):
        export(run_dir, tmp_path / "other", metrics_paths=[others], onnx=False)


def test_an_evaluation_without_a_sum_is_of_the_checkpoint_of_its_model_and_step(
    run_dir: Path, tmp_path: Path
) -> None:
    path = write_metrics(run_dir / "eval-test" / "metrics.json")
    assert card_of(run_dir, tmp_path / "out")[0].evaluations == [path]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"guidance": 1.0, "sketch": "sketch"}, ""),
        ({"guidance": 1.05}, ", guidance 1.05"),
        ({"guidance": 0.0, "sketch": "sketch_ink"}, ", sketches `sketch_ink`, guidance 0"),
        ({"reduce": 1}, ""),
        ({"reduce": 2}, ", measured at 1/2 of the sides"),
    ],
)
def test_the_card_says_how_its_figures_came_about(
    run_dir: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    write_metrics(run_dir / "eval-test" / "metrics.json", **changed)
    _, card = card_of(run_dir, tmp_path / "out")
    assert f"40 pictures in 9 clusters of the test split, reference: character{said}.\n" in card


def test_the_card_says_by_which_weights_its_figures_are(run_dir: Path, tmp_path: Path) -> None:
    path = run_dir / "eval-test" / "metrics.json"
    block = {"reference": "self", "num_samples": 2, "fid": 30.0, "kid": 0.1, "baselines": {}}
    write_metrics(path, settings={"self": block}, fid_weights="ab12", lpips_weights="cd34")
    heading = "2 pictures of the test split, reference: self."
    card = card_of(run_dir, tmp_path / "a")[1]
    assert f"{heading} FID and KID: by weights of SHA-256 ab12.\n" in card
    settings = {"self": block | {"lpips": 0.2}}
    write_metrics(path, settings=settings, fid_weights=None, lpips_weights="cd34")
    card = card_of(run_dir, tmp_path / "b")[1]
    assert f"{heading} LPIPS: by weights of SHA-256 cd34.\n" in card


def test_the_card_names_the_picture_that_all_were_coloured_after(
    run_dir: Path, tmp_path: Path
) -> None:
    block = {"reference": "picture-2", "file": "te|al.png", "num_samples": 2, "baselines": {}}
    path = write_metrics(tmp_path / "metrics.json", settings={"picture-2": block})
    export(run_dir, tmp_path / "out", metrics_paths=[path], onnx=False)
    card = (tmp_path / "out" / CARD).read_text()
    assert "2 pictures of the test split, reference: picture-2 (te al.png).\n" in card


def test_the_sketches_are_compared_with_those_of_training(run_dir: Path, tmp_path: Path) -> None:
    tensors, info = load_checkpoint(run_dir)
    ink = dataclasses.replace(info, train=dataclasses.replace(info.train, sketch="sketch_ink"))
    save_checkpoint(run_dir / "best.safetensors", tensors, ink)
    write_metrics(run_dir / "eval-test" / "metrics.json", sketch="sketch_ink")
    assert "reference: character.\n" in card_of(run_dir, tmp_path / "a")[1]
    write_metrics(run_dir / "eval-test" / "metrics.json", sketch="sketch")
    assert "reference: character, sketches `sketch`.\n" in card_of(run_dir, tmp_path / "b")[1]
