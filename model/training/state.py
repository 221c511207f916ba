"""Everything that a training step changes: networks, optimisers, place; and back from a file."""

import copy
import math
from dataclasses import dataclass, field
from functools import partial
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from model.checkpoint import CheckpointInfo, optimizer_tensors, pack, restore_optimizer, unpack
from model.config import TrainConfig
from model.networks.build import build_generator
from model.networks.discriminator import Discriminator, PatchDiscriminator, build_discriminator
from model.networks.generator import Generator
from model.networks.style import STYLE_NETWORKS, StyleNetwork
from model.ranks import ALONE, Ranks
from model.training.muon import Muon
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
        best: lowest ``validation.criterion`` so far.
        style: the style network where it is trained as well.
        ema: the mean of the generator over its steps, where one is kept.
        parallel: the networks as they are called in training, by name; see ``Ranks.wrap``.
        schedules: of the optimisers' learning rates.
    """

    generator: Generator
    discriminator: Discriminator | PatchDiscriminator | None
    optimizers: dict[str, torch.optim.Optimizer]
    step: int = 0
    epoch: int = 0
    position: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    style: StyleNetwork | None = None
    ema: Generator | None = None
    parallel: dict[str, nn.Module] = field(default_factory=dict)
    schedules: list[LambdaLR] = field(default_factory=list)

    @classmethod
    def build(cls, config: TrainConfig, device: torch.device, ranks: Ranks = ALONE) -> Self:
        """Return the beginning of a run; the seed decides the networks' first weights.

        A setting of ``auto`` is taken for no, unless ``device.settle`` decided it.
        """
        torch.manual_seed(config.seed)
        is_last = config.channels_last is True
        memory_format = torch.channels_last if is_last else torch.contiguous_format
        generator = build_generator(config.model, config.width_multiplier, config.size)
        discriminator: Discriminator | PatchDiscriminator | None = None
        if config.gan == "patch":
            discriminator = PatchDiscriminator(config.width_multiplier)
        elif config.gan != "none":
            style_size = STYLE_NETWORKS[generator.style_spec.network].shape[0]
            discriminator = build_discriminator(style_size, config.gan, config.width_multiplier)
        state = cls(generator, discriminator, {})
        for network in state.networks().values():
            ranks.share_batchnorm(network, device)
            network.to(device).to(memory_format=memory_format)
        if config.ema:
            state.ema = copy.deepcopy(generator).requires_grad_(False)
        for name, network in state.networks().items():
            state._learn(name, network, config, ranks)
        if config.compile is True:
            state._compile(device, config, ranks)
        return state

    def train_style(self, style: StyleNetwork, config: TrainConfig, ranks: Ranks) -> None:
        """Train the style network, on its device, as well."""
        self.style = style.requires_grad_(True)
        self._learn("style", style, config, ranks)

    def _learn(self, name: str, network: nn.Module, config: TrainConfig, ranks: Ranks) -> None:
        betas, decay = config.betas, config.weight_decay
        optimizer: torch.optim.Optimizer
        if name == "generator" and config.muon_lr:
            optimizer = Muon(network, config.lr, config.muon_lr, betas, decay)
        else:  # without decay it is Adam
            optimizer = torch.optim.AdamW(
                network.parameters(), config.lr, betas, weight_decay=decay, fused=True
            )
        self.optimizers[name] = optimizer
        self.parallel[name] = ranks.wrap(network)

    def _compile(self, device: torch.device, config: TrainConfig, ranks: Ranks) -> None:
        """Compile what training calls. Validation calls the networks as they are: it would compile
        them a second time.
        """
        # A step of the article's is a thousand short kernels, which a host takes longer to launch
        # than a GPU to run: CUDA graphs launch them at once. ``reference`` is bound by its memory.
        as_graphs = device.type == "cuda" and ranks.world_size == 1 and config.model != "reference"
        mode = "reduce-overhead" if as_graphs else None
        generator = torch.compile(self.parallel["generator"], mode=mode)
        self.parallel["generator"] = cast(nn.Module, generator)
        if self.discriminator is not None:  # itself: one of its turns is not through ``parallel``
            self.discriminator.compile(mode=mode)

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks that learn, by name."""
        networks: dict[str, nn.Module] = {"generator": self.generator}
        if self.discriminator is not None:
            networks["discriminator"] = self.discriminator
        if self.style is not None:
            networks["style"] = self.style
        return networks

    def count_parameters(self) -> dict[str, int]:
        """Return how many parameters each network has that learns, by its name."""
        return {
            name: sum(parameter.numel() for parameter in network.parameters())
            for name, network in self.networks().items()
        }

    @property
    def shown(self) -> Generator:
        """The generator that is validated, kept as best and used: the mean where there is one."""
        return self.ema or self.generator

    def schedule(self, config: TrainConfig, total_steps: int) -> None:
        """Begin the learning rate's schedule where the run stands."""
        factor = partial(lr_factor, config, total_steps)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
            self.schedules.append(LambdaLR(optimizer, factor, last_epoch=self.step - 1))

    @torch.no_grad()
    def advance(self, config: TrainConfig, epoch: int, position: int) -> None:
        """Count a step: the place, the mean of the weights, the next step's learning rate."""
        self.step, self.epoch, self.position = self.step + 1, epoch, position
        if self.ema is not None:
            means: list[Tensor] = list(self.ema.parameters())
            current: list[Tensor] = list(self.generator.parameters())
            torch._foreach_lerp_(means, current, 1 - mean_decay(config.ema, self.step))
            for mean, buffer in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
                mean.copy_(buffer)
        for schedule in self.schedules:
            schedule.step()

    def tensors(self) -> StateDict:
        """Return all that is needed to go on exactly from here, place and metrics apart."""
        tensors = {"random.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        for name, network in self.networks().items():
            tensors |= pack(name, network.state_dict())
            tensors |= pack(f"{name}_optimizer", optimizer_tensors(self.optimizers[name]))
        if self.ema is not None:
            tensors |= pack("ema", self.ema.state_dict())
        return tensors

    def generator_tensors(self) -> StateDict:
        """Return what is needed to colour."""
        style = pack("style", self.style.state_dict()) if self.style is not None else {}
        return pack("generator", self.shown.state_dict()) | style

    def restore(self, tensors: StateDict, info: CheckpointInfo) -> None:
        """Go back to where ``tensors`` and ``info`` were taken."""
        for name, network in self.networks().items():
            network.load_state_dict(unpack(name, tensors))
            restore_optimizer(self.optimizers[name], unpack(f"{name}_optimizer", tensors))
        if self.ema is not None:
            self.ema.load_state_dict(unpack("ema", tensors))
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        self.step, self.epoch, self.position = info.step, info.epoch, info.position
        self.metrics, self.best = info.metrics, info.best


def mean_decay(ema: float, step: int) -> float:
    """Return the decay of the mean of the weights at a step, from 1 on: ``ema`` in the long run.

    Before, the mean is of the latest tenth or so of the steps. At 0.999 from the first one on, 37%
    of it were the random initial weights after 1,000 steps, and 14% after 2,000.
    """
    return min(ema, (1 + step) / (10 + step))


def lr_factor(config: TrainConfig, total_steps: int, step: int) -> float:
    """Return the factor on ``config.lr`` of a step, from 0 on, of a run's ``total_steps``."""
    warmth = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "constant":
        return warmth
    return warmth * 0.5 * (1 + math.cos(math.pi * step / total_steps))
