"""Where the networks compute and in what, what goes there, and what to say when memory is full."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import TrainConfig
from pipeline.errors import UserError
from pipeline.words import counted


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` is a GPU where there is one, else the CPU.

    Raises:
        UserError: on a name that PyTorch does not know, or a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:  # its own words list every kind of device that PyTorch knows
        raise UserError(
            f"device {name!r}: no such name. Give auto, cpu, cuda or cuda:1."
        ) from error
    num_gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        choice = "auto, cpu, or one of these (cuda:0 is the first)" if num_gpus else "auto or cpu"
        found = counted(num_gpus, "GPU")
        raise UserError(f"device {name!r}: PyTorch finds {found} here. Give {choice}.")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:  # by the kind of device
        raise UserError(
            f"device {name!r}: PyTorch cannot compute there. Give auto, cpu or cuda."
        ) from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # events, streams and random states are of the current one
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """Return ``fp32`` or ``bf16``; ``auto`` is bf16 where the hardware multiplies in bf16.

    That is on GPUs from NVIDIA's Ampere on, and on CPUs with AMX or AVX-512's BF16; others were
    not measured.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    can_tell = hasattr(torch.cpu, "get_capabilities")  # PyTorch 2.7 cannot
    units = torch.cpu.get_capabilities() if can_tell and device.type == "cpu" else {}
    return "bf16" if units.get("amx_bf16") or units.get("avx512_bf16") else "fp32"


def settle(config: TrainConfig, device: torch.device, num_processes: int = 1) -> TrainConfig:
    """Return ``config`` with ``auto`` put out of precision, compile and channels_last.

    The article's models are compiled, channels last, on a GPU that one process trains on in bf16:
    2.9 to 3.9 times as fast there (benchmarks/RESULTS.md). ``reference`` gains 1.2 times (H200),
    after two minutes of compiling, and is left; several processes were not measured.
    """
    precision = pick_precision(config.precision, device)
    compiled = config.compile
    if compiled == "auto":
        alone_on_gpu = device.type == "cuda" and num_processes == 1 and precision == "bf16"
        compiled = alone_on_gpu and config.model != "reference" and can_compile(device)
    last = compiled if config.channels_last == "auto" else config.channels_last
    return replace(config, precision=precision, compile=compiled, channels_last=last)


def can_compile(device: torch.device) -> bool:
    """Return whether torch.compile works there: it wants a C compiler, and Triton on a GPU."""
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=device))
    except Exception:  # by what is missing, and by PyTorch's version
        return False
    return True


def constant(values: Sequence[object] | NDArray[np.float64], like: Tensor) -> Tensor:
    """Return numbers, or nested sequences of them, as a tensor on ``like``'s device, of its type.

    ``like.new_tensor`` would make the host wait until a GPU has finished all queued work.
    """
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


@contextmanager
def memory_guard(setting: str, batch_size: int, otherwise: str = "") -> Iterator[None]:
    """Turn running out of memory into advice.

    Args:
        setting: what to make smaller.
        batch_size: its value.
        otherwise: another setting that helps, as ``--set`` takes it; "" for none.

    Raises:
        UserError: in place of PyTorch's out-of-memory errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_full = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_full and "allocate memory" not in str(error):  # as the CPU's allocator says it
            raise
        advice = (
            f"try --set {setting}={batch_size // 2}{f' or --set {otherwise}' if otherwise else ''}"
            if batch_size > 1
            else "prepare smaller pictures, or take a machine with more memory"
        )
        raise UserError(f"out of memory with {setting} = {batch_size}: {advice}.") from error
