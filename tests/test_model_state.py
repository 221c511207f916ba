"""What a step leaves behind: the mean of the weights, the learning rate; and how a run begins."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import TrainConfig
from model.networks.losses import Terms
from model.training.state import TrainState, lr_factor, mean_decay
from model.training.steps import training_step
from tests.model_checkpoints import CONFIG
from tests.model_runs import run
from tests.model_samples import write_samples

CPU = torch.device("cpu")
NARROW = TrainConfig(width_multiplier=0.125, gan="none")


def test_the_mean_of_the_weights_follows_them_and_is_what_is_shown() -> None:
    config = dataclasses.replace(NARROW, ema=0.9, model="batchnorm")
    state = TrainState.build(config, CPU)
    assert state.ema is not None
    assert state.shown is state.ema
    state.step = 1000
    before = state.ema.get_parameter("out.weight").clone()
    with torch.no_grad():
        state.generator.get_parameter("out.weight").add_(1.0)
        for buffer in state.generator.buffers():
            buffer.add_(1)
    state.advance(config, epoch=0, position=1)
    after = state.ema.get_parameter("out.weight")
    assert torch.allclose(after, before + 0.1)
    tensors = state.generator_tensors()
    assert torch.equal(tensors["generator.out.weight"], after)
    current = dict(state.generator.named_buffers())
    assert current
    assert all(torch.equal(tensors[f"generator.{name}"], current[name]) for name in current)


def test_the_mean_of_the_weights_forgets_the_random_ones_that_it_began_with() -> None:
    """At a decay of 0.999 throughout, 90% of it would be these after a hundred steps."""
    config = dataclasses.replace(NARROW, ema=0.999)
    state = TrainState.build(config, CPU)
    assert state.ema is not None
    with torch.no_grad():
        for weights in state.generator.parameters():
            weights.add_(1.0)
    for _ in range(100):
        state.advance(config, epoch=0, position=1)
    for mean, weights in zip(state.ema.parameters(), state.generator.parameters(), strict=True):
        assert torch.allclose(mean, weights, atol=1e-5)
    assert [mean_decay(0.999, step) for step in (8, 10**6)] == [0.5, 0.999]


def test_without_a_mean_the_generator_itself_is_shown() -> None:
    state = TrainState.build(NARROW, CPU)
    assert state.ema is None
    assert state.shown is state.generator


def test_the_learning_rate_rises_stays_and_falls() -> None:
    cosine = TrainConfig(schedule="cosine", warmup_steps=4)
    found = [lr_factor(cosine, 8, step) for step in (0, 4, 8)]
    assert found == pytest.approx([0.25, 0.5, 0.0])
    constant = TrainConfig(warmup_steps=4)
    assert [lr_factor(constant, 8, step) for step in (0, 1, 3, 7)] == [0.25, 0.5, 1.0, 1.0]
    assert lr_factor(TrainConfig(), 8, 0) == 1.0


def test_every_optimiser_has_the_settings_and_its_schedule() -> None:
    config = dataclasses.replace(
        NARROW, gan="patch", lr=0.5, betas=(0.3, 0.7), weight_decay=0.2, warmup_steps=4
    )
    state = TrainState.build(config, CPU)
    state.schedule(config, total_steps=8)
    assert state.optimizers.keys() == {"generator", "discriminator"}
    for optimizer in state.optimizers.values():
        (group,) = optimizer.param_groups
        assert (group["betas"], group["weight_decay"]) == ((0.3, 0.7), 0.2)
        assert group["lr"] == 0.5 / 4  # of the first step


def test_muon_keeps_its_own_rate_under_the_schedule() -> None:
    config = dataclasses.replace(
        NARROW, model="reference", lr=0.5, muon_lr=2.0, weight_decay=0.2, warmup_steps=4
    )
    state = TrainState.build(config, CPU)
    state.schedule(config, total_steps=8)
    others, kernels = state.optimizers["generator"].param_groups
    assert (others["lr"], kernels["lr"]) == (0.5 / 4, 2.0 / 4)
    assert others["weight_decay"] == kernels["weight_decay"] == 0.2


@pytest.mark.slow
def test_a_runs_learning_rate_goes_by_its_schedule_over_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    def noting(state: TrainState, *rest: Any) -> Terms:
        rates.append(state.optimizers["generator"].param_groups[0]["lr"])
        return training_step(state, *rest)

    monkeypatch.setattr("model.training.train.training_step", noting)
    samples_dir = write_samples(tmp_path / "samples", {"train": 8, "val": 1})
    config = dataclasses.replace(
        CONFIG, model="reference", gan="none", schedule="cosine", warmup_steps=3
    )
    for max_steps in (3, None):
        run(samples_dir, tmp_path / "run", config, resume=True, max_steps=max_steps)
    assert rates == pytest.approx([config.lr * lr_factor(config, 8, step) for step in range(8)])


def test_the_seed_decides_the_first_weights() -> None:
    first, again, other = (
        TrainState.build(dataclasses.replace(NARROW, seed=seed), CPU).generator_tensors()
        for seed in (0, 0, 1)
    )
    name = "generator.out.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
