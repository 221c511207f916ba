"""Stages and whole commands on a Ray cluster of two machines, some of which die."""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pipeline.commands.common import runner_of
from pipeline.counts import Fates
from pipeline.errors import UserError
from pipeline.executor import Tick, run_stage
from pipeline.executor_ray import _settle_in, _versions
from pipeline.maintenance.verify import verify
from pipeline.work import Work
from tests.crashing import contents, make_source, temporaries
from tests.ray_cluster import TASK, TwoNodes, wait_for
from tests.real_commands import LIMIT, Gate, Source, finish, run_command, start
from tests.stages import QUIET, SIZES, Keep


def test_an_executor_is_local_or_ray() -> None:
    assert runner_of("local", None, 3) == (None, 3)
    with pytest.raises(UserError, match="--executor is local, or ray"):
        runner_of("dask", None, None)
    with pytest.raises(UserError, match="which takes --ray-address"):
        runner_of("local", "127.0.0.1:6379", None)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "ray://127.0.0.1:1"])
def test_an_address_where_no_cluster_is_fails_at_once(address: str) -> None:
    with pytest.raises(UserError, match=f"--ray-address {address}: no Ray cluster is there"):
        runner_of("ray", address, None)


def test_a_machine_must_be_fit_for_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    versions = _versions()
    _settle_in(tmp_path / ".", tuple(versions.items()))
    with pytest.raises(UserError, match="absent: not on .*, a machine of the Ray cluster"):
        _settle_in(tmp_path / "absent", tuple(versions.items()))
    monkeypatch.chdir("/")
    for odd in ({"numpy": "1.0"}, {"nurie": "0123"}):
        ((name, number),) = odd.items()
        what = re.escape(f"lacks {name} {number} of this one; other versions may give")
        with pytest.raises(UserError, match=what):
            _settle_in(None, tuple((versions | odd).items()))
    assert Path.cwd() == Path("/")


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    nodes = TwoNodes()
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shut_down()


@pytest.mark.slow
def test_shards_run_on_both_machines_and_what_goes_wrong_is_told(
    cluster: TwoNodes, tmp_path: Path
) -> None:
    runner, num_workers = runner_of("ray", cluster.address, None)
    assert num_workers == 2
    try:
        summary = run_stage(Keep(tmp_path), SIZES, 2, "keep", QUIET, runner)
        assert (summary.fates.total(), summary.errors) == (15, {})
        once = Keep(tmp_path, train_000001="die_once", train_000003="die_once")
        summary = run_stage(once, SIZES, 2, "keep", QUIET, runner)
        assert (summary.fates.total(), summary.errors) == (15, {})
        odd = Keep(tmp_path, train_000000="die", train_000001="raise")
        summary = run_stage(odd, SIZES, 2, "keep", QUIET, runner)
        assert summary.fates.total() == 9
        assert summary.errors.pop("train-000001") == "ValueError: broken shard"
        assert "its worker was lost 3 times" in summary.errors.pop("train-000000")
        with pytest.raises(UserError, match="^the whole run is wrong$"):
            run_stage(Keep(tmp_path, train_000002="stop"), SIZES, 2, "keep", QUIET, runner)
        shown: list[int] = []
        busy = Busy(tmp_path)
        for name, fates in runner(busy, list(SIZES), 1, shown.append) if runner else ():
            assert (name in SIZES, fates) == (True, {"kept": 3})
        assert max(map(int, busy.log.read_text().split())) == 1  # with two CPUs, no more than asked
        assert shown == sorted(shown)
        assert any(num % 3 for num in shown)  # in the middle of a shard
    finally:
        ray.shutdown()


class Busy:
    """Takes a while for each shard, and writes down how many are in hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "busy"
        self.log = folder / "log"

    def __call__(self, name: str, tick: Tick) -> Fates:
        self.folder.mkdir(exist_ok=True)
        own = self.folder / name
        own.touch()
        with self.log.open("a") as log:
            print(len(list(self.folder.iterdir())), file=log)
        for _ in range(3):
            time.sleep(0.6)
            tick(1)
        own.unlink()
        return Counter({"kept": 3})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("source")
    make_source(root, "http://127.0.0.1:1/original/{{id}}.jpg")
    work = Work(root / "undisturbed")
    plain = Source(root, {})
    with Gate(root, 1000) as gate:
        run_command(plain.fetch(gate, work))
        run_command(plain.command("prepare", work))
    return Source(root, contents(work))


@pytest.mark.slow
def test_killed_workers_machines_and_drivers_cost_nothing(
    cluster: TwoNodes, source: Source, tmp_path: Path
) -> None:
    on_ray = ["--executor", "ray", "--ray-address", cluster.address]
    work = Work(tmp_path / "work")
    with Gate(source.root, num_free=1) as gate:
        fetch = [*source.fetch(gate, work, 2), *on_ray]
        driver = start(fetch)
        assert gate.is_full.wait(LIMIT)
        os.killpg(driver.pid, signal.SIGINT)
        code, said = finish(driver)
        assert (code, said.splitlines()[-1]) == (
            130,
            "stopped; the same command goes on from here.",
        )
        assert temporaries(work) == []
        wait_for(lambda: not cluster.workers_at(TASK))

        driver = start(fetch)
        wait_for(lambda: len(cluster.workers_at(TASK)) == 2)
        given_up = set(cluster.workers_at(TASK))
        driver.kill()
        finish(driver)
        driver = start(fetch)  # at once, beside workers that may not know yet
        wait_for(lambda: len(set(cluster.workers_at(TASK)) - given_up) == 2)
        os.kill(max(set(cluster.workers_at(TASK)) - given_up), signal.SIGKILL)
        cluster.kill_worker_node()
        gate.open()
        code, said = finish(driver)
        assert code == 0, said
    cluster.replace_worker_node()
    run_command([*source.command("prepare", work, 2), *on_ray])
    assert contents(work) == source.expected
    assert verify(work.root) == []
    assert temporaries(work) == []
