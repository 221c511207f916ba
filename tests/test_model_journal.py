"""What a run writes down."""

from pathlib import Path

import pytest
import torch

from model.training.journal import Journal
from tests.model_runs import log_of


def test_a_line_is_the_mean_of_the_steps_since_the_line_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path, step=0, log_every=2)
    for step, loss in enumerate((1.0, 3.0, 5.0, 9.0, 2.0), start=1):
        journal.record(step, 0, 2 * step, {"l1": torch.tensor(loss)}, 2, 0.0)
    journal.flush()  # as before a validation
    journal.close()
    lines = log_of(tmp_path)
    assert [(line["step"], line["position"]) for line in lines] == [(2, 4), (4, 8), (5, 10)]
    assert [line["l1"] for line in lines] == pytest.approx([2.0, 7.0, 2.0])
