import sys
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.counts import Fates
from pipeline.errors import UserError
from pipeline.executor import Tick, _stop, attempt, local_runner, run_stage
from tests.stages import QUIET, SIZES, Keep


class MakeArray:
    """Makes an array, as every stage does, and says what that has brought with it."""

    def __call__(self, name: str, tick: Tick) -> Fates:
        pa.array(["a"])
        return Counter({"pandas" if "pandas" in sys.modules else "kept": 3})


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_shard_is_run_and_summed(tmp_path: Path, num_workers: int) -> None:
    summary = run_stage(Keep(tmp_path), SIZES, num_workers, "keep", QUIET)
    assert summary.fates == {"kept": 10, "blank/flat": 5}
    assert summary.fates.total() == 15
    assert not summary.errors


def test_workers_do_not_import_pandas(tmp_path: Path) -> None:
    summary = run_stage(MakeArray(), SIZES, 2, "make", QUIET)
    assert summary.fates == {"kept": 15}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_broken_shard_is_recorded_and_the_others_go_on(tmp_path: Path, num_workers: int) -> None:
    stage = Keep(tmp_path, train_000001="raise")
    summary = run_stage(stage, SIZES, num_workers, "keep", QUIET)
    assert summary.errors == {"train-000001": "ValueError: broken shard"}
    assert summary.fates.total() == 12


@pytest.mark.parametrize("num_workers", [1, 2])
def test_wrong_use_stops_the_run(tmp_path: Path, num_workers: int) -> None:
    with pytest.raises(UserError, match="whole run"):
        run_stage(Keep(tmp_path, train_000002="stop"), SIZES, num_workers, "keep", QUIET)


def test_a_lost_post_is_a_bug_that_shows(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="3 posts in, 2 fates out"):
        run_stage(Keep(tmp_path, train_000002="lose"), SIZES, 1, "keep", QUIET)


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(tmp_path: Path) -> None:
    stage = Keep(tmp_path, train_000001="die_once", train_000003="die_once")
    summary = run_stage(stage, SIZES, 2, "keep", QUIET)
    assert not summary.errors
    assert summary.fates.total() == 15


def test_what_a_killed_worker_had_done_is_not_shown_as_done_again(tmp_path: Path) -> None:
    shown: list[int] = []
    stage = Keep(tmp_path, train_000001="die_once", train_000003="die_once")
    outcomes = dict(local_runner(2)(stage, list(SIZES), 2, shown.append))
    assert len(outcomes) == len(SIZES)
    assert shown[-1] == max(shown) == 15


def test_a_pool_that_is_stopped_has_given_back_what_it_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a process that ends at once is told that its semaphores have leaked."""
    pool = ProcessPoolExecutor(1)
    thread = threading.Thread(target=time.sleep, args=(0.3,))
    thread.start()
    monkeypatch.setattr(pool, "_executor_manager_thread", thread)
    _stop(pool)
    assert not thread.is_alive()


@pytest.mark.slow
def test_a_shard_that_always_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    stage = Keep(tmp_path, train_000000="die", train_000001="slow", train_000002="slow")
    summary = run_stage(stage, SIZES, 3, "keep", QUIET)
    assert summary.errors.keys() == {"train-000000"}  # and not those that were in hand beside it
    assert "died" in summary.errors["train-000000"]
    assert summary.fates.total() == 12


def test_a_workers_traceback_moves_no_terminals_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stage(name: str, tick: Tick) -> Fates:
        raise ValueError(f"{name}: tag \x1b[2J")

    monkeypatch.setenv("NURIE_DEBUG", "1")
    assert "ValueError" in attempt(stage, "train-000000", lambda num: None)
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "\ufffd[2J" in shown
    assert "\x1b" not in shown
