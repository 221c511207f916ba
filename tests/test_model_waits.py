"""No step waits for the device: proved on PyTorch's device without data, where no value exists.

On ``meta`` whatever reads a value fails: ``item``, ``bool``, ``cpu``, ``nonzero``. What does not
fail there and makes a host wait for a GPU all the same is a copy to the device that is not
``non_blocking``, a tensor made there out of Python's numbers included; those are counted.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.config import TrainConfig, train_config
from model.networks.style import StyleNetwork, build_style_network
from model.training.journal import Journal
from model.training.train import train
from tests.model_checkpoints import CONFIG
from tests.model_samples import write_samples
from tests.stand_ins import Thumbnails

REFERENCE = train_config(
    {"model": "reference", "width_multiplier": 0.25, "batch_size": 2, "pairs": 0.5}, "test"
)
EVERYTHING: dict[str, Any] = {
    "device": "meta",
    "clip_norm": 1.0,
    "ema": 0.9,
    "schedule": "cosine",
    "chroma_weight": 1.0,
    "log_every": 1000,
    "validations_per_epoch": 1,
}
FIRST, LAST = 1, 3
"""The steps watched: from the end of the first to that of the last."""


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the copies to the device, and names what of it makes the host wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_copies = 0
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [a for a in tree_leaves([args, result]) if isinstance(a, Tensor)]
        on_host = [t for t in tensors if t.device.type == "cpu" and t.ndim > 0]
        if on_host and any(t.device.type == "meta" for t in tensors):
            self.num_copies += 1
            if not (kwargs or {}).get("non_blocking"):
                self.waits.append(str(func))
        return result


def build_picture_itself() -> StyleNetwork:
    return build_style_network("picture", normalised=True)


class DoneError(Exception):
    """Ends the run: its last checkpoint would want values."""


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Watch a run between its first step and its last, and end it there."""
    watch, stack = Watch(), contextlib.ExitStack()
    build, make = torch.optim.AdamW.__init__, torch.tensor

    def record(self: Journal, step: int, *rest: object) -> None:
        if step == FIRST:
            stack.enter_context(watch)
        if step == LAST:
            stack.close()
            raise DoneError

    def new_tensor(self: Tensor, values: Any, **options: Any) -> Tensor:
        return tensor(values, **{"dtype": self.dtype, "device": self.device, **options})

    def tensor(values: Any, *, device: Any = "cpu", **options: Any) -> Tensor:
        return make(values, **options).to(device)

    def unfused(*args: Any, **options: Any) -> None:
        build(*args, **options | {"fused": False, "foreach": True})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "record", record)
        patch.setattr(Tensor, "new_tensor", new_tensor)  # these two pass no dispatcher
        patch.setattr("torch.tensor", tensor)
        patch.setattr(torch.optim.AdamW, "__init__", unfused)  # meta has no fused one
        patch.setattr("torch.autocast", lambda *args, **options: contextlib.nullcontext())
        with pytest.raises(DoneError):
            yield watch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "network"),
    [
        (CONFIG, Thumbnails),
        (dataclasses.replace(CONFIG, model="batchnorm", cache_style=False), Thumbnails),
        (dataclasses.replace(CONFIG, gan="paper", jitter=0.8, warp=True), Thumbnails),
        (REFERENCE, build_picture_itself),
        (dataclasses.replace(REFERENCE, gan="patch"), build_picture_itself),
        (dataclasses.replace(REFERENCE, muon_lr=1e-3), build_picture_itself),
    ],
    ids=[
        "zhang2017, features kept",
        "batchnorm, features computed",
        "paper, jitter",
        "reference",
        "patch",
        "muon",
    ],
)
def test_between_two_lines_of_the_log_no_step_waits_for_the_device(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: TrainConfig,
    network: Callable[[], StyleNetwork],
) -> None:
    samples_dir = write_samples(tmp_path / "samples")
    monkeypatch.setattr(
        "model.training.train.build_style_network", lambda *names, **settings: network()
    )
    monkeypatch.setattr(
        "model.training.train.pick_device", torch.device
    )  # people may not have meta
    quiet = Console(quiet=True)
    if config.cache_style and config.is_self_reference():  # what is kept is read, not computed
        on_cpu = dataclasses.replace(config, epochs=1, validations_per_epoch=1)
        train(on_cpu, samples_dir, tmp_path / "cpu", console=quiet)
    on_meta = dataclasses.replace(config, **EVERYTHING)
    with watching() as watch:
        train(on_meta, samples_dir, tmp_path / "meta", console=quiet)
    assert watch.num_copies >= 2 * (LAST - FIRST)  # color and sketch of each step
    assert watch.waits == []


def test_what_waits_is_seen() -> None:
    """The proof can fail."""
    on_device = torch.ones(3, device="meta")
    with Watch() as watch:
        torch.ones(3).to("meta", non_blocking=True)
        assert watch.waits == []
        torch.ones(3).to("meta")
        torch.ones(3, device="meta").copy_(torch.ones(3))
        on_device[torch.arange(3)]
        assert len(watch.waits) == 3
        for read in (Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.nonzero, bool, float):
            with pytest.raises((RuntimeError, NotImplementedError)):
                read(on_device.sum())
