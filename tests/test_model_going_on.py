"""What a run refuses to go on from, or to begin with, before it has cost anything."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint import load_checkpoint, save_checkpoint
from model.training.journal import Journal
from model.training.runs import read_runs
from pipeline.errors import UserError
from tests.model_checkpoints import CONFIG
from tests.model_runs import run
from tests.model_samples import write_samples

SHORT = dataclasses.replace(CONFIG, gan="none", validations_per_epoch=1)

pytestmark = pytest.mark.usefixtures("small_style_networks")


@pytest.fixture(scope="module")
def two_epochs(samples_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, of which the one of two epochs is finished."""
    runs_dir = tmp_path_factory.mktemp("runs")
    assert run(samples_dir, runs_dir / "one", SHORT).finished
    return runs_dir


def test_a_run_does_not_end_before_where_it_is(samples_dir: Path, two_epochs: Path) -> None:
    config = (two_epochs / "one" / "config.json").read_bytes()
    fewer = dataclasses.replace(SHORT, epochs=1)
    said = r"one: its run is 8 steps far, and 1 epoch would end after 4: give --epochs 2 or more"
    with pytest.raises(UserError, match=said):
        run(samples_dir, two_epochs / "one", fewer, resume=True)
    assert (two_epochs / "one" / "config.json").read_bytes() == config
    assert read_runs(two_epochs)[0].state == "finished"
    assert run(samples_dir, two_epochs / "one", SHORT, resume=True).finished


def test_the_generator_alone_is_nothing_to_go_on_from(
    samples_dir: Path, two_epochs: Path, tmp_path: Path
) -> None:
    shutil.copytree(two_epochs / "one", tmp_path / "one")
    shutil.copy(tmp_path / "one" / "best.safetensors", tmp_path / "one" / "last.safetensors")
    with pytest.raises(UserError, match=r"last\.safetensors: .* cannot go on from it"):
        run(samples_dir, tmp_path / "one", SHORT, resume=True)


@pytest.mark.parametrize(
    "place", [(8, 0, 0), (3, 1, 8), (8, 1, 6), (0, 1, 8), (8, 2**62, 0), (8, 1, 2**62)]
)
def test_a_place_that_no_run_reaches_is_refused(
    samples_dir: Path, two_epochs: Path, tmp_path: Path, place: tuple[int, int, int]
) -> None:
    """One at its last step, but in its first epoch, trained on to twice as many, and saved none."""
    shutil.copytree(two_epochs / "one", tmp_path / "one")
    path = tmp_path / "one" / "last.safetensors"
    tensors, info = load_checkpoint(path)
    assert (info.step, info.epoch, info.position) == (8, 1, 8)
    step, epoch, position = place
    forged = dataclasses.replace(info, step=step, epoch=epoch, position=position)
    save_checkpoint(path, tensors, forged)
    with pytest.raises(UserError, match=rf"step {step} and of sample {position} of epoch"):
        run(samples_dir, tmp_path / "one", SHORT, resume=True)


def test_a_name_that_no_folder_can_have_is_refused(samples_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"n: cannot be written: File name too long"):
        run(samples_dir, tmp_path / ("n" * 300), SHORT)


def test_a_file_in_the_place_of_the_style_features_is_named(
    samples_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "style").write_text("mine")
    with pytest.raises(UserError, match="style: cannot be written: File exists"):
        run(samples_dir, tmp_path / "one", SHORT, style_dir=tmp_path / "style")


def test_nothing_is_trained_where_the_best_cannot_be_told(tmp_path: Path) -> None:
    samples_dir = write_samples(tmp_path / "samples", {"train": 4, "val": 1})  # nothing to follow
    config = dataclasses.replace(SHORT, best_by="following", epochs=1)
    with pytest.raises(UserError, match="validation samples do not tell following"):
        run(samples_dir, tmp_path / "one", config)
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(("precision", "advised"), [("fp32", False), ("bf16", True)])
def test_a_loss_that_is_not_finite_comes_with_advice_of_use(
    samples_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    advised: bool,
) -> None:
    record = Journal.record

    def poisoned(
        self: Journal, step: int, epoch: int, position: int, terms: dict[str, Any], *rest: Any
    ) -> None:
        record(self, step, epoch, position, {k: v * float("nan") for k, v in terms.items()}, *rest)

    monkeypatch.setattr(Journal, "record", poisoned)
    with pytest.raises(UserError, match="try a lower train.lr") as caught:
        run(samples_dir, tmp_path, dataclasses.replace(SHORT, precision=precision))
    assert ("train.precision=fp32" in str(caught.value)) == advised
