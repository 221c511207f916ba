"""A run's folder: what it goes on from, and what no later run in it may lose."""

import dataclasses
import errno
import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import save

from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import TrainConfig
from model.training.rundir import changed_settings, load_last
from model.training.runs import read_runs
from pipeline.errors import UserError
from tests.model_checkpoints import CONFIG, write_checkpoint
from tests.model_runs import QUIET, run

SHORT = dataclasses.replace(CONFIG, gan="none")

pytestmark = pytest.mark.usefixtures("small_style_networks")


def test_only_what_decides_the_result_must_stay_the_same_in_a_run() -> None:
    free = TrainConfig(epochs=99, device="cpu", decode_threads=7, log_every=1, num_grid=1)
    assert changed_settings(TrainConfig(), free) == []
    assert changed_settings(TrainConfig(), TrainConfig(lr=0.1, seed=4)) == ["lr", "seed"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_of_which_only_the_best_checkpoint_is_left_is_not_replaced(
    tmp_path: Path, resume: bool
) -> None:
    assert load_last(tmp_path, CONFIG, "", 4, QUIET, resume=resume) is None
    write_checkpoint(tmp_path / "best.safetensors")
    with pytest.raises(
        UserError, match=r"holds best\.safetensors of a run, and .* or remove the f"
    ):
        load_last(tmp_path, CONFIG, "", 4, QUIET, resume=resume)


def steps(run_dir: Path) -> dict[str, int]:
    """Return the steps of a run's whole checkpoints to go on from."""
    found = {}
    for name in ("last", "previous"):
        try:
            found[name] = load_checkpoint(run_dir / f"{name}.safetensors")[1].step
        except UserError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("last_is_damaged", [False, True])
def test_a_full_disk_and_a_damaged_last_checkpoint_lose_none_that_is_whole(
    samples_dir: Path, tmp_path: Path, last_is_damaged: bool
) -> None:
    run(samples_dir, tmp_path, SHORT, max_steps=4)
    before = {"last": 4, "previous": 2}
    assert steps(tmp_path) == before
    last = tmp_path / "last.safetensors"
    if last_is_damaged:
        last.write_bytes(last.read_bytes()[:-9])
        del before["last"]

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.checkpoint.save", fail)
        with pytest.raises(UserError, match="Make room, and go on with --resume"):
            run(samples_dir, tmp_path, SHORT, resume=True, max_steps=1)
    assert steps(tmp_path) == before
    run(samples_dir, tmp_path, SHORT, resume=True, max_steps=1)
    began = max(before.values())
    assert steps(tmp_path) == {"last": began + 1, "previous": began}
    run(samples_dir, tmp_path, SHORT, resume=True, max_steps=1)
    assert steps(tmp_path) == {"last": began + 2, "previous": began + 1}


def fill_the_disk_with_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave room for one more checkpoint."""
    written: list[object] = []

    def save_one(*arguments: Any, **options: Any) -> bytes:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(arguments)
        return save(*arguments, **options)

    monkeypatch.setattr("model.checkpoint.save", save_one)


@pytest.mark.parametrize(
    "name",
    [
        "random.cpu",
        "generator.out.bias",
        "generator_optimizer.x.y",
        "generator_optimizer.0.exp_avg",
        "generator_optimizer.0.other",
        "generator_optimizer.999.step",
    ],
)
def test_a_run_does_not_go_on_from_tensors_of_other_networks(
    samples_dir: Path, tmp_path: Path, name: str
) -> None:
    run(samples_dir, tmp_path, SHORT, max_steps=1)
    last = tmp_path / "last.safetensors"
    tensors, info = load_checkpoint(last)
    save_checkpoint(last, tensors | {name: torch.zeros(1)}, info)
    with pytest.raises(UserError, match="is not one of this run's networks"):
        run(samples_dir, tmp_path, SHORT, resume=True)


@pytest.mark.parametrize("lost", ["0.step", "0.exp_avg", "1.exp_avg_sq", "0.", ""])
def test_a_run_does_not_go_on_without_its_optimisers_state(
    samples_dir: Path, tmp_path: Path, lost: str
) -> None:
    run(samples_dir, tmp_path, SHORT, max_steps=1)
    last = tmp_path / "last.safetensors"
    tensors, info = load_checkpoint(last)
    start = f"generator_optimizer.{lost}"
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(start)}
    assert len(kept) < len(tensors)
    save_checkpoint(last, kept, info)
    with pytest.raises(UserError, match="is not one of this run's networks"):
        run(samples_dir, tmp_path, SHORT, resume=True)


@pytest.mark.slow
def test_a_run_that_its_first_validation_broke_off_begins_anew(
    samples_dir: Path, tmp_path: Path
) -> None:
    """There the best checkpoint is written before the first one to go on from."""
    with pytest.MonkeyPatch.context() as patch:
        fill_the_disk_with_the_second(patch)
        with pytest.raises(UserError, match="Make room, and go on with --resume"):
            run(samples_dir, tmp_path / "one", SHORT)
    assert steps(tmp_path / "one") == {}
    with pytest.raises(UserError, match=r"holds best\.safetensors"):
        run(samples_dir, tmp_path / "one", SHORT)
    with pytest.raises(UserError, match=r"holds best\.safetensors"):
        run(samples_dir, tmp_path / "one", dataclasses.replace(SHORT, lr=0.5), resume=True)
    assert run(samples_dir, tmp_path / "one", SHORT, resume=True).finished
    assert run(samples_dir, tmp_path / "whole", SHORT).finished
    for name in ("best", "last"):
        found, expected = (
            load_checkpoint(tmp_path / place / f"{name}.safetensors")[0]
            for place in ("one", "whole")
        )
        assert all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.slow
def test_the_best_checkpoint_of_a_longer_run_is_not_replaced(
    samples_dir: Path, tmp_path: Path
) -> None:
    run(samples_dir, tmp_path, SHORT)
    for name in ("last", "previous"):
        (tmp_path / f"{name}.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds best\.safetensors"):
        run(samples_dir, tmp_path, SHORT, resume=True)


@pytest.mark.parametrize(
    ("trained", "validated", "samples", "begins"),
    [
        ((1, 3), (3,), "", True),
        ((1, 3), (), "", True),  # it was killed before the validation's line
        ((1, 3), (3,), "others", False),
        ((1, 3, 4), (3,), "", False),
        ((1, 3), (2, 3), "", False),  # the best is of the second
        ((), (), "", False),
    ],
)
def test_what_began_anew_would_give_again_is_all_that_is_replaced(
    tmp_path: Path, trained: tuple[int, ...], validated: tuple[int, ...], samples: str, begins: bool
) -> None:
    """A log that says more than the best checkpoint, which is of step 3, is of a longer run."""
    best = write_checkpoint(tmp_path / "best.safetensors")
    config = load_checkpoint(best)[1].train
    lines = [{"kind": "train", "step": step, "l1": 0.5} for step in trained]
    lines += [{"kind": "validation", "step": step, "mse": 0.5} for step in validated]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if begins:
        assert load_last(tmp_path, config, samples, 4, QUIET, resume=True) is None
    else:
        with pytest.raises(UserError, match=r"holds best\.safetensors of a run"):
            load_last(tmp_path, config, samples, 4, QUIET, resume=True)


def test_runs_reads_the_checkpoint_before_where_the_last_is_gone(
    samples_dir: Path, tmp_path: Path
) -> None:
    run(samples_dir, tmp_path / "one", SHORT, max_steps=3)
    (tmp_path / "one/last.json").unlink()
    (found,) = read_runs(tmp_path)
    assert (found.state, found.step, found.style) == ("interrupted", 2, "vgg19 random 0")
