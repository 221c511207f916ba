"""Faults at the k-th operation on disk: nothing lies afterwards, and the same commands mend it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.crashing import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent
ENDS = {"kill": "9", "full disk": "UserError: ", "interrupt": "KeyboardInterrupt: "}
"""How a run ends that meets a fault."""

THREADED = ("push", "pull")
"""Scenarios whose operations come in another order each time."""

ROWS_FIRST = """
import sys
from pathlib import Path
from tests import crashing
from pipeline import disk
from pipeline.shards import shard

def put_in_place(directory, name, tar):
    rows_path = shard.rows_path(directory, name)
    disk.commit(disk.temporary_path(rows_path), rows_path)
    disk.commit(tar, shard.tar_path(directory, name))

shard._put_in_place = put_in_place
crashing.main("other settings", "kill", Path(sys.argv[1]), 21, 3)
"""
"""A protocol that is wrong: the rows stand for a tar that is not there yet."""


def run_trials(*arguments: object) -> tuple[list[str], list[dict[str, Any]]]:
    """Return all operations and the trials of a harness in a process of its own.

    A test's threads do not fork well.
    """
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    operations, *trials = map(json.loads, done.stdout.splitlines())
    return operations, trials


def assert_harmless(trials: list[dict[str, Any]]) -> None:
    for trial in trials:
        assert trial["end"].startswith(ENDS[trial["fault"]]), trial
        assert not any(trial[finding] for finding in ("lies", "problems", "different")), trial


def assert_synced(operations: list[str]) -> None:
    """Whatever is renamed into place was synced before, and its folder is synced then."""
    num_renamed = 0
    for before, operation, after in zip(operations, operations[1:], operations[2:], strict=False):
        kind, source, *_ = operation.split()
        if kind == "rename" and source.endswith(".tmp"):
            assert before == f"fsync {source}"
            assert after == f"fsync {source.rpartition('/')[0]}"
            num_renamed += 1
    assert num_renamed >= 4


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_fault_now_and_then_does_no_harm(tmp_path: Path, scenario: str) -> None:
    _, trials = run_trials("-m", "tests.crashing", scenario, ",".join(ENDS), tmp_path, 17, 31)
    assert_harmless(trials)
    assert Counter(trial["fault"] for trial in trials).keys() == ENDS.keys()
    if scenario not in THREADED:
        assert any(trial["left"] for trial in trials if trial["fault"] == "kill")


@pytest.mark.slow
@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kill_at_any_operation_does_no_harm(tmp_path: Path, scenario: str, step: int) -> None:
    operations, trials = run_trials("-m", "tests.crashing", scenario, "kill", tmp_path, 1, step)
    assert_harmless(trials)
    assert [trial["number"] for trial in trials] == list(range(1, len(operations) + 1, step))
    kinds = {operation.split()[0] for operation in operations}
    assert kinds >= {"open", "write_table", "close", "fsync", "rename"}
    if scenario not in THREADED:
        assert_synced(operations)
        assert "add" in kinds


@pytest.mark.slow
def test_a_protocol_that_lies_is_caught(tmp_path: Path) -> None:
    _, trials = run_trials("-c", ROWS_FIRST, tmp_path)
    assert any(trial["lies"] for trial in trials)
