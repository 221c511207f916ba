"""Everything that a training step changes: networks, optimisers, place; and back from a file."""

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import nn

from model.checkpoint import (
    CheckpointInfo,
    optimizer_tensors,
    pack,
    restore_optimizer,
    unpack,
)
from model.config import TrainConfig
from model.discriminator import Discriminator, build_discriminator
from model.generator import Generator, build_generator
from model.style import STYLE_NETWORKS
from model.weights import StateDict


@dataclass(slots=True)
class TrainState:
    """A run at one moment.

    Attributes:
        generator: on the run's device.
        discriminator: on the run's device; None without an adversary.
        optimizers: of the networks, by the name of the network.
        step: optimiser steps done.
        epoch: the epoch under way, from 0 on.
        position: samples consumed in it.
        metrics: of the latest validation.
        best: lowest ``train.criterion`` so far.
    """

    generator: Generator
    discriminator: Discriminator | None
    optimizers: dict[str, torch.optim.Optimizer]
    step: int = 0
    epoch: int = 0
    position: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: float | None = None

    @classmethod
    def build(cls, config: TrainConfig, device: torch.device) -> Self:
        """Return the beginning of a run; the seed decides the networks' first weights."""
        torch.manual_seed(config.seed)
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        generator = build_generator(config.model, config.width_multiplier, config.size)
        generator.to(device).to(memory_format=memory_format)
        discriminator = None
        if config.gan != "none":
            style_size = STYLE_NETWORKS[generator.style_spec.network].shape[0]
            discriminator = build_discriminator(style_size, config.gan, config.width_multiplier)
            discriminator.to(device).to(memory_format=memory_format)
        state = cls(generator, discriminator, {})
        for name, network in state.networks().items():
            state.optimizers[name] = torch.optim.AdamW(  # without decay it is Adam
                network.parameters(),
                config.lr,
                config.betas,
                weight_decay=config.weight_decay,
                fused=device.type == "cuda",
            )
        return state

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks that learn, by name."""
        networks: dict[str, nn.Module] = {"generator": self.generator}
        if self.discriminator is not None:
            networks["discriminator"] = self.discriminator
        return networks

    def tensors(self) -> StateDict:
        """Return all that is needed to go on exactly from here, place and metrics apart."""
        tensors = {"random.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        for name, network in self.networks().items():
            tensors |= pack(name, network.state_dict())
            tensors |= pack(f"{name}_optimizer", optimizer_tensors(self.optimizers[name]))
        return tensors

    def generator_tensors(self) -> StateDict:
        """Return what is needed to colour."""
        return pack("generator", self.generator.state_dict())

    def restore(self, tensors: StateDict, info: CheckpointInfo) -> None:
        """Go back to where ``tensors`` and ``info`` were taken."""
        for name, network in self.networks().items():
            network.load_state_dict(unpack(name, tensors))
            restore_optimizer(self.optimizers[name], unpack(f"{name}_optimizer", tensors))
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        self.step, self.epoch, self.position = info.step, info.epoch, info.position
        self.metrics, self.best = info.metrics, info.best
