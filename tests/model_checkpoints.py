"""Checkpoints of small untrained models, for the tests of what uses them."""

from pathlib import Path
from typing import Any

import orjson
import torch

from model.checkpoint import CheckpointInfo, save_checkpoint
from model.config import TrainConfig
from model.networks.style import build_style_network
from model.training.state import TrainState
from pipeline.settings import Table

CONFIG = TrainConfig(
    width_multiplier=0.125,
    style_weights="random",
    batch_size=2,
    epochs=2,
    validations_per_epoch=2,
    device="cpu",
    precision="fp32",
    log_every=3,
    num_following=2,
    num_grid=2,
)
"""A run of eight steps over the eight training samples of ``write_samples``."""


def write_checkpoint(
    path: Path,
    model: str = "zhang2017",
    size: int = 64,
    recipe: Table | None = None,
    sketch: str = "sketch",
    sketches: tuple[str, ...] = (),
    drop_reference: float = 0.0,
) -> Path:
    """Write the checkpoint of a narrow model with its first weights; returns ``path``."""
    config = TrainConfig(
        model=model,
        width_multiplier=0.125,
        style_weights="random",
        gan="none",
        sketch=sketch,
        sketches=sketches,
        drop_reference=drop_reference,
    )
    state = TrainState.build(config, torch.device("cpu"))
    spec = state.generator.style_spec
    network = build_style_network(spec.network, normalised=spec.normalised, weights="random")
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


def write_metrics(path: Path, **changed: Any) -> Path:
    figures = {"psnr": 19.5, "following": 0.9, "chroma_error": 0.61, "fid": None}
    block = {
        "reference": "character",
        "num_samples": 40,
        "num_clusters": 9,
        **figures,
        "intervals": {"psnr": [19.0, 20.0]},
        "baselines": {"grey": {"psnr": 10.0, "following": -1e-17, "chroma_error": 1.0}},
    }
    metrics = {"model": "reference", "step": 3, "split": "test", "settings": {"character": block}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(metrics | changed))
    return path
