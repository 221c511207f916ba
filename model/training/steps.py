"""One training step: the discriminator learns from the generator's picture, then the generator."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.nn.utils import parametrize

from model.config import TrainConfig
from model.networks.discriminator import Discriminator, PatchDiscriminator
from model.networks.generator import Outputs
from model.networks.losses import (
    Terms,
    adversarial_terms,
    chroma_terms,
    discriminator_terms,
    l1_terms,
    patch_discriminator_terms,
    patch_terms,
    total,
)
from model.ranks import unshared_gradients
from model.training.state import TrainState
from pipeline.errors import UserError

Autocast = AbstractContextManager[object]
Optimizers = Mapping[str, torch.optim.Optimizer]


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Turn what torch.compile raises, mostly for want of a compiler, into a sentence.

    It compiles at the first forward pass, and again at the first backward pass.
    """
    try:
        yield
    except TorchDynamoException as error:
        lines = [line for line in str(error).splitlines() if line and not line.endswith(" raised:")]
        why = lines[0] if lines else type(error).__name__
        raise UserError(
            f"train.compile: torch.compile fails ({why.rstrip('.')}). It needs a C++ compiler "
            "(CXX) on a CPU, and Triton on a GPU; leave it out where there is none."
        ) from error


@compiler_errors()
def training_step(
    state: TrainState,
    config: TrainConfig,
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
        color: true pictures, float N x 3 x H x W in [0, 1].
        sketch: float N x 1 x H x W in [0, 1].
        style: style features of the references.
        vector: their style vectors V(y), N x style size; None where no discriminator asks.
        autocast: context in which the networks compute.
        scale: see ``Ranks.loss_scale``.

    Returns:
        Every loss term by name, and the norms of the gradients where they are clipped.
    """
    learners = {name: o for name, o in state.optimizers.items() if name != "discriminator"}
    if state.discriminator is None:
        return descend_in_parts(state, config, color, sketch, style, autocast, learners, scale)
    descending = partial(descend, clip_norm=config.clip_norm, scale=scale)
    outputs, terms = paint(state, config, color, sketch, style, autocast)
    objective = (
        patch_objective(sketch, config)
        if isinstance(state.discriminator, PatchDiscriminator)
        else style_objective(state.discriminator, vector)
    )
    noted = update_discriminator(state, color, outputs.picture, objective, autocast, descending)
    # Without the cache each call would update the spectral norm, and the verdicts would differ.
    with autocast, frozen(state.discriminator), parametrize.cached():
        real = None
        if objective.compares:
            with torch.no_grad():
                real = objective.judge(state.discriminator, color)
        verdict = objective.judge(state.discriminator, outputs.picture)
    terms |= objective.generator_terms(verdict, real)
    return terms | noted | descending(learners, terms)


def paint(
    state: TrainState,
    config: TrainConfig,
    color: Tensor,
    sketch: Tensor,
    style: Tensor,
    autocast: Autocast,
) -> tuple[Outputs, Terms]:
    """Return what the generator makes of a batch, and the terms of its distance from the truth."""
    if config.compile:  # CUDA graphs may reuse the memory of the last outputs from here on
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
    with autocast:
        outputs: Outputs = state.parallel["generator"](sketch, style)
    terms = l1_terms(outputs, color, weight=config.l1_weight, alpha=config.alpha, beta=config.beta)
    terms |= chroma_terms(
        outputs,
        color,
        weight=config.l1_weight * config.chroma_weight,
        contrast=config.contrast,
    )
    return outputs, terms


def descend_in_parts(
    state: TrainState,
    config: TrainConfig,
    color: Tensor,
    sketch: Tensor,
    style: Tensor,
    autocast: Autocast,
    learners: Optimizers,
    scale: float,
) -> Terms:
    """Update a generator that has no adversary, from ``config.accumulate`` parts of the batch.

    One part's activations are in memory at a time. Every term is a mean over samples, so the
    gradients of the parts add up to the batch's.

    Returns:
        As ``training_step``, terms being those of the whole batch.
    """
    clear_gradients(learners)
    parts = list(zip(*(t.chunk(config.accumulate) for t in (color, sketch, style)), strict=True))
    of_batch: Terms = {}
    for number, (truth, lines, reference) in enumerate(parts, start=1):
        share = len(truth) / len(color)
        is_last = number == len(parts)
        with nullcontext() if is_last else unshared_gradients(state.parallel["generator"]):
            _, terms = paint(state, config, truth, lines, reference, autocast)
            torch.autograd.backward(total(terms) * (scale * share))
        for name, term in terms.items():
            of_batch[name] = of_batch.get(name, 0) + share * term.detach()
    return of_batch | take_step(learners, config.clip_norm)


class GanObjective(NamedTuple):
    """What discriminator and generator minimise against each other.

    Attributes:
        judge: the discriminator and pictures -> its verdict.
        discriminator_terms: of the verdicts on true and on generated pictures.
        generator_terms: of the verdicts on generated and on true pictures.
        compares: whether the generator's look at the latter, which is None otherwise.
    """

    judge: Callable[[nn.Module, Tensor], Any]
    discriminator_terms: Callable[[Any, Any], Terms]
    generator_terms: Callable[[Any, Any], Terms]
    compares: bool


def style_objective(discriminator: Discriminator, vector: Tensor | None) -> GanObjective:
    """Return the objective of the AC-GAN and of the paper's variant.

    Args:
        discriminator: which standardises.
        vector: style vectors of the references, N x style size.
    """
    assert vector is not None
    style = discriminator.standardise(vector)
    return GanObjective(
        judge=lambda network, picture: network(picture),
        discriminator_terms=lambda real, generated: discriminator_terms(real, generated, style),
        generator_terms=lambda generated, real: adversarial_terms(generated, style),
        compares=False,
    )


def patch_objective(sketch: Tensor, config: TrainConfig) -> GanObjective:
    """Return the objective of the patch discriminator beside sketches N x 1 x H x W."""
    return GanObjective(
        judge=lambda network, picture: network(sketch, picture),
        discriminator_terms=patch_discriminator_terms,
        generator_terms=partial(
            patch_terms, weight=config.patch_weight, feature_weight=config.feature_weight
        ),
        compares=True,
    )


def update_discriminator(
    state: TrainState,
    color: Tensor,
    picture: Tensor,
    objective: GanObjective,
    autocast: Autocast,
    descending: Callable[[Optimizers, Terms], Terms],
) -> Terms:
    """Update the discriminator alone: nothing flows back into the generator.

    ``picture`` is the generator's, still tied to it, and ``descending`` is ``descend`` with its
    settings.

    Returns:
        Its terms, and the norm of its gradient where that is clipped.
    """
    network = state.parallel["discriminator"]
    with autocast:
        real, generated = (objective.judge(network, some) for some in (color, picture.detach()))
    terms = objective.discriminator_terms(real, generated)
    return terms | descending({"discriminator": state.optimizers["discriminator"]}, terms)


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
    clear_gradients(optimizers)
    torch.autograd.backward(total(terms) * scale)
    return take_step(optimizers, clip_norm)


def clear_gradients(optimizers: Optimizers) -> None:
    """Forget the gradients of the last step."""
    for optimizer in optimizers.values():
        optimizer.zero_grad()


def take_step(optimizers: Optimizers, clip_norm: float) -> Terms:
    """Clip each network's gradient, and step; returns the norms as ``descend`` does."""
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
