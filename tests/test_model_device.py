import shutil
from typing import Any

import pytest
import torch

from model import device as devices
from model.config import TrainConfig
from model.device import can_compile, memory_guard, pick_device, pick_precision, settle
from pipeline.errors import UserError


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpu", "no such name. Give auto, cpu, cuda or cuda:1."),
        ("cpu:x", "no such name. Give auto, cpu, cuda or cuda:1."),
        ("meta", "PyTorch cannot compute there. Give auto, cpu or cuda."),
    ],
)
def test_a_device_of_no_use_is_named_in_a_sentence(name: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        pick_device(name)
    assert str(caught.value) == f"device '{name}': {reason}"


@pytest.mark.parametrize(
    ("num_gpus", "reason"),
    [
        (0, "PyTorch finds 0 GPUs here. Give auto or cpu."),
        (1, "PyTorch finds 1 GPU here. Give auto, cpu, or one of these (cuda:0 is the first)."),
    ],
)
def test_a_gpu_that_is_not_there_is_named_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch, num_gpus: int, reason: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    with pytest.raises(UserError) as caught:
        pick_device("cuda:1")
    assert str(caught.value) == f"device 'cuda:1': {reason}"


def test_the_gpu_that_was_chosen_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that says when a copy has arrived is of the current device's stream."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch, "zeros", lambda _, device: torch.ones(1))
    for name in ("cuda:1", "cuda", "cpu"):  # without a number the current one stays
        pick_device(name)
    assert current == [torch.device("cuda:1")]


def test_a_full_memory_gives_advice() -> None:
    advice = r"train\.batch_size = 32: try --set train\.batch_size=16"
    with pytest.raises(UserError, match=advice), memory_guard("train.batch_size", 32):
        torch.empty(2**50)  # a real failure of the CPU's allocator
    with pytest.raises(UserError, match="smaller pictures"), memory_guard("x", 1):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_guard("x", 1):
        raise RuntimeError("shapes differ")
    with pytest.raises(ValueError, match="x"), memory_guard("x", 1):
        raise ValueError("x")


@pytest.mark.parametrize(
    ("capability", "precision"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp32")]
)
def test_auto_is_bf16_on_a_gpu_that_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_precision("auto", torch.device("cuda")) == precision
    assert pick_precision("fp32", torch.device("cuda")) == "fp32"


@pytest.mark.parametrize(
    ("units", "precision"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_auto_is_bf16_on_a_cpu_that_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, units: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
    assert pick_precision("auto", torch.device("cpu")) == precision
    assert pick_precision("bf16", torch.device("cpu")) == "bf16"


def test_auto_is_fp32_where_pytorch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert pick_precision("auto", torch.device("cpu")) == "fp32"


CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("chosen", "device", "num_processes", "compiled"),
    [
        ({}, GPU, 1, True),
        ({"model": "inception"}, GPU, 1, True),
        ({"model": "reference"}, GPU, 1, False),
        ({}, GPU, 2, False),
        ({}, CPU, 1, False),
        ({"precision": "fp32"}, GPU, 1, False),
        ({"precision": "fp32", "compile": True}, CPU, 2, True),
        ({"compile": False}, GPU, 1, False),
    ],
)
def test_models_are_compiled_where_that_was_measured_to_be_faster(
    monkeypatch: pytest.MonkeyPatch,
    chosen: dict[str, Any],
    device: torch.device,
    num_processes: int,
    compiled: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(devices, "can_compile", lambda device: True)
    settled = settle(TrainConfig(**chosen), device, num_processes)
    assert settled.compile is compiled
    assert settled.channels_last is compiled
    assert settle(settled, device, num_processes) == settled
    other = settle(TrainConfig(**chosen, channels_last=not compiled), device, num_processes)
    assert other.channels_last is not compiled


@pytest.mark.slow
def test_nothing_is_compiled_unasked_where_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    torch._dynamo.reset()  # forgets what another test has compiled
    settings = {"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}
    with torch._inductor.config.patch(settings):
        assert not can_compile(CPU)
    monkeypatch.setattr(devices, "can_compile", lambda device: False)
    assert settle(TrainConfig(), GPU).compile is False


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiler_that_is_there_is_found() -> None:
    torch._dynamo.reset()
    assert can_compile(CPU)
