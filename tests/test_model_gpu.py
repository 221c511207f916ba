"""What a GPU computes is what the CPU computes; skipped where there is none."""

import dataclasses
from pathlib import Path

import pytest
import torch

from model.config import TrainConfig, train_config
from model.data.samples import Samples
from model.use.colorize import load_colorizer
from tests.model_checkpoints import CONFIG
from tests.model_runs import log_of, run
from tests.model_samples import write_samples

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

REFERENCE = train_config(
    {"model": "reference", "width_multiplier": 0.3, "batch_size": 2, "epochs": 2, "log_every": 1}
    | {"validations_per_epoch": 0.5, "num_chroma": 2, "num_following": 2, "num_grid": 2},
    "test",
)


@pytest.fixture(scope="module")
def samples_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("work") / "samples", {"train": 8, "val": 2})


@pytest.mark.parametrize("config", [CONFIG, REFERENCE], ids=lambda config: str(config.model))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_learns_as_the_cpu_does(
    samples_dir: Path, tmp_path: Path, config: TrainConfig, precision: str
) -> None:
    losses = {}
    for device in ("cpu", "cuda"):
        chosen = dataclasses.replace(config, device=device, precision=precision, compile=False)
        assert run(samples_dir, tmp_path / device, chosen).finished
        lines = [line for line in log_of(tmp_path / device) if line["kind"] == "train"]
        losses[device] = [line["l1"] for line in lines]
    assert losses["cuda"][0] == pytest.approx(losses["cpu"][0], rel=0.02)
    assert losses["cuda"][-1] == pytest.approx(losses["cpu"][-1], rel=0.2)


@pytest.mark.parametrize("config", [CONFIG, REFERENCE], ids=lambda config: str(config.model))
def test_a_compiled_model_learns_as_it_would_without(
    samples_dir: Path, tmp_path: Path, config: TrainConfig
) -> None:
    """CUDA graphs are warmed up, recorded and then replayed: from the third step on."""
    config = dataclasses.replace(config, device="cuda", precision="fp32", epochs=3)
    losses = {}
    for name, compiled in (("plain", False), ("compiled", True)):
        chosen = dataclasses.replace(config, compile=compiled)
        assert run(samples_dir, tmp_path / name, chosen).finished
        lines = [line for line in log_of(tmp_path / name) if line["kind"] == "train"]
        losses[name] = [line["l1"] for line in lines]
    assert len(losses["plain"]) >= 6
    assert losses["compiled"] == pytest.approx(losses["plain"], rel=0.05)


def test_a_gpu_colours_as_the_cpu_does(samples_dir: Path, tmp_path: Path) -> None:
    run(samples_dir, tmp_path, dataclasses.replace(REFERENCE, device="cuda"))
    with Samples(samples_dir, "val") as samples:
        batch = samples.load([0, 1])
    pictures = []
    for device in ("cpu", "cuda"):
        colorizer, _ = load_colorizer(tmp_path / "best.safetensors", device=device)
        pictures.append(colorizer(batch.sketch, batch.color).cpu().float())
    assert (pictures[0] - pictures[1]).abs().mean() < 2
