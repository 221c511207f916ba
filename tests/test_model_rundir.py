"""A run's folder: what it goes on from, and what no later run in it may lose."""

from pathlib import Path

import pytest

from model.rundir import load_last
from pipeline.errors import UserError
from tests.model_checkpoints import CONFIG, write_checkpoint
from tests.model_runs import QUIET


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_of_which_only_the_best_checkpoint_is_left_is_not_replaced(
    tmp_path: Path, resume: bool
) -> None:
    assert load_last(tmp_path, CONFIG, "", QUIET, resume=resume) is None
    write_checkpoint(tmp_path / "best.safetensors")
    with pytest.raises(
        UserError, match=r"holds best\.safetensors of a run, and .* or remove the f"
    ):
        load_last(tmp_path, CONFIG, "", QUIET, resume=resume)
