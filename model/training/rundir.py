"""A run's folder: who may write into it, whether it can go on, and its checkpoints."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import orjson
import torch
from filelock import FileLock, Timeout
from rich.console import Console

from model.checkpoint import CheckpointInfo, load_checkpoint, read_sum, save_checkpoint
from model.config import TrainConfig
from model.networks.style import StyleNetwork
from model.training.runs import read_log
from model.training.state import TrainState
from model.weights import StateDict
from pipeline.disk import telling_out_of_space, write_whole
from pipeline.errors import DamagedError, UserError
from pipeline.settings import Table, to_table
from pipeline.words import counted

_PATIENCE = 0.3
"""Seconds to wait for a run's folder: ``runs`` holds it for a moment to see whether it is free."""


@contextmanager
def claim(run_dir: Path) -> Iterator[None]:
    """Hold a run's folder for this process alone; makes it where it is missing.

    A folder that it made is removed again where nothing was written into it.

    Raises:
        UserError: where another process holds it, it cannot be written, or has no room left.
    """
    try:
        is_new = not run_dir.exists()
        run_dir.mkdir(parents=True, exist_ok=True)
        held = FileLock(run_dir / ".lock", timeout=_PATIENCE).acquire()
    except Timeout as error:
        raise UserError(
            f"{run_dir}: another process is training here. Wait for it, or name another run."
        ) from error
    except OSError as error:
        raise UserError(f"{run_dir}: cannot be written: {error.strerror}.") from error
    remedy = "what was saved before is whole. Make room, and go on with --resume."
    with held, telling_out_of_space(run_dir, remedy):
        try:
            yield
        finally:
            if is_new and [path.name for path in run_dir.glob("*")] == [".lock"]:
                shutil.rmtree(run_dir)


class Resumed(NamedTuple):
    """What a run goes on from.

    Attributes:
        tensors: of the checkpoint, on the CPU.
        info: what they are.
        last_is_damaged: whether the last one is damaged, and this is the one before.
    """

    tensors: StateDict
    info: CheckpointInfo
    last_is_damaged: bool


def load_last(
    run_dir: Path,
    config: TrainConfig,
    samples: str,
    steps_per_epoch: int,
    console: Console,
    *,
    resume: bool,
) -> Resumed | None:
    """Return the checkpoint to go on from, or None where the run begins.

    Where the last one is damaged, or missing after a crash, it is the one before. ``best`` is
    written before ``last``: a run that crashed in its first validation may have ``best`` alone, and
    begins anew. ``samples`` is the fingerprint of the training samples.

    Raises:
        UserError: where a run is there and going on was not asked for, it had other settings or
            other samples or is further than this call goes, no checkpoint is whole, or the best
            one is all that is left.
    """
    paths = [run_dir / f"{name}.safetensors" for name in ("last", "previous")]
    paths = [path for path in paths if path.exists()]
    if not paths:
        if (best := run_dir / "best.safetensors").exists():
            if resume and _is_of_first_validation(best, config, samples):
                console.print(f"{run_dir}: was broken off in its first validation; begins anew.")
                return None
            raise UserError(
                f"{run_dir}: holds {best.name} of a run, and no checkpoint to go on from; a run "
                "here would replace it. Name another run, or remove the folder."
            )
        return None
    if not resume:
        raise UserError(
            f"{run_dir}: holds a run already. Go on with --resume, or name another run."
        )
    last_is_damaged = False
    try:
        tensors, info = load_checkpoint(paths[0])
    except DamagedError as error:
        if len(paths) == 1:
            raise
        tensors, info = load_checkpoint(paths[1])
        last_is_damaged = True
        console.print(f"{error} Going on from the one before, of step {info.step}.")
    if "random.cpu" not in tensors:
        raise UserError(
            f"{paths[0]}: holds the generator alone, and training cannot go on from it. Put the "
            "run's own back, or name another run."
        )
    _check_is_same(run_dir, info, config, samples, steps_per_epoch)
    return Resumed(tensors, info, last_is_damaged)


def changed_settings(before: TrainConfig, now: TrainConfig) -> list[str]:
    """Return the settings that a run may not change when it is resumed, and that were changed.

    It may change where and how fast it computes, how often it reports, and how long it goes on,
    unless the schedule of the learning rate depends on that.
    """
    free = {"epochs", "device", "compile", "channels_last", "decode_threads", "accumulate"}
    free |= {"log_every", "num_grid", "style_weights"}
    if before.schedule != "constant":
        free.remove("epochs")
    names = [field.name for field in fields(TrainConfig) if field.name not in free]
    return [name for name in names if getattr(before, name) != getattr(now, name)]


def _check_is_same(
    run_dir: Path, info: CheckpointInfo, config: TrainConfig, samples: str, steps_per_epoch: int
) -> None:
    """Check that this call can go on with the run of a checkpoint."""
    different = changed_settings(info.train, config)
    if different:
        values = ", ".join(
            f"train.{name} ({getattr(info.train, name)} there, {getattr(config, name)} here)"
            for name in different
        )
        fits = not {"model", "size", "width_multiplier"} & {*different}
        begun = f"; --init {run_dir} begins that one with these weights" if fits else ""
        raise UserError(
            f"{run_dir}: its run has other settings: {values}. Give its settings, or name "
            f"another run{begun}."
        )
    if info.samples != samples:
        raise UserError(
            f"{run_dir}: its run was trained on other samples than those here, and cannot go on "
            "exactly. Name another run."
        )
    if (info.step - info.epoch * steps_per_epoch) * config.batch_size != info.position:
        raise UserError(
            f"{run_dir}: its checkpoint is of step {info.step} and of sample {info.position} of "
            f"epoch {info.epoch + 1}, which no run reaches together. Name another run."
        )
    if info.step > (end := steps_per_epoch * config.epochs):
        raise UserError(
            f"{run_dir}: its run is {counted(info.step, 'step')} far, and "
            f"{counted(config.epochs, 'epoch')} would end after {end}: give --epochs "
            f"{-(-info.step // steps_per_epoch)} or more."
        )


def _is_of_first_validation(best: Path, config: TrainConfig, samples: str) -> bool:
    """Whether a run of these settings wrote no more than this: anew, it will write it again."""
    _, info = load_checkpoint(best)
    log = read_log(best.parent)
    trained, validated = (
        [step for step, _ in series.get(name, [])]
        for series, name in ((log.train, "l1"), (log.validation, "mse"))
    )
    is_first = trained[-1:] == [info.step] and validated in ([], [info.step])
    return is_first and info.samples == samples and not changed_settings(info.train, config)


def go_on_from(
    resumed: Resumed,
    run_dir: Path,
    state: TrainState,
    style_network: StyleNetwork,
    init: Path | None,
) -> None:
    """Bring a run, which has taken no step in this call, back to where its checkpoint was written.

    ``init`` is the checkpoint that it is said to have begun with; None where nothing is said.

    Raises:
        UserError: where it began with another one, or with other style weights, or its networks
            are not those of this code.
    """
    if resumed.info.style.sha256 != style_network.provenance.sha256:
        raise UserError(f"{run_dir}: began with {resumed.info.style}. Give those --style-weights.")
    if init is not None and read_sum(init) != resumed.info.init:
        raise UserError(f"{run_dir}: its run did not begin with {init}. Name another run.")
    try:
        state.restore(resumed.tensors, resumed.info)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{run_dir}: its last checkpoint is not one of this run's networks; it was written by "
            "other code. Name another run."
        ) from error


def write_config(
    run_dir: Path,
    config: TrainConfig,
    recipe: Table,
    num_parameters: dict[str, int],
    num_steps: int,
) -> None:
    """Write what the run is to ``config.json``, with how many parameters each network learns."""
    table = {
        "train": to_table(config),
        "num_parameters": num_parameters,
        "num_steps": num_steps,
        "recipe": recipe,
    }
    write_whole(run_dir / "config.json", orjson.dumps(table, option=orjson.OPT_INDENT_2))


@dataclass(slots=True)
class Checkpoints:
    """A run's checkpoints as they are written.

    Attributes:
        run_dir: the run's folder.
        about: what all of them say; how far it is comes from the state.
        last_is_damaged: see ``Resumed``.
    """

    run_dir: Path
    about: CheckpointInfo
    last_is_damaged: bool = False

    def keep_best(self, state: TrainState) -> None:
        """Write ``best.safetensors``, the generator alone."""
        path = self.run_dir / "best.safetensors"
        save_checkpoint(path, state.generator_tensors(), self._info(state))

    def keep_last(self, state: TrainState) -> None:
        """Write ``last.safetensors``, everything; the one before becomes ``previous``.

        That is for when the new one comes to be damaged; so it is not kept if damaged itself.
        """
        path = self.run_dir / "last.safetensors"
        previous = None if self.last_is_damaged else path.with_stem("previous")
        save_checkpoint(path, state.tensors(), self._info(state), keep_as=previous)
        self.last_is_damaged = False

    def _info(self, state: TrainState) -> CheckpointInfo:
        return replace(
            self.about,
            step=state.step,
            epoch=state.epoch,
            position=state.position,
            metrics=state.metrics,
            best=state.best,
        )
