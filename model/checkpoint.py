"""Checkpoints: one .safetensors that is whole by itself, and a JSON beside it to read.

The file's header carries what the JSON says and a hash over both that and the tensors, so one
atomic rename puts a checkpoint in place, and no crash can pair old words with new weights. The
JSON is a copy for people and other tools. Nothing is pickled, so a checkpoint cannot run code.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model.config import ModelConfig, TrainConfig
from model.foreign import Recipe, check_shape, check_sides
from model.networks.style import Provenance
from model.weights import StateDict, check_header, digest_weights
from pipeline.disk import replacing, sync, write_whole
from pipeline.errors import DamagedError, UserError
from pipeline.settings import Table, convert, to_table
from pipeline.words import nearest

FORMAT = "nurie-checkpoint"
VERSION = 1
"""Raise it when an older program must not read what this one writes."""


def _versions() -> dict[str, str]:
    return {"torch": str(torch.__version__), "numpy": np.__version__}


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What a checkpoint says about itself.

    Attributes:
        model: what to build.
        train: the settings of the run.
        size: sides of its pictures in pixels, (height, width).
        style: where the style network's weights came from.
        samples: fingerprint of the training samples.
        step: optimiser steps so far.
        epoch: the epoch under way, from 0 on.
        position: samples consumed in it.
        metrics: of the latest validation.
        best: lowest ``validation.criterion`` so far, None before the first validation.
        recipe: the effective recipe of the data set, {} where unknown.
        init: sum of the checkpoint that the run began with, "" if with random weights.
        versions: of the libraries that decide the numbers.
    """

    model: ModelConfig
    train: TrainConfig
    size: tuple[int, int]
    style: Provenance
    samples: str
    step: int
    epoch: int
    position: int
    metrics: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    recipe: Table = field(default_factory=dict)
    init: str = ""
    versions: dict[str, str] = field(default_factory=_versions)

    def __post_init__(self) -> None:
        for name in ("step", "epoch", "position"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name}: {value} is negative")


def save_checkpoint(
    path: Path,
    tensors: StateDict,
    info: CheckpointInfo,
    keep_as: Path | None = None,
) -> None:
    """Write ``path`` (.safetensors), then its JSON; an older checkpoint there is replaced whole.

    Args:
        path: of the .safetensors.
        tensors: by name, from any device.
        info: what they are.
        keep_as: where the older one goes, JSON and all, once the new one is whole on the disk;
            None for nowhere.
    """
    weights, about = encode_checkpoint(path.name, tensors, info)
    with replacing(path) as temporary:
        temporary.write_bytes(weights)
        if keep_as is not None:
            sync(temporary)
            for suffix in (".json", ".safetensors"):
                if (older := path.with_suffix(suffix)).exists():
                    older.replace(keep_as.with_suffix(suffix))
    write_whole(path.with_suffix(".json"), about)


def encode_checkpoint(name: str, tensors: StateDict, info: CheckpointInfo) -> tuple[bytes, bytes]:
    """Return a .safetensors of this name and its JSON, as ``save_checkpoint`` writes them."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = orjson.dumps(to_table(info)).decode()
    version = str(VERSION)
    sha256 = _digest(version, text, plain)
    header = {"format": FORMAT, "version": version, "info": text, "sha256": sha256}
    about = {"format": FORMAT, "version": VERSION, "weights": name, "sha256": sha256}
    copy = orjson.dumps({**about, **to_table(info)}, option=orjson.OPT_INDENT_2)
    return save(plain, metadata=header), copy


def load_checkpoint(path: Path) -> tuple[StateDict, CheckpointInfo]:
    """Read a checkpoint and check every byte of it.

    Args:
        path: of the .safetensors, of its JSON, of a run's folder for its best checkpoint, or of
            a folder that ``export`` wrote.

    Returns:
        The tensors, on the CPU, and what they are.

    Raises:
        UserError: where it is missing, damaged, of another program, or of a newer version, and
            where it says of itself what no training writes.
    """
    path = find_checkpoint(path)
    with _opened(path) as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.get("format") != FORMAT:
        raise UserError(f"{path}: holds weights, but is not a checkpoint of this program.")
    version, text = header.get("version", ""), header.get("info", "")
    if version.isdecimal() and int(version[:9]) > VERSION:
        raise UserError(
            f"{path}: written by a newer version of this program (format {version}; this one "
            f"reads up to {VERSION}). Update it."
        )
    if _digest(version, text, tensors) != header.get("sha256"):
        raise DamagedError(f"{path}: damaged; its contents do not match their hash.")
    try:
        about = dict(orjson.loads(text))
        orjson.dumps(about)  # as `export` writes it on: not what is nested too deeply for that
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from error
    info = convert(about, CheckpointInfo, str(path))
    check_sides(info.size, path)
    check_shape(info.recipe, Recipe, f"{path}: its recipe is none")
    return tensors, info


def run_dir_of(checkpoint: Path) -> Path:
    """Return the folder that a checkpoint lies in, or that stands for one."""
    return checkpoint if checkpoint.is_dir() else checkpoint.parent


def read_sum(path: Path) -> str:
    """Return the SHA-256 in a checkpoint's header, unchecked; it stands for every byte of it.

    Raises:
        UserError: where the checkpoint is missing, or damaged.
    """
    path = find_checkpoint(path)
    with _opened(path) as file:
        return str((file.metadata() or {}).get("sha256", ""))


def find_checkpoint(path: Path) -> Path:
    """Return the .safetensors that is meant; see ``load_checkpoint``.

    Raises:
        UserError: where there is none.
    """
    if path.is_dir():
        found = [path / f"{name}.safetensors" for name in ("best", "model")]
        path = next((p for p in found if p.is_file()), found[0])
    if path.suffix.lower() == ".onnx":
        raise UserError(
            f"{path}: an ONNX file is for `colorize` and `app` alone. Give the .safetensors that "
            "`export` wrote beside it, or the run's folder."
        )
    if path.suffix == ".json":
        path = path.with_suffix(".safetensors")
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint. {_what_to_give(path)}")
    return path


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a .safetensors; what it cannot be read for is a ``DamagedError``."""
    try:
        check_header(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DamagedError:
    why = str(error).partition("\n")[0]  # PyTorch adds its own frames
    return DamagedError(f"{path}: damaged, or not a .safetensors file: {why}.")


def _what_to_give(path: Path) -> str:
    """Return what may have been meant where there is no checkpoint."""
    directory = path.parent
    if (last := directory / "last.safetensors").is_file():
        return f"This run has no best one yet; give {last}."
    run_dir = next((p for p in (path, directory) if p.parent.name == "runs"), directory / "runs/x")
    if runs := sorted({p.parent for p in run_dir.parent.glob("*/*.safetensors")}):
        likely = nearest(run_dir.name, [run.name for run in runs]) or runs[0].name
        return f"Give one of the runs there, such as {run_dir.with_name(likely)}."
    return "Give a run's folder or a .safetensors in it."


def pack(prefix: str, tensors: StateDict) -> StateDict:
    """Return tensors under ``prefix.name``."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def unpack(prefix: str, tensors: StateDict) -> StateDict:
    """Return the tensors under ``prefix.``, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def shown_generator(tensors: StateDict) -> StateDict:
    """Return the generator of a checkpoint to use: the mean over its steps where one was kept."""
    return unpack("ema", tensors) or unpack("generator", tensors)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> StateDict:
    """Return an optimiser's state as ``index.name`` tensors."""
    states = optimizer.state_dict()["state"]
    return {f"{i}.{key}": value for i, state in states.items() for key, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: StateDict) -> None:
    """Put ``optimizer_tensors`` back; settings such as the learning rate stay as they are.

    Raises:
        ValueError: where they are not what it keeps of all its parameters.
    """
    kept: list[tuple[Tensor, list[str]]] = [
        (parameter, group.get("moments", ["exp_avg", "exp_avg_sq"]))
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    expected: dict[str, tuple[int, ...]] = {}
    for i, (parameter, moments) in enumerate(kept):
        expected |= {f"{i}.step": (), **{f"{i}.{name}": parameter.shape for name in moments}}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise ValueError("an optimiser's state of other parameters")
    states = {i: unpack(str(i), tensors) for i in range(len(kept))}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    for parameter, moments in kept:
        state = optimizer.state[parameter]
        for name in moments:  # laid out as the weights, which a fused step takes for granted
            state[name] = torch.empty_like(parameter).copy_(state[name])


def _digest(version: str, info: str, tensors: StateDict) -> str:
    return hashlib.sha256(f"{version}\n{info}\n{digest_weights(tensors)}".encode()).hexdigest()
