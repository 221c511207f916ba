"""Checkpoints of small untrained models, for the tests of what uses them."""

import functools
from pathlib import Path

import torch

from model.checkpoint import CheckpointInfo, save_checkpoint
from model.config import TrainConfig
from model.networks.style import build_style_network
from model.training.state import TrainState
from pipeline.settings import Table
from tests import one_thread  # noqa: F401

CONFIG = TrainConfig(
    width_multiplier=0.125,
    style_weights="random",
    batch_size=2,
    epochs=2,
    validations_per_epoch=2,
    device="cpu",
    log_every=3,
    num_following=2,
    num_grid=2,
)
"""A run of eight steps over the eight training samples of ``write_samples``."""

cached_style_network = functools.cache(build_style_network)
"""Style networks with random weights: built once in a process, not once in a test."""


def write_checkpoint(
    path: Path,
    model: str = "zhang2017",
    size: int = 64,
    recipe: Table | None = None,
    sketch: str = "sketch",
    drop_reference: float = 0.0,
) -> Path:
    """Write the checkpoint of a narrow model with its first weights; returns ``path``."""
    config = TrainConfig(
        model=model,
        width_multiplier=0.125,
        style_weights="random",
        gan="none",
        sketch=sketch,
        drop_reference=drop_reference,
    )
    state = TrainState.build(config, torch.device("cpu"))
    spec = state.generator.style_spec
    network = cached_style_network(
        spec.network, normalised=spec.normalised, weights="random", seed=0
    )
    info = CheckpointInfo(
        model=config.model_config(),
        train=config,
        size=(size, size),
        style=network.provenance,
        samples="",
        step=3,
        epoch=0,
        position=0,
        recipe=recipe or {},
    )
    save_checkpoint(path, state.generator_tensors(), info)
    return path
