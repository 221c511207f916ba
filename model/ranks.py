"""The processes that train one model together: torchrun starts them, gradients are their mean.

A batch is the same whatever the number of ranks: each takes its part of it. So a run gives the same
losses, up to rounding, and can be resumed with more ranks or fewer.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.data.order import Indices
from pipeline.errors import UserError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together; by default it is alone.

    Attributes:
        rank: of this process, from 0 on.
        world_size: how many there are.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one process that writes and speaks."""
        return self.rank == 0

    def part_size(self, batch_size: int) -> int:
        """Return how many samples of a batch are this rank's."""
        return len(range(self.rank, batch_size, self.world_size))

    def part(self, order: Indices, batch_size: int) -> Indices:
        """Return this rank's places, or rows of them, of each full batch of ``order``."""
        full = order[: len(order) - len(order) % batch_size]
        batches = full.reshape(-1, batch_size, *order.shape[1:])
        return batches[:, self.rank :: self.world_size].reshape(-1, *order.shape[1:])

    def loss_scale(self, batch_size: int) -> float:
        """Return the factor on this rank's mean loss that makes the ranks' mean the batch's."""
        return self.part_size(batch_size) * self.world_size / batch_size

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks; ``values`` itself where there is one."""
        if self.world_size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank: the same answer on all."""
        return flag if self.world_size == 1 else bool(self.sum(torch.tensor(int(flag))))

    def agree(self, *values: object) -> bool:
        """Return whether all ranks have equal values: the same answer on all."""
        if self.world_size == 1:
            return True
        of_ranks: list[object] = [None] * self.world_size
        dist.all_gather_object(of_ranks, values)
        return all(of_one == values for of_one in of_ranks)

    def share_batchnorm(self, network: nn.Module, device: torch.device) -> None:
        """Make every BatchNorm of ``network`` see the whole batch; weights keep their names."""
        if self.world_size == 1:
            return
        if device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
            return
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = SharedBatchNorm2d

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return ``network`` with its gradients averaged over the ranks in the backward pass."""
        if self.world_size == 1:
            return network
        with warnings.catch_warnings():  # renamed in newer versions, which older ones do not know
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(network, broadcast_buffers=False)


ALONE = Ranks()


class _SumOverRanks(torch.autograd.Function):
    """A sum over the ranks through which gradients flow back to all of them."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        del ctx
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return _SumOverRanks.forward(ctx, gradients[0])


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the parts of all ranks, for CPUs, where PyTorch's own has none."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  PyTorch's name
        """Normalise N x C x H x W, in training by mean and variance of the whole batch."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        count = x.new_full((1,), x.numel() / x.shape[1])
        totals: Tensor = _SumOverRanks.apply(torch.cat([x.sum((0, 2, 3)), count]))
        mean, count = totals[:-1] / totals[-1], totals[-1]
        centred = x - mean[:, None, None]
        variance: Tensor = _SumOverRanks.apply(centred.square().sum((0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        normalised: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalised

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def unshared_gradients(network: nn.Module) -> AbstractContextManager[None]:
    """Return a context whose backward passes leave a wrapped network's gradients to each rank.

    They take part in the mean of the first backward pass outside of it.
    """
    context: AbstractContextManager[None] = getattr(network, "no_sync", nullcontext)()
    return context


@contextmanager
def join_ranks(device_name: str, batch_size: int) -> Iterator[Ranks]:
    """Join the processes that torchrun started; alone where it did not.

    On GPUs each process of a machine takes its own, by its number there.

    Raises:
        UserError: where there are more ranks than samples in a batch or than GPUs, where
            ``device_name`` is one GPU for all, where torchrun's variables are not complete, and
            where another rank is lost.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    world_size, rank, local_rank = _read_numbers()
    if ":" in device_name:
        raise UserError(
            f"train.device = {device_name!r} is one device for {world_size} processes. Give cuda, "
            "and each takes a GPU of its own."
        )
    if batch_size < world_size:
        raise UserError(
            f"train.batch_size = {batch_size} leaves some of {world_size} processes without a "
            f"sample: --set train.batch_size={world_size} or more, or start fewer."
        )
    on_gpu = device_name != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"more processes here than GPUs, of which there are {torch.cuda.device_count()}: "
                f"start torchrun with --nproc-per-node {torch.cuda.device_count()}."
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        yield Ranks(rank, world_size)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo/transport" not in str(error):
            raise
        raise UserError(
            "another process of this training has ended, or is out of reach: what it said is why."
        ) from error
    finally:
        dist.destroy_process_group()


def _read_numbers() -> tuple[int, int, int]:
    """Return how many processes torchrun started, and this one's number of all and here."""
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK")
    numbers = [os.environ.get(name, "") for name in names]
    if not all(map(str.isdecimal, numbers)) or not {"MASTER_ADDR", "MASTER_PORT"} <= {*os.environ}:
        raise UserError(
            "WORLD_SIZE is set, and RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are not all as "
            "torchrun sets them: start with torchrun, or unset WORLD_SIZE."
        )
    return int(numbers[0]), int(numbers[1]), int(numbers[2])
