"""Commands on a Ray cluster whose machines share no disk, but a store."""

import os
import platform
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest

from pipeline.maintenance.verify import verify
from pipeline.work import Work
from tests.crashing import contents, make_source
from tests.ray_cluster import TASK, TwoNodes, wait_for
from tests.real_commands import ROOT, Gate, Source, finish, run_command, start
from tests.s3_server import BUCKET

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer

STORE = f"s3://{BUCKET}/tiny"
NOWHERE = "http://127.0.0.1:9"  # which is waited for, a minute long


@pytest.fixture
def nodes(s3: "fsspec.AbstractFileSystem") -> Iterator[TwoNodes]:
    """Machines that have the store's keys in their environment."""
    del s3
    found = TwoNodes()
    try:
        yield found
    finally:
        found.shut_down()


def start_alone(disk: Path, *commands: list[str]) -> "subprocess.Popen[str]":
    """Start commands, one after the other, on an empty disk that no other process sees."""
    lines = [shlex.join(command) for command in commands]
    script = " && ".join([f"mount -t tmpfs none {shlex.quote(str(disk))}", *lines])
    process: subprocess.Popen[str] = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return process


@pytest.mark.slow
def test_machines_without_a_shared_disk_put_the_shards_into_a_store(
    s3: "fsspec.AbstractFileSystem", nodes: TwoNodes, tmp_path: Path
) -> None:
    """A driver is killed, its work folder lost, and a worker killed: the bytes are the same."""
    disk = tmp_path / "disk"
    disk.mkdir()
    code, said = finish(start_alone(disk))
    if code:
        pytest.skip(f"no disk of one's own can be mounted: {said.strip()}")
    source = Source(tmp_path / "source", {})
    make_source(source.root)
    plain, work = Work(tmp_path / "plain"), Work(disk / "work")
    python = [sys.executable, "cli.py"]
    away = ["--store", STORE, "--executor", "ray", "--ray-address", nodes.address]
    with Gate(source.root, num_free=1) as gate:
        fetching = [*python, *source.fetch(gate, work, 2), *away]
        preparing = [*python, *source.command("prepare", work, 2), *away]
        driver = start_alone(disk, fetching)
        wait_for(lambda: len(nodes.workers_at(TASK)) == 2 and gate.num_waiting)
        os.killpg(driver.pid, signal.SIGKILL)
        finish(driver)
        wait_for(lambda: not nodes.workers_at(TASK))

        looking = [*python, "status", str(work.root)]
        pushing = [*python, "push", str(work.root), STORE]
        driver = start_alone(disk, fetching, preparing, looking, pushing)
        wait_for(lambda: len(nodes.workers_at(TASK)) == 2)
        os.kill(nodes.workers_at(TASK)[0], signal.SIGKILL)
        gate.open()
        code, said = finish(driver)
        assert code == 0, said
        assert "in 2 of 2 shards" in said
        run_command(source.fetch(gate, plain))
    run_command(source.command("prepare", plain))
    assert not work.root.exists()
    names = [name for name in s3.find(STORE) if "/raw/" in name or "/samples/" in name]
    found = {name.partition("/tiny/")[2]: s3.cat_file(name) for name in names}
    assert found == contents(plain)
    again = Work(tmp_path / "again")
    run_command(["pull", STORE, str(again.root)])
    assert verify(again.root) == []


@pytest.mark.slow
@pytest.mark.parametrize("joins_late", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_machine_that_looks_for_the_store_elsewhere_ends_the_run_soon(
    s3: "fsspec.AbstractFileSystem", httpserver: "HTTPServer", tmp_path: Path, joins_late: bool
) -> None:
    del s3
    httpserver.expect_request(re.compile(".*")).respond_with_data("not yours", status=403)
    url = NOWHERE if joins_late else httpserver.url_for("/")
    elsewhere = {"AWS_ENDPOINT_URL": url, "AWS_MAX_ATTEMPTS": "1"}
    source = Source(tmp_path / "source", {})
    make_source(source.root)
    nodes = TwoNodes(None if joins_late else elsewhere)
    try:
        with Gate(source.root, num_free=0 if joins_late else 10**6) as gate:
            fetching = source.fetch(gate, Work(tmp_path / "work"), 2)
            away = ["--store", STORE, "--executor", "ray", "--ray-address", nodes.address]
            driver = start([*fetching, *away])
            if joins_late:
                wait_for(lambda: len(nodes.workers_at(TASK)) == 2)
                nodes.kill_worker_node()
                nodes.replace_worker_node(elsewhere)
            code, said = finish(driver)  # in less than LIMIT
    finally:
        nodes.shut_down()
    assert code == 2, said
    assert f"So says {platform.node()}, a machine of the cluster" in said
    assert "start Ray there with the store's address" in said
