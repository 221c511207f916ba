"""One training step: the discriminator learns from the generator's picture, then the generator."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from model.config import TrainConfig
from model.discriminator import Discriminator
from model.generator import Outputs
from model.losses import (
    Terms,
    adversarial_terms,
    chroma_terms,
    discriminator_terms,
    l1_terms,
    total,
)
from model.state import TrainState

Forward = Callable[[Tensor, Tensor], Outputs]
Autocast = AbstractContextManager[object]


def training_step(
    state: TrainState,
    config: TrainConfig,
    forward: Forward,
    color: Tensor,
    sketch: Tensor,
    style: Tensor,
    vector: Tensor | None,
    autocast: Autocast,
) -> Terms:
    """Update all networks once; does not count the step.

    Args:
        state: the networks and optimisers.
        config: the weights of the loss terms.
        forward: the generator, perhaps compiled.
        color: true pictures, float N x 3 x H x W in [0, 1].
        sketch: float N x 1 x H x W in [0, 1].
        style: style features of the references.
        vector: their style vectors V(y), N x style size; None without a discriminator.
        autocast: context in which the networks compute.

    Returns:
        Every loss term by name.
    """
    with autocast:
        outputs = forward(sketch, style)
    terms = l1_terms(outputs, color, weight=config.l1_weight, alpha=config.alpha, beta=config.beta)
    terms |= chroma_terms(outputs, color, weight=config.l1_weight * config.chroma_weight)
    if state.discriminator is None or vector is None:
        descend(state.optimizers["generator"], terms)
        return terms
    vector = state.discriminator.standardise(vector)
    noted = update_discriminator(
        state.discriminator,
        state.optimizers["discriminator"],
        color,
        outputs.picture,
        vector,
        autocast,
    )
    with autocast, frozen(state.discriminator):
        verdict = state.discriminator(outputs.picture)
    terms |= adversarial_terms(verdict, vector)
    descend(state.optimizers["generator"], terms)
    return terms | noted


def update_discriminator(
    discriminator: Discriminator,
    optimizer: torch.optim.Optimizer,
    color: Tensor,
    picture: Tensor,
    vector: Tensor,
    autocast: Autocast,
) -> Terms:
    """Update the discriminator alone: nothing flows back into the generator.

    Args:
        discriminator: to be updated.
        optimizer: its own.
        color: true pictures.
        picture: the generator's, still tied to it.
        vector: standardised style vectors.
        autocast: context in which the network computes.
    """
    with autocast:
        real, generated = discriminator(color), discriminator(picture.detach())
    terms = discriminator_terms(real, generated, vector)
    descend(optimizer, terms)
    return terms


def descend(optimizer: torch.optim.Optimizer, terms: Terms) -> None:
    """Take one step down the sum of ``terms``."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(total(terms))
    optimizer.step()


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let gradients pass through a network to its input, and leave none in its weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
