"""The training loop: what a run leaves, goes on from, and refuses."""

import dataclasses
import io
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from model.checkpoint import load_checkpoint
from model.config import TrainConfig
from model.data.epochs import iterate_steps
from model.data.samples import Samples
from model.networks.discriminator import Verdict
from model.networks.losses import Terms, adversarial_terms
from model.networks.style import build_style_network
from model.ranks import Ranks
from model.training.train import TrainResult, train
from model.training.validation import validation_marks
from model.use.colorize import load_colorizer
from pipeline.errors import UserError
from tests.model_checkpoints import CONFIG
from tests.model_runs import log_of, run, without_times
from tests.model_samples import write_samples

pytestmark = pytest.mark.usefixtures("small_style_networks")


@pytest.fixture(scope="module")
def whole_run(samples_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    result = run(samples_dir, run_dir)
    assert result == TrainResult(8, result.best, True)
    return run_dir


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(whole_run: Path) -> None:
    lines = log_of(whole_run)
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    validations = [line for line in lines if line["kind"] == "validation"]
    assert steps == [2, 3, 4, 6, 8]  # every third, and before each validation
    assert [line["step"] for line in validations] == [2, 4, 6, 8]
    assert [(line["epoch"], line["position"]) for line in validations] == [
        *((0, 4), (0, 8), (1, 4), (1, 8))
    ]
    terms = {"l1", "l1_guide_grey", "l1_guide_color", "g_source", "g_style"}
    terms |= {"d_source_real", "d_source_generated", "d_style_real", "d_style_generated"}
    assert terms < lines[0].keys()
    assert 0 <= lines[0]["data_wait"] < 1
    assert lines[0]["samples_per_second"] > 0
    measures = {"mse", "chroma_error", "regional_error", "following"}
    assert all(measures < line.keys() for line in validations)

    _, best = load_checkpoint(whole_run / "best.safetensors")
    _, last = load_checkpoint(whole_run / "last.json")
    assert best.best == min(line["mse"] for line in validations) == last.best
    assert (last.step, last.epoch, last.position) == (8, 1, 8)
    assert last.recipe == {"prepare": {"fit": "stretch"}}  # the samples' own
    assert orjson.loads((whole_run / "config.json").read_bytes())["train"]["batch_size"] == 2

    board = EventAccumulator(str(whole_run), {"scalars": 0, "images": 0}).Reload()
    assert [e.step for e in board.Scalars("validation/mse")] == [2, 4, 6, 8]
    assert "train/g_style" in board.Tags()["scalars"]
    assert len(board.Images("samples")) == 4
    sheet = Image.open(whole_run / "grids" / "step-0000008.png")
    assert sheet.width > 4 * 64
    assert sheet.height > 2 * 64


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 2, 5])
def test_a_stopped_run_goes_on_exactly(
    samples_dir: Path, whole_run: Path, tmp_path: Path, stop_after: int
) -> None:
    first = run(samples_dir, tmp_path, max_steps=stop_after)
    assert first.step == stop_after
    assert not first.finished
    assert run(samples_dir, tmp_path, resume=True).finished
    for name in ("last", "best"):
        expected, expected_info = load_checkpoint(whole_run / f"{name}.safetensors")
        found, found_info = load_checkpoint(tmp_path / f"{name}.safetensors")
        assert found_info == expected_info
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[k], expected[k]) for k in expected)
    validations = [
        [line for line in without_times(log_of(path)) if line["kind"] == "validation"]
        for path in (whole_run, tmp_path)
    ]
    assert validations[0] == validations[1]
    before = sorted(tmp_path.rglob("*"))
    again = run(samples_dir, tmp_path, resume=True)
    assert again == TrainResult(8, expected_info.best, True)
    assert sorted(tmp_path.rglob("*")) == before


def ids_from(
    samples_dir: Path, config: TrainConfig, epoch: int, position: int, *, num_steps: int
) -> list[int]:
    """Return the post ids that a run takes in so many steps from a place on."""
    config = dataclasses.replace(config, epochs=1000)
    ids: list[int] = []
    with Samples(samples_dir, "train") as samples:
        steps = iterate_steps(samples, config, Ranks(), epoch, position, pin=False)
        for _, _, batch, _ in itertools.islice(steps, num_steps):
            ids += batch.post_ids.tolist()
        steps.close()
    return ids


@pytest.mark.slow
def test_a_killed_run_goes_on_exactly(samples_dir: Path, whole_run: Path, tmp_path: Path) -> None:
    """Killed after steps that no checkpoint holds: their lines of the log are taken back.

    The next 1,000 samples are the same with any number of decoding threads, and so is, to the
    bit, every loss and every weight.
    """
    code = (
        "import os, sys; from pathlib import Path\n"
        "import model.training.train; from tests.model_checkpoints import CONFIG\n"
        "from tests.stand_ins import shrink_style_networks\n"
        "shrink_style_networks()\n"
        "record = model.training.train.Journal.record\n"
        "def dying(self, step, *rest):\n"
        "    record(self, step, *rest)\n"
        "    if step == 3: os.kill(os.getpid(), 9)\n"
        "model.training.train.Journal.record = dying\n"
        "model.training.train.train(CONFIG, Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    root = Path(__file__).resolve().parent.parent
    killed = subprocess.run([sys.executable, "-c", code, samples_dir, tmp_path], cwd=root)
    assert killed.returncode == -signal.SIGKILL
    assert log_of(tmp_path)[-1]["step"] == 3
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"kind": "tra')  # torn by the crash
    info = load_checkpoint(tmp_path / "last.safetensors")[1]
    assert (info.step, info.epoch, info.position) == (2, 0, 4)

    expected_ids = ids_from(samples_dir, CONFIG, 0, 0, num_steps=2 + 500)[2 * CONFIG.batch_size :]
    for num_threads in (1, 5):
        threads = dataclasses.replace(CONFIG, decode_threads=num_threads)
        found_ids = ids_from(samples_dir, threads, info.epoch, info.position, num_steps=500)
        assert found_ids == expected_ids

    threads = dataclasses.replace(CONFIG, decode_threads=5)
    assert run(samples_dir, tmp_path, threads, resume=True).finished
    assert without_times(log_of(tmp_path)) == without_times(log_of(whole_run))
    expected, _ = load_checkpoint(whole_run / "last.safetensors")
    found, _ = load_checkpoint(tmp_path / "last.safetensors")
    assert all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_save_and_stop(
    samples_dir: Path, tmp_path: Path, number: signal.Signals
) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "import dataclasses; from model.training.train import train\n"
        "from rich.console import Console\n"
        "from tests.model_checkpoints import CONFIG\n"
        "config = dataclasses.replace(CONFIG, model='reference', gan='none', epochs=10_000)\n"
        "quiet = Console(quiet=True)\n"
        "result = train(config, Path(sys.argv[1]), Path(sys.argv[2]), console=quiet)\n"
        "print(result.finished, result.step)\n"
    )
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", code, samples_dir, tmp_path],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            deadline = time.monotonic() + 300
            while not (tmp_path / "last.json").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(process.pid, number)
            output, _ = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 0
    finished, step = output.split()
    assert finished == "False"
    assert load_checkpoint(tmp_path / "last.safetensors")[1].step == int(step)


@pytest.mark.parametrize(
    "changes",
    [
        {"gan": "paper"},
        {"model": "batchnorm", "gan": "none", "cache_style": False},
        {"precision": "bf16"},
        {"channels_last": True},
    ],
)
def test_every_kind_of_run_trains(
    samples_dir: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, validations_per_epoch=1, **changes)
    result = run(samples_dir, tmp_path, config)
    assert result.finished
    assert result.best is not None
    assert np.isfinite(result.best)


def test_the_features_of_one_run_serve_the_next(samples_dir: Path, whole_run: Path) -> None:
    files = list((samples_dir.parent / "style").glob("*-*.f16"))
    assert {path.name.split("-")[0] for path in files} >= {"train", "val"}
    assert not (whole_run / "style").exists()


def test_a_mirrored_sample_has_the_style_of_its_mirrored_picture(
    samples_dir: Path, tmp_path: Path
) -> None:
    """What was kept of the picture as it is would be another picture's style."""
    config = dataclasses.replace(CONFIG, mirror=1.0)
    run(samples_dir, tmp_path / "kept", config, max_steps=2)
    run(samples_dir, tmp_path / "anew", dataclasses.replace(config, cache_style=False), max_steps=2)
    assert without_times(log_of(tmp_path / "kept")) == without_times(log_of(tmp_path / "anew"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {
            "ema": 0.5,
            "clip_norm": 0.1,
            "schedule": "cosine",
            "warmup_steps": 3,
            "channels_last": True,
        },
        {"style_train": True, "gan": "acgan", "model": "inception", "lr": 1e-4, "batch_size": 4},
        {"muon_lr": 0.01, "gan": "acgan", "schedule": "cosine", "warmup_steps": 3},
    ],
    ids=["mean, clipping, schedule, layout", "style trained", "muon"],
)
def test_a_run_with_options_goes_on_exactly(
    samples_dir: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, **changes)
    run(samples_dir, tmp_path / "whole", config)
    run(samples_dir, tmp_path / "halves", config, max_steps=1)
    threads = dataclasses.replace(config, decode_threads=3)
    assert run(samples_dir, tmp_path / "halves", threads, resume=True).finished
    for name in ("last", "best"):
        expected, _ = load_checkpoint(tmp_path / "whole" / f"{name}.safetensors")
        found, _ = load_checkpoint(tmp_path / "halves" / f"{name}.safetensors")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[k], expected[k]) for k in expected)
    if config.ema:
        last, _ = load_checkpoint(tmp_path / "whole" / "last.safetensors")
        assert not torch.equal(last["ema.out.weight"], last["generator.out.weight"])
        assert log_of(tmp_path / "whole")[0]["norm_generator"] > 0
    if config.style_train:
        colorizer, info = load_colorizer(tmp_path / "whole" / "best.safetensors", device="cpu")
        assert info.train.style_train
        steps = [line for line in log_of(tmp_path / "whole") if line["kind"] == "train"]
        # of standardised vectors, though the network runs away from what it was at first
        assert all(line["d_style_real"] < 1 for line in steps)
        first = build_style_network("inception_v3", normalised=True, weights="random")
        assert all(
            not torch.equal(a, b)
            for a, b in zip(colorizer.style_network.parameters(), first.parameters(), strict=True)
        )


@pytest.mark.slow
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    samples_dir: Path, whole_run: Path, tmp_path: Path
) -> None:
    run(samples_dir, tmp_path, max_steps=5)
    last = tmp_path / "last.safetensors"
    assert load_checkpoint(last)[1].step == 5
    last.write_bytes(last.read_bytes()[:-9])
    speech = io.StringIO()
    train(CONFIG, samples_dir, tmp_path, resume=True, console=Console(file=speech, width=500))
    assert re.search(r"last\.safetensors: damaged.* the one before, of step 4\.", speech.getvalue())
    assert without_times(log_of(tmp_path)) == without_times(log_of(whole_run))
    board = EventAccumulator(str(tmp_path), {"scalars": 0}).Reload()
    assert [e.step for e in board.Scalars("train/l1")] == [2, 3, 4, 6, 8]  # none of step 5 is left

    for name in ("last", "previous"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"previous\.safetensors: damaged"):
        run(samples_dir, tmp_path, resume=True)
    last.unlink()  # as a crash between the two renames leaves it
    (tmp_path / "previous.safetensors").write_bytes((whole_run / "last.safetensors").read_bytes())
    assert run(samples_dir, tmp_path, resume=True).finished


@pytest.mark.slow
@pytest.mark.usefixtures("real_style_networks")
def test_the_inception_model_trains(samples_dir: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG, model="inception", epochs=1, validations_per_epoch=1, batch_size=4
    )
    assert run(samples_dir, tmp_path, config, max_steps=1).step == 1


def test_a_loss_that_is_not_finite_stops_the_run(
    samples_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def poisoned(generated: Verdict, style: torch.Tensor) -> Terms:
        calls.append(1)
        terms = adversarial_terms(generated, style)
        return {**terms, "g_style": terms["g_style"] * (float("nan") if len(calls) == 5 else 1)}

    monkeypatch.setattr("model.training.steps.adversarial_terms", poisoned)
    with pytest.raises(UserError, match=r"step 5: the loss term 'g_style' is nan"):
        run(samples_dir, tmp_path)
    tensors, info = load_checkpoint(tmp_path / "last.safetensors")
    assert info.step == 4
    assert all(t.isfinite().all() for t in tensors.values())


def test_wrong_use_is_explained(samples_dir: Path, whole_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds a run already. Go on with --resume"):
        run(samples_dir, whole_run)
    other = dataclasses.replace(CONFIG, lr=0.5)
    with pytest.raises(UserError, match=r"other settings: train\.lr \(0.001 there, 0.5 here\)"):
        run(samples_dir, whole_run, other, resume=True)
    weights = dataclasses.replace(CONFIG, style_seed=9)
    with pytest.raises(UserError, match="style_seed"):
        run(samples_dir, whole_run, weights, resume=True)
    more = write_samples(tmp_path / "more", {"train": 9, "val": 4})
    with pytest.raises(UserError, match="trained on other samples"):
        run(more, whole_run, resume=True)
    large = dataclasses.replace(CONFIG, batch_size=9)
    with pytest.raises(UserError, match=r"8 training samples do not fill a batch of 9"):
        run(samples_dir, tmp_path / "run", large)
    with pytest.raises(UserError, match="no samples in the split 'val'"):
        run(write_samples(tmp_path / "no-val", {"train": 2}), tmp_path / "run")
    for size in (32, 80):
        odd = write_samples(tmp_path / f"odd-{size}", {"train": 2, "val": 1}, size=size)
        with pytest.raises(UserError, match=rf"{size} x {size} pixels.*multiples of 32 from 64"):
            run(odd, tmp_path / "run")
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(UserError, match="another process"):
        run(samples_dir, tmp_path / "run")


@given(steps=st.integers(1, 1000), epochs=st.integers(1, 5), num=st.integers(1, 12))
def test_validations_are_spread_over_the_epochs(steps: int, epochs: int, num: int) -> None:
    marks = sorted(validation_marks(steps, epochs, num))
    assert marks[0] >= 1
    assert {steps * epoch for epoch in range(1, epochs + 1)} <= set(marks)
    assert len(marks) == epochs * min(num, steps)
    gaps = np.diff([0, *marks])
    assert gaps.max() - gaps.min() <= 1


def test_validations_may_be_epochs_apart() -> None:
    assert validation_marks(10, 7, 0.5) == {20, 40, 60, 70}
    assert validation_marks(10, 3, 0.1) == {30}
    assert validation_marks(10, 20, 0.1) == {100, 200}


def test_a_run_validates_every_other_epoch_and_at_its_end(
    samples_dir: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, epochs=3, validations_per_epoch=0.5)
    run(samples_dir, tmp_path, config)
    lines = [orjson.loads(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()]
    epochs = [line["epoch"] for line in lines if line["kind"] == "validation"]
    assert epochs == [1, 2]


@pytest.mark.slow
@pytest.mark.usefixtures("real_style_networks")
def test_a_run_says_what_its_style_network_is(
    samples_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(CONFIG, samples_dir, tmp_path, max_steps=2)
    output = capsys.readouterr().out
    assert "vgg19, RANDOM weights (seed 0)" in output
    assert re.search(r"epoch 1/2, step 2: mse 0\.\d+, psnr .*, chroma_error .*, following ", output)


def test_without_samples_nothing_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no samples in the split 'train'"):
        run(tmp_path / "samples", tmp_path / "runs" / "one")
    assert not (tmp_path / "runs").exists()
