"""One training step: the discriminator learns from the generator's picture, then the generator."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from model.config import TrainConfig
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
Optimizers = Mapping[str, torch.optim.Optimizer]


def training_step(
    state: TrainState,
    config: TrainConfig,
    forward: Forward,
    color: Tensor,
    sketch: Tensor,
    style: Tensor,
    vector: Tensor | None,
    autocast: Autocast,
    scale: float = 1.0,
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
        scale: see ``Ranks.loss_scale``.

    Returns:
        Every loss term by name, and the norms of the gradients where they are clipped.
    """
    descending = partial(descend, clip_norm=config.clip_norm, scale=scale)
    learners = {
        name: state.optimizers[name] for name in state.optimizers if name != "discriminator"
    }
    with autocast:
        outputs = forward(sketch, style)
    terms = l1_terms(outputs, color, weight=config.l1_weight, alpha=config.alpha, beta=config.beta)
    terms |= chroma_terms(outputs, color, weight=config.l1_weight * config.chroma_weight)
    if state.discriminator is None or vector is None:
        return terms | descending(learners, terms)
    vector = state.discriminator.standardise(vector)
    noted = update_discriminator(
        state.parallel["discriminator"],
        state.optimizers["discriminator"],
        color,
        outputs.picture,
        vector,
        autocast,
        descending,
    )
    with autocast, frozen(state.discriminator):
        verdict = state.discriminator(outputs.picture)
    terms |= adversarial_terms(verdict, vector)
    return terms | noted | descending(learners, terms)


def update_discriminator(
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    color: Tensor,
    picture: Tensor,
    vector: Tensor,
    autocast: Autocast,
    descending: Callable[[Optimizers, Terms], Terms] | None = None,
) -> Terms:
    """Update the discriminator alone: nothing flows back into the generator.

    Args:
        discriminator: to be updated.
        optimizer: its own.
        color: true pictures.
        picture: the generator's, still tied to it.
        vector: standardised style vectors.
        autocast: context in which the network computes.
        descending: ``descend`` with its settings.
    """
    with autocast:
        real, generated = discriminator(color), discriminator(picture.detach())
    terms = discriminator_terms(real, generated, vector)
    return terms | (descending or descend)({"discriminator": optimizer}, terms)


def descend(
    optimizers: Optimizers, terms: Terms, *, clip_norm: float = 0.0, scale: float = 1.0
) -> Terms:
    """Take one step down the sum of ``terms``.

    Args:
        optimizers: of the networks that take it, by their names.
        terms: of the loss.
        clip_norm: largest norm of each network's gradient; 0 for none.
        scale: factor on the loss.

    Returns:
        The gradients' norms before they were clipped, as ``norm_NETWORK``; nothing without.
    """
    for optimizer in optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(total(terms) * scale)
    norms = {}
    for name, optimizer in optimizers.items():
        if clip_norm:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norms[f"norm_{name}"] = nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
    return norms


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let gradients pass through a network to its input, and leave none in its weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
