"""What a training run writes down as it goes: log.jsonl, TensorBoard, grids, and the NaN guard.

Terms stay on their device until a line is due: reading one every step would stall a GPU.
"""

import math
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from model.grid import Sheet, encode_png
from model.ranks import ALONE, Ranks
from pipeline.disk import open_no_link, write_whole
from pipeline.errors import UserError


class Journal:
    """Writes a run's log; resuming at ``step`` first removes what a killed run wrote after it.

    ``log.jsonl`` has two kinds of lines: ``train``, the mean of every loss term since the line
    before with samples a second and the share of the time spent waiting for data, and
    ``validation``.

    Attributes:
        note: speed and waiting as of the latest line, for people.
        terms: the loss terms as of that line.

    Args:
        run_dir: the run's folder.
        step: steps done so far.
        log_every: steps between two lines.
        ranks: the processes that train together; terms are averaged over all, and the first writes.
        precision: what is trained in, for advice.
    """

    def __init__(
        self,
        run_dir: Path,
        step: int,
        log_every: int,
        ranks: Ranks = ALONE,
        precision: str = "fp32",
    ) -> None:
        self._precision = precision
        self._ranks = ranks
        self._path = run_dir / "log.jsonl"
        self._grid_dir = run_dir / "grids"
        self._log_every = log_every
        self._first_step = step + 1
        if self._ranks.is_first:
            _forget_after(self._path, step)
        self.note = ""
        self.terms: dict[str, float] = {}
        self._window: list[dict[str, Tensor]] = []
        self._step = step
        self._epoch = self._position = 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Begin to count time anew, after something that is not training."""
        self._started = time.monotonic()
        self._num_samples = 0
        self._waited = 0.0

    def record(
        self,
        step: int,
        epoch: int,
        position: int,
        terms: Mapping[str, Tensor],
        num_samples: int,
        waited: float,
    ) -> None:
        """Take note of a step, from 1 on; writes a line when one is due.

        In the step this rank had ``num_samples``, and waited so many seconds for them.

        Raises:
            UserError: where a term is not finite.
        """
        self._step, self._epoch, self._position = step, epoch, position
        self._window.append({name: term.detach() for name, term in terms.items()})
        self._num_samples += num_samples
        self._waited += waited
        if step % self._log_every == 0:
            self.flush()

    def flush(self) -> None:
        """Write a line for the steps since the last one.

        Raises:
            UserError: where a term was not finite; it names the step and the term.
        """
        if not self._window:
            return
        names = list(self._window[0])
        rows = torch.stack([torch.stack([w[n].float() for n in names]) for w in self._window]).cpu()
        self._window.clear()
        num_samples = int(self._ranks.sum(torch.tensor(self._num_samples)))
        if num_samples != self._num_samples:
            rows = self._ranks.sum(rows * (self._num_samples / num_samples))
        if not bool(rows.isfinite().all()):
            at, term = (int(i) for i in (~rows.isfinite()).nonzero()[0])
            raise UserError(
                f"step {self._step - len(rows) + 1 + at}: the loss term {names[term]!r} is "
                f"{rows[at, term]:g}. Nothing was saved since the last validation; try a lower "
                f"train.lr{'' if self._precision == 'fp32' else ', or train.precision=fp32'}."
            )
        seconds = max(time.monotonic() - self._started, 1e-9)
        self.terms = dict(zip(names, rows.mean(0).tolist(), strict=True))
        values = dict(self.terms)
        values["samples_per_second"] = num_samples / seconds
        values["data_wait"] = self._waited / seconds
        self.note = (
            f"{values['samples_per_second']:.4g} samples/s, {values['data_wait']:.1%} waiting"
        )
        self._write("train", values)
        self.restart_clock()

    def validation(self, metrics: Mapping[str, float], sheet: Sheet) -> None:
        """Write down a validation's metrics and its sheet of samples."""
        self._write("validation", metrics)
        if self._ranks.is_first:
            write_whole(self._grid_dir / f"step-{self._step:07d}.png", encode_png(sheet))
            self._board.add_image("samples", sheet, self._step, dataformats="HWC")
            self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if "_board" in vars(self):
            self._board.close()

    @cached_property
    def _board(self) -> SummaryWriter:
        """TensorBoard's file; a leg of no steps writes none."""
        return SummaryWriter(str(self._path.parent), purge_step=self._first_step)

    def _write(self, kind: str, values: Mapping[str, float]) -> None:
        if not self._ranks.is_first:
            return
        line: dict[str, Any] = {
            "kind": kind,
            "step": self._step,
            "epoch": self._epoch,
            "position": self._position,
            **values,
        }
        with open(self._path, "ab", opener=open_no_link) as file:
            file.write(orjson.dumps(line) + b"\n")
        for name, value in values.items():
            if math.isfinite(value):
                self._board.add_scalar(f"{kind}/{name}", value, self._step)


def _forget_after(path: Path, step: int) -> None:
    """Remove the lines of a log that are past ``step``, torn, or no training's."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            if orjson.loads(line)["step"] <= step and line.endswith(b"\n"):
                kept.append(line)
        except (ValueError, LookupError, TypeError):
            continue
    write_whole(path, b"".join(kept))
