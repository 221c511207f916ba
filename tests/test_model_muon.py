"""Muon: kernels step by the orthogonal matrix of their momentum, all else as AdamW has it."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from model.checkpoint import optimizer_tensors, restore_optimizer
from model.networks.build import build_generator
from model.training.muon import Muon, orthogonalise

BETAS = (0.5, 0.999)


@pytest.mark.parametrize("shape", [(16, 144), (48, 20), (24, 24)])
def test_a_matrix_keeps_its_directions_and_loses_its_strengths(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    strengths = torch.logspace(0, -2, len(right))
    found = left.T @ orthogonalise(left @ torch.diag(strengths) @ right) @ right.T
    assert found.diagonal().min() > 0.6
    assert found.diagonal().max() < 1.3
    assert (found - torch.diag(found.diagonal())).abs().max() < 1e-3


def test_no_gradient_at_all_moves_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(16, 20)), torch.zeros(16, 20))


class Layers(nn.Module):
    """A kernel from and to the picture, one between, one of a point, and what is no kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3)
        self.hidden = nn.Conv2d(16, 32, 3)
        self.point = nn.Conv2d(32, 16, 1)
        self.out = nn.Conv2d(16, 24, 3)
        self.norm = nn.GroupNorm(2, 16)

    def learn(self, seed: int) -> None:
        """Give every parameter a gradient."""
        torch.manual_seed(seed)
        for parameter in self.parameters():
            parameter.grad = torch.randn_like(parameter)


def test_kernels_step_as_torch_has_it_for_matrices_and_the_rest_as_adamw_has_it() -> None:
    """torch's Muon computes in bf16: a hundredth of a step is its rounding."""
    torch_muon = pytest.importorskip("torch.optim._muon").Muon  # since torch 2.9
    ours = Layers()
    theirs = copy.deepcopy(ours)
    before = copy.deepcopy(ours.state_dict())
    optimizer = Muon(ours, 0.1, 0.3, BETAS, 0.01)
    kernels = {
        name: nn.Parameter(theirs.get_parameter(name).detach().flatten(1))
        for name in ("hidden.weight", "point.weight")
    }
    of_kernels = torch_muon(
        kernels.values(), 0.3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
    )
    rest = {name: p for name, p in theirs.named_parameters() if name not in kernels}
    of_rest = torch.optim.AdamW(rest.values(), 0.1, BETAS, weight_decay=0.01)
    for seed in range(3):
        ours.learn(seed)
        theirs.learn(seed)
        for name, kernel in kernels.items():
            gradient = theirs.get_parameter(name).grad
            assert gradient is not None
            kernel.grad = gradient.flatten(1)
        for each in (optimizer, of_kernels, of_rest):
            each.step()
    for name, parameter in ours.named_parameters():
        if name in kernels:
            path = (kernels[name] - before[name].flatten(1)).norm()
            assert (parameter.flatten(1) - kernels[name]).norm() < 0.02 * path
        else:
            assert torch.allclose(parameter, rest[name], atol=1e-6)


def test_the_layout_of_a_kernel_in_memory_changes_nothing() -> None:
    one, other = Layers(), Layers()
    other.load_state_dict(one.state_dict())
    other.to(memory_format=torch.channels_last)
    one.learn(0)
    for plain, laid_out in zip(one.parameters(), other.parameters(), strict=True):
        assert plain.grad is not None
        laid_out.grad = torch.zeros_like(laid_out).copy_(plain.grad)
    for network in (one, other):
        Muon(network, 0.1, 0.3, BETAS, 0.0).step()
    assert other.hidden.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(map(partial(torch.allclose, atol=1e-6), one.parameters(), other.parameters()))


def test_it_goes_on_as_if_it_had_never_stopped() -> None:
    torch.manual_seed(0)
    whole = Layers()
    halves = copy.deepcopy(whole)
    for network in (whole, halves):
        optimizer = Muon(network, 0.1, 0.3, BETAS, 0.01)
        for seed in range(4):
            if network is halves and seed == 2:
                kept = optimizer_tensors(optimizer)
                optimizer = Muon(network, 0.1, 0.3, BETAS, 0.01)
                restore_optimizer(optimizer, kept)
            network.learn(seed)
            optimizer.step()
    assert all(map(torch.equal, whole.parameters(), halves.parameters()))


def test_what_adamw_kept_is_not_taken_for_it() -> None:
    network = Layers()
    network.learn(0)
    adamw = torch.optim.AdamW(network.parameters())
    adamw.step()
    muon = Muon(network, 0.1, 0.3, BETAS, 0.0)
    with pytest.raises(ValueError, match="other parameters"):
        restore_optimizer(muon, optimizer_tensors(adamw))


def test_it_has_nearly_all_of_a_generator() -> None:
    generator = build_generator("reference", 0.5, "small")
    optimizer = Muon(generator, 0.1, 0.3, BETAS, 0.0)
    others, kernels = (sum(p.numel() for p in group["params"]) for group in optimizer.param_groups)
    assert others + kernels == sum(p.numel() for p in generator.parameters())
    assert kernels > 0.99 * (others + kernels)
