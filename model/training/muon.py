"""Muon for the kernels of convolutions, AdamW for the rest: one optimiser."""

from typing import Any

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5
_EPSILON = 1e-7
_MIN_CHANNELS = 16  # fewer are a picture's


class Muon(torch.optim.AdamW):
    """AdamW, but kernels between hidden layers step by their orthogonalised momentum.

    After Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks": a kernel,
    as a matrix of its first axis (a convolution's output channels, a transposed one's input
    channels) by all others, moves as far in its weak directions as in its strong ones. Its learning
    rate is on AdamW's scale by the factor of Liu et al. 2025, "Muon is Scalable for LLM Training".
    ``torch.optim.Muon`` takes no kernels, and computes in bf16, which processors without it take
    twelve times as long for.

    Args:
        network: a generator. What reads the picture and the layer ``out``, which paints it, are
            AdamW's as well.
        lr: learning rate of what is AdamW's.
        muon_lr: of the kernels.
        betas: of AdamW.
        weight_decay: of all, times the learning rate.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        muon_lr: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        kernels: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            is_kernel = parameter.ndim == 4 and min(parameter.shape[:2]) >= _MIN_CHANNELS
            is_hidden = is_kernel and not name.startswith("out.")
            (kernels if is_hidden else others).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": others},
            {"params": kernels, "lr": muon_lr, "moments": ["exp_avg"]},
        ]
        super().__init__(groups, lr, betas, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step once along the gradients, and drop those of the kernels."""
        group = self.param_groups[1]
        for kernel in group["params"]:
            if kernel.grad is None:
                continue
            state = self.state[kernel]
            if not state:
                state["exp_avg"] = torch.zeros_like(kernel)
                state["step"] = torch.zeros(())  # AdamW expects one wherever there is a state
            state["exp_avg"].lerp_(kernel.grad, 1 - _MOMENTUM)
            ahead = kernel.grad.lerp(state["exp_avg"], _MOMENTUM).flatten(1)
            update = orthogonalise(ahead).view_as(kernel) * 0.2 * max(ahead.shape) ** 0.5
            kernel.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])
            kernel.grad = None
        super().step(closure)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Return about the orthogonal matrix U V^T of a matrix U S V^T, by Newton and Schulz.

    The singular values come out between 0.7 and 1.2, those far under the largest lower. The
    iteration runs on the square of the shorter side, which takes half the time of running it on
    the matrix.

    Args:
        matrix: float M x N.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    wide = torch.t(matrix) if is_tall else matrix
    wide = wide / (torch.linalg.vector_norm(wide) + _EPSILON)
    gram = wide @ torch.t(wide)
    a, b, c = _COEFFICIENTS
    whole = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(_NUM_ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        whole = factor @ whole
        gram = factor @ gram @ factor
    wide = whole @ wide
    return torch.t(wide) if is_tall else wide
