import dataclasses

import pytest
import torch

from model.color import to_grey
from model.config import TrainConfig
from model.networks.discriminator import Discriminator, PatchVerdict, Verdict
from model.networks.generator import Outputs
from model.networks.losses import adversarial_terms, total
from model.training.state import TrainState
from model.training.steps import (
    descend,
    frozen,
    patch_objective,
    style_objective,
    training_step,
    update_discriminator,
)
from tests.tensors import drawn

CPU = torch.device("cpu")
FULL_PRECISION = torch.autocast("cpu", enabled=False)


@pytest.fixture
def state() -> TrainState:
    config = TrainConfig(width_multiplier=0.125, gan="acgan")
    return TrainState.build(config, CPU)


def test_the_discriminators_update_leaves_the_generator_alone(state: TrainState) -> None:
    generated = state.generator(torch.rand(2, 1, 64, 64), torch.randn(2, 4096)).picture
    assert isinstance(state.discriminator, Discriminator)
    before = [p.clone() for p in state.discriminator.parameters()]
    update_discriminator(
        state,
        torch.rand(2, 3, 64, 64),
        generated,
        style_objective(state.discriminator, torch.randn(2, 4096)),
        FULL_PRECISION,
        descend,
    )
    assert all(p.grad is None for p in state.generator.parameters())
    assert all(p.grad is not None for p in state.discriminator.parameters())
    after = state.discriminator.parameters()
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_generators_gradient_passes_through_the_discriminator_and_leaves_none(
    state: TrainState,
) -> None:
    assert state.discriminator is not None
    generated = torch.rand(2, 3, 64, 64, requires_grad=True)
    with frozen(state.discriminator):
        verdict = state.discriminator(generated)
    torch.autograd.backward(total(adversarial_terms(verdict, torch.randn(2, 4096))))
    assert generated.grad is not None
    assert generated.grad.abs().sum() > 0
    assert all(p.grad is None for p in state.discriminator.parameters())
    assert all(p.requires_grad for p in state.discriminator.parameters())


@pytest.mark.parametrize("gan", ["acgan", "paper", "patch", "none"])
def test_a_step_moves_every_weight_and_names_every_term(gan: str) -> None:
    config = TrainConfig(width_multiplier=0.125, gan=gan)
    state = TrainState.build(config, CPU)
    before = [p.clone() for network in state.networks().values() for p in network.parameters()]
    terms = training_step(
        state,
        config,
        torch.rand(2, 3, 64, 64),
        torch.rand(2, 1, 64, 64),
        torch.randn(2, 4096),
        torch.randn(2, 4096) if gan in ("acgan", "paper") else None,
        FULL_PRECISION,
    )
    after = [p for network in state.networks().values() for p in network.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    adversary = {
        "acgan": {"g_source", "g_style", "d_source_real", "d_source_generated"}
        | {"d_style_real", "d_style_generated"},
        "paper": {"g_paper", "d_real", "d_generated"},
        "patch": {"g_patch", "g_features", "d_patch_real", "d_patch_generated"},
        "none": set(),
    }
    assert set(terms) == {"l1", "l1_guide_grey", "l1_guide_color"} | adversary[gan]


@pytest.mark.parametrize("num_parts", [2, 3, 5, 9])
def test_a_batch_taken_in_parts_has_the_whole_ones_terms_and_gradient(num_parts: int) -> None:
    color = drawn(*range(5)).float() / 255
    sizes: list[int] = []

    def step(accumulate: int) -> tuple[dict[str, float], torch.Tensor]:
        config = TrainConfig("reference", 0.25, gan="none", chroma_weight=1.0, clip_norm=1.0)
        config = dataclasses.replace(config, accumulate=accumulate)
        state = TrainState.build(config, CPU)
        state.generator.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
        terms = training_step(
            state, config, color, to_grey(color), color.flip(-1), None, FULL_PRECISION
        )
        gradient = torch.cat([p.grad.flatten() for p in state.generator.parameters()])  # type: ignore[union-attr]
        return {name: term.item() for name, term in terms.items()}, gradient

    terms, gradient = step(1)
    terms_of_parts, gradient_of_parts = step(num_parts)
    assert {*terms} == {"l1", "l1_guide_color", "chroma", "norm_generator"}
    assert terms_of_parts == pytest.approx(terms, rel=1e-5)
    assert (gradient_of_parts - gradient).norm() < 1e-3 * gradient.norm()  # float32's rounding
    assert sum(sizes[1:]) == sizes[0] == 5
    assert max(sizes[1:]) == -(-5 // num_parts)


@pytest.mark.slow
def test_four_pictures_are_learnt_by_heart() -> None:
    config = TrainConfig(width_multiplier=0.125, gan="none", l1_weight=1.0, lr=3e-3)
    state = TrainState.build(config, CPU)
    color = drawn(*range(4)).float() / 255
    style = torch.randn(4, 4096, generator=torch.Generator().manual_seed(0))
    for _ in range(50):
        terms = training_step(state, config, color, to_grey(color), style, None, FULL_PRECISION)
    mean_picture = (color - color.mean(0)).abs().mean()
    assert terms["l1"].item() < 0.7 * mean_picture.item()


def test_a_gradient_is_clipped_to_its_norm_and_the_norm_before_is_told() -> None:
    weights = torch.nn.Parameter(torch.zeros(4))
    optimizers = {"network": torch.optim.SGD([weights], lr=1.0)}
    norms = descend(optimizers, {"loss": (weights * 100).sum()}, clip_norm=1.0)
    assert {name: norm.item() for name, norm in norms.items()} == {"norm_network": 200}
    assert weights.norm().item() == pytest.approx(1, rel=1e-4)
    assert descend(optimizers, {"loss": (weights * 100).sum()}) == {}
    assert weights.norm().item() == pytest.approx(201, rel=1e-4)


def test_the_discriminator_is_asked_for_standardised_style(state: TrainState) -> None:
    assert isinstance(state.discriminator, Discriminator)
    vectors = torch.randn(8, 4096) * 5 + 3
    state.discriminator.fit_style(vectors)
    ignorant = Verdict(torch.zeros(8, 1), torch.zeros(8, 4096))
    terms = style_objective(state.discriminator, vectors).discriminator_terms(ignorant, ignorant)
    assert terms["d_style_real"].item() == pytest.approx(0.5, rel=1e-3)  # of mean 0, deviation 1


def test_each_term_of_the_patches_has_its_own_weight() -> None:
    def verdict(source: float, feature: float) -> PatchVerdict:
        return PatchVerdict(torch.tensor([source]), [torch.tensor([feature])])

    config = TrainConfig(gan="patch", patch_weight=10, feature_weight=4)
    terms = patch_objective(torch.zeros(1), config).generator_terms(verdict(1, 0), verdict(0, 1))
    assert {name: term.item() for name, term in terms.items()} == {"g_patch": -10, "g_features": 4}


def test_lambda_is_on_the_chroma_term_as_well() -> None:
    config = TrainConfig(width_multiplier=0.125, gan="none", chroma_weight=2.0, l1_weight=1.0)
    color, style = drawn(1, 2).float() / 255, torch.randn(2, 4096)

    def first_chroma(**changes: float) -> float:
        changed = dataclasses.replace(config, **changes)  # type: ignore[arg-type]
        state = TrainState.build(changed, CPU)
        terms = training_step(state, changed, color, to_grey(color), style, None, FULL_PRECISION)
        return terms["chroma"].item()

    assert first_chroma(l1_weight=100.0) == pytest.approx(100 * first_chroma(), rel=1e-4)
    assert first_chroma(chroma_weight=6.0) == pytest.approx(3 * first_chroma(), rel=1e-4)


@pytest.mark.parametrize(("factor", "is_truth"), [(1.0, True), (0.9, False)])
def test_a_generator_that_gives_the_truth_has_the_truths_features(
    factor: float, is_truth: bool
) -> None:
    config = TrainConfig(width_multiplier=0.125, gan="patch", lr=1e-2)
    state = TrainState.build(config, CPU)
    color = torch.rand(2, 3, 64, 64)
    nothing = torch.zeros_like(color, requires_grad=True)
    state.parallel["generator"].forward = lambda sketch, style: Outputs(factor * color + nothing)
    terms = training_step(
        state,
        config,
        color,
        torch.rand(2, 1, 64, 64),
        torch.randn(2, 4096),
        None,
        FULL_PRECISION,
    )
    assert (terms["g_features"].item() == 0) == is_truth
    assert nothing.grad is not None
    assert all(p.grad is not None for p in state.networks()["discriminator"].parameters())
