"""A work folder's runs and how far they came, read out of their JSON files without torch."""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from filelock import FileLock, Timeout
from rich.table import Column, Table

from model.config import TrainConfig
from pipeline.disk import check_place, reason
from pipeline.errors import UserError

MEASURES = ("mse", "psnr", "chroma_error", "regional_error", "paper_error", "following")
"""What validations measure, in the order in which it is shown."""


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One training run. What is not known yet, or was not written down by its version, is None.

    Attributes:
        name: of its folder.
        state: ``running``, ``finished``, ``interrupted`` (``--resume`` goes on), or what hinders
            reading it.
        model: the generator's name.
        num_parameters: of the networks that learn, by name.
        step: optimiser steps in its last checkpoint.
        num_steps: of the whole run.
        epochs: epochs begun, counted as ``epoch + 1`` as training prints them.
        num_epochs: of the whole run.
        batch_size: samples a step.
        samples_per_second: in the median of the log's lines.
        data_wait: share of the time spent waiting for samples, in the median of the log's lines.
        best_by: what the best checkpoint is best by.
        best_step: its step.
        metrics: of the best checkpoint's validation, by name.
        style: the style network and where its weights came from.
    """

    name: str
    state: str
    model: str | None = None
    num_parameters: dict[str, int] = dataclasses.field(default_factory=dict)
    step: int = 0
    num_steps: int | None = None
    epochs: int = 0
    num_epochs: int | None = None
    batch_size: int | None = None
    samples_per_second: float | None = None
    data_wait: float | None = None
    best_by: str | None = None
    best_step: int | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    style: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Log:
    """A run's ``log.jsonl``: the values of each kind of line by name, beside their steps.

    Attributes:
        train: (step, value) of each loss term, and of speed and waiting.
        validation: (step, value) of each measure.
    """

    train: dict[str, list[tuple[int, float]]]
    validation: dict[str, list[tuple[int, float]]]


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


@dataclasses.dataclass(frozen=True, slots=True)
class _Config:
    train: TrainConfig
    num_parameters: dict[str, int] = dataclasses.field(default_factory=dict)
    num_steps: _Count | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Style:
    network: str
    weights: str
    seed: int

    def __str__(self) -> str:
        seed = f" {self.seed}" if self.weights == "random" else ""
        return "none" if self.weights == "none" else f"{self.network} {self.weights}{seed}"


@dataclasses.dataclass(frozen=True, slots=True)
class _Checkpoint:
    step: _Count
    epoch: _Count
    metrics: dict[str, float]
    style: _Style


def read_runs(runs_dir: Path) -> list[Run]:
    """Read all runs of a work folder, by name; one that cannot be read says so in its state.

    Raises:
        UserError: where there are none.
    """
    names = sorted(path.parent.name for path in runs_dir.glob("*/config.json"))
    if not names:
        raise UserError(f"{runs_dir}: no runs. Give a work folder in which `train RECIPE` was run.")
    return [_read_run(runs_dir / name) for name in names]


def _read_run(run_dir: Path) -> Run:
    try:
        check_place(run_dir / "config.json")
        config = msgspec.json.decode((run_dir / "config.json").read_bytes(), type=_Config)
        last, previous, best = (
            _read_checkpoint(run_dir / f"{name}.json") for name in ("last", "previous", "best")
        )
        last = last or previous  # a crash while the last was written leaves the one before
        log = read_log(run_dir)
    except (UserError, OSError, ValueError, RecursionError) as error:  # msgspec raises ValueErrors
        return Run(run_dir.name, f"cannot be read: {reason(error)}")
    is_finished = last is not None and last.step == config.num_steps
    state = "running" if _is_held(run_dir) else "finished" if is_finished else "interrupted"
    return Run(
        name=run_dir.name,
        state=state,
        model=config.train.model,
        num_parameters=config.num_parameters,
        step=last.step if last else 0,
        num_steps=config.num_steps,
        epochs=last.epoch + 1 if last else 0,
        num_epochs=config.train.epochs,
        batch_size=config.train.batch_size,
        samples_per_second=_median(log.train.get("samples_per_second")),
        data_wait=_median(log.train.get("data_wait")),
        best_by=config.train.best_by,
        best_step=best.step if best else None,
        metrics=best.metrics if best else {},
        style=str(last.style) if last else None,
    )


def _read_checkpoint(path: Path) -> _Checkpoint | None:
    return msgspec.json.decode(path.read_bytes(), type=_Checkpoint) if path.is_file() else None


def read_log(run_dir: Path) -> Log:
    """Read a run's log; lines that are torn, as a run under way may leave its last, are passed.

    Raises:
        OSError: where it cannot be read; one that is missing is empty.
    """
    log = Log({}, {})
    path = run_dir / "log.jsonl"
    if not path.is_file():
        return log
    series = {"train": log.train, "validation": log.validation}
    with path.open("rb") as file:
        for text in file:
            try:
                line = msgspec.json.decode(text, type=dict[str, Any])
                of_kind, step = series[line["kind"]], msgspec.convert(line["step"], _Count)
                values = {
                    name: float(value)
                    for name, value in line.items()
                    if isinstance(value, int | float) and name not in ("step", "epoch", "position")
                }
            except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
                continue
            for name, number in values.items():
                of_kind.setdefault(name, []).append((step, number))
    return log


def _median(series: Sequence[tuple[int, float]] | None) -> float | None:
    return statistics.median(value for _, value in series) if series else None


def _is_held(run_dir: Path) -> bool:
    """Whether a process trains in a run's folder; holds it for a moment, which ``claim`` bears."""
    path = run_dir / ".lock"
    try:
        if path.exists():
            FileLock(path, blocking=False).acquire().lock.release()
    except Timeout:
        return True
    except OSError:  # not ours to write: nobody's process of this user trains there
        pass
    return False


def tabulate(runs: Sequence[Run]) -> Table:
    """Return what tells runs apart, in about 100 columns; ``-`` stands for what is not known."""
    names = ("steps", "epochs", "psnr", "chroma", "regional", "following")
    numbers = (Column(name, justify="right") for name in names)
    table = Table("run", "model", *numbers, "best by", "state", box=None, pad_edge=False)
    for run in runs:
        table.add_row(
            run.name,
            _show(run.model),
            f"{run.step}/{_show(run.num_steps)}",
            f"{run.epochs}/{_show(run.num_epochs)}",
            _show(run.metrics.get("psnr"), ".2f"),
            *(
                _show(run.metrics.get(name), ".4f")
                for name in ("chroma_error", "regional_error", "following")
            ),
            _show(run.best_by).removesuffix("_error"),
            run.state,
        )
    return table


def _show(value: object, form: str = "") -> str:
    return "-" if value is None else format(value, form)
