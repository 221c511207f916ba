"""A real Ray cluster of two machines, each an address of its own on loopback."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ray.cluster_utils import Cluster

from tests.real_commands import LIMIT

_SMALL: dict[str, Any] = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


class TwoNodes:
    """A head and a worker node with a CPU each.

    Args:
        elsewhere: what is set in the worker node's environment alone.

    Attributes:
        address: of the head.
    """

    def __init__(self, elsewhere: dict[str, str] | None = None) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self._cluster = Cluster()
        self._head = self._add("127.0.0.2")
        self._worker = self._add("127.0.0.3", elsewhere)
        self.address = str(self._cluster.address)

    def _add(self, host: str, elsewhere: dict[str, str] | None = None) -> Any:
        with patch.dict(os.environ, elsewhere or {}):
            return self._cluster.add_node(num_cpus=1, node_ip_address=host, **_SMALL)

    def workers_at(self, title: str) -> list[int]:
        """Return the worker processes that are at a task of that name."""
        return [pid for pid in _children(self._raylets()) if _title(pid) == f"ray::{title}"]

    def kill_worker_node(self) -> None:
        """Kill the daemon of the second machine; its workers are left to notice."""
        (raylet,) = self._raylets()[1:]
        os.kill(raylet, signal.SIGKILL)

    def replace_worker_node(self, elsewhere: dict[str, str] | None = None) -> None:
        """Let another machine, as the first one was made, take the place of one that was killed."""
        self._cluster.remove_node(self._worker, allow_graceful=False)
        self._worker = self._add("127.0.0.4", elsewhere)

    def shut_down(self) -> None:
        self._cluster.shutdown()  # type: ignore[no-untyped-call]

    def _raylets(self) -> list[int]:
        nodes = (self._head, self._worker)
        return [node.all_processes["raylet"][0].process.pid for node in nodes]


def _children(parents: list[int]) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = int(status.parent.name), status.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(rest[1]) in parents:
            found.append(pid)
    return found


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0").decode()
    except OSError:
        return ""


TASK = "_work"


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
