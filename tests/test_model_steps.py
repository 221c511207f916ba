import pytest
import torch

from model.config import TrainConfig
from model.discriminator import Discriminator
from model.losses import adversarial_terms, to_grey, total
from model.state import TrainState
from model.steps import frozen, style_rules, training_step, update_discriminator
from tests import one_thread  # noqa: F401
from tests.test_model_metrics import drawn

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
        state.discriminator,
        state.optimizers["discriminator"],
        torch.rand(2, 3, 64, 64),
        generated,
        style_rules(state.discriminator, torch.randn(2, 4096)),
        FULL_PRECISION,
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
        state.generator,
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


def test_four_pictures_are_learnt_by_heart() -> None:
    config = TrainConfig(width_multiplier=0.125, gan="none", l1_weight=1.0, lr=3e-3)
    state = TrainState.build(config, CPU)
    color = drawn(*range(4)).float() / 255
    style = torch.randn(4, 4096, generator=torch.Generator().manual_seed(0))
    for _ in range(50):
        terms = training_step(
            state, config, state.generator, color, to_grey(color), style, None, FULL_PRECISION
        )
    mean_picture = (color - color.mean(0)).abs().mean()
    assert terms["l1"].item() < 0.7 * mean_picture.item()
