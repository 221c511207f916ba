"""What a run writes down."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from model.training.journal import Journal
from model.training.rundir import Checkpoints
from tests.model_checkpoints import CONFIG
from tests.model_runs import log_of, run
from tests.model_samples import write_samples


def test_a_line_is_the_mean_of_the_steps_since_the_line_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path, step=0, log_every=2)
    for step, loss in enumerate((1.0, 3.0, 5.0, 9.0, 2.0), start=1):
        journal.record(step, 0, 2 * step, {"l1": torch.tensor(loss)}, 2, 0.0)
    journal.flush()  # as before a validation
    journal.close()
    lines = log_of(tmp_path)
    assert [(line["step"], line["position"]) for line in lines] == [(2, 4), (4, 8), (5, 10)]
    assert [line["l1"] for line in lines] == pytest.approx([2.0, 7.0, 2.0])


def test_what_a_validation_and_its_checkpoint_take_is_no_time_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_style_networks: None
) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("model.training.journal.time", clock)

    def taking(seconds: float, method: Any) -> Any:
        def run_later(*arguments: Any) -> None:
            clock.now += seconds
            method(*arguments)

        return run_later

    monkeypatch.setattr(Journal, "record", taking(1, Journal.record))
    monkeypatch.setattr(Journal, "validation", taking(1000, Journal.validation))
    monkeypatch.setattr(Checkpoints, "keep_last", taking(1000, Checkpoints.keep_last))
    run(write_samples(tmp_path / "samples", {"train": 8, "val": 2}), tmp_path / "run")
    speeds = [line.get("samples_per_second") for line in log_of(tmp_path / "run")]
    assert len(speeds) > 8
    assert set(speeds) == {None, CONFIG.batch_size}


def test_speed_and_waiting_are_of_the_training_since_the_line_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of what came before, nor of the time that something else takes."""
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("model.training.journal.time", clock)
    journal = Journal(tmp_path, step=0, log_every=2)
    for step in range(1, 7):
        clock.now += 2.0 if step < 5 else 1.0
        journal.record(step, 0, 0, {"l1": torch.tensor(1.0)}, num_samples=6, waited=0.5)
        if step == 4:
            clock.now += 50.0
            journal.validation({"mse": 0.1}, np.zeros((8, 8, 3), np.uint8))
            journal.restart_clock()
    journal.close()
    lines = [line for line in log_of(tmp_path) if line["kind"] == "train"]
    assert [line["samples_per_second"] for line in lines] == pytest.approx([3.0, 3.0, 6.0])
    assert [line["data_wait"] for line in lines] == pytest.approx([0.25, 0.25, 0.5])
    assert journal.note == "6 samples/s, 50.0% waiting"


def test_a_resumed_log_keeps_whole_lines_of_training_up_to_its_step(tmp_path: Path) -> None:
    kept = [b'{"kind":"train","step":1}\n', b'{"kind":"val","step":2}\n']
    odd = [b'{"kind":"train"}\n', b'{"step":"1"}\n', b"[1]\n", b"7\n", b"\xff\n", b"{\n"]
    later = [b'{"kind":"train","step":3}\n', b'{"kind":"train","step":2}']  # the latter is torn
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join([kept[0], *odd, kept[1], *later]))
    Journal(tmp_path, step=2, log_every=1)
    assert path.read_bytes() == b"".join(kept)
