"""Runs a stage over all shards on a Ray cluster (extra ``ray``): executor's pool, on many machines.

Every machine has this code, and sees the work folder, and the pictures if they lie on disk, under
the same paths; or, where the shards go into a store, needs neither folder nor path of the driver's.
A task is a shard's name; no picture goes through Ray. What a lost machine had in hand is
given to another, and only here: Ray itself retries nothing.
"""

import hashlib
import logging
import os
import platform
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.counts import Fates
from pipeline.errors import UserError
from pipeline.executor import MAX_LOSSES, Outcomes, Show, Stage, attempt
from pipeline.lockfile.lock import library_versions
from pipeline.shard_store.worker import StageInStore, check_reach
from pipeline.stores.remote import PATIENCE

_Versions = tuple[tuple[str, str], ...]

_TELL_EVERY = 1.0  # seconds between two reports of a worker


def connect(address: str | None = None) -> int:
    """Connect this process to a cluster, until it ends; return how many CPUs that has.

    Args:
        address: ``HOST:PORT`` of the head, or ``auto`` for a cluster that runs on this machine;
            RAY_ADDRESS by default. Where that is not set either, one is started for this process,
            on loopback only: Ray runs whatever those send who reach its ports.

    Raises:
        UserError: where no cluster is to be reached there, or it has no CPU.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no stranger is told who uses Ray
    quiet: Any = {
        "log_to_driver": bool(os.environ.get("NURIE_DEBUG")),
        "logging_level": logging.ERROR,
    }
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        ray.init("local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
    else:
        try:
            if address != "auto":
                _check_listens(address)
            ray.init(address, **quiet)
        except (OSError, RuntimeError, ValueError, RayError) as error:
            raise UserError(
                f"--ray-address {address}: no Ray cluster is there: {error}."
            ) from error
    num_cpus = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
    if not num_cpus:
        raise UserError("the Ray cluster has no CPU; start workers with `ray start --num-cpus N`.")
    return num_cpus


def _check_listens(address: str) -> None:
    """Raise at once where nobody listens; Ray would try for two minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


def run_on_ray(stage: Stage, names: Sequence[str], num_workers: int, show: Show) -> Outcomes:
    """Run ``stage`` over shards on the cluster, ``num_workers`` of them at a time.

    Yields:
        Each shard's name with its fates, or with the reason why it could not be done.

    Raises:
        UserError: that a stage raised, or where a machine is not fit for the work.
        OSError: where a disk is full.
    """
    home = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board: Any = ray.remote(_Board).options(num_cpus=0, scheduling_strategy=home).remote()
    work = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_work)
    directory = None if isinstance(stage, StageInStore) else Path.cwd()
    shared = ray.put((stage, directory, tuple(_versions().items())))
    waiting, losses, num_done = list(reversed(names)), Counter[str](), 0
    in_hand: dict[Any, str] = {}
    reading = board.read.remote()
    probes: list[Any] = []
    probed: set[str] = set()
    try:
        while waiting or in_hand:
            if isinstance(stage, StageInStore):
                probes += _probe(stage.url, probed)
                _raise_failed(probes)
            while waiting and len(in_hand) < num_workers:
                name = waiting.pop()
                in_hand[work.remote(shared, name, board)] = name
            ready, _ = ray.wait(list(in_hand), timeout=0.2)
            for ref in ready:
                name = in_hand.pop(ref)
                try:
                    outcome: Fates | str = ray.get(ref)
                except RayTaskError as error:
                    raise error.cause or error from None
                except RayError as error:  # its worker, or the whole machine, is gone
                    losses[name] += 1
                    if losses[name] < MAX_LOSSES:
                        waiting.append(name)
                        continue
                    outcome = f"its worker was lost {MAX_LOSSES} times: {error}"
                if not isinstance(outcome, str):
                    num_done += outcome.total()
                yield name, outcome
            if ray.wait([reading], timeout=0)[0]:
                told = ray.get(reading)
                show(num_done + sum(told.get(name, 0) for name in in_hand.values()))
                reading = board.read.remote()
    finally:
        for ref in (*in_hand, *probes):
            with suppress(RayError):
                ray.cancel(ref, force=True)


def _probe(url: str, probed: set[str]) -> list[Any]:
    """Let every machine that may get work ask the store, once, beside the work.

    Args:
        url: of the store.
        probed: ids of the machines that were asked to; those that have joined meanwhile are added.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]  # type: ignore[no-untyped-call]
    joined = {node["NodeID"] for node in nodes} - probed
    probed |= joined
    ask = ray.remote(num_cpus=0, max_retries=0)(check_reach)
    places = [NodeAffinitySchedulingStrategy(node_id, soft=False) for node_id in joined]
    return [ask.options(scheduling_strategy=place).remote(url) for place in places]


def _raise_failed(probes: list[Any]) -> None:
    """Remove the probes that have ended from a list.

    Raises:
        UserError: that one of them raised.
    """
    for ref in ray.wait(probes, num_returns=len(probes), timeout=0)[0] if probes else ():
        probes.remove(ref)
        try:
            ray.get(ref)
        except RayTaskError as error:
            raise error.cause or error from None
        except RayError:  # the machine is gone, and what it had in hand goes to another
            continue


class _Board:
    """Where workers write how far they are with the shards in hand."""

    def __init__(self) -> None:
        self._num_done: dict[str, int] = {}

    def write(self, name: str, num_done: int) -> None:
        self._num_done[name] = num_done

    def read(self) -> dict[str, int]:
        return self._num_done


def _work(shared: tuple[Stage, Path | None, _Versions], name: str, board: Any) -> Fates | str:
    stage, directory, versions = shared
    _settle_in(directory, versions)
    if isinstance(stage, StageInStore):
        _reach(stage.url)
    done, told_at = 0, time.monotonic()

    def tick(num_posts: int) -> None:
        nonlocal done, told_at
        done += num_posts
        if time.monotonic() - told_at > _TELL_EVERY:
            told_at = time.monotonic()
            board.write.remote(name, done)

    return attempt(stage, name, tick)


@lru_cache
def _reach(url: str) -> None:
    """Ask the store once a process: where it refuses this machine, work fails before a probe."""
    check_reach(url, PATIENCE)


def _versions() -> dict[str, str]:
    """Return the versions of all that decides bytes: libraries, and this code by its sum."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return library_versions() | {"nurie": digest.hexdigest()[:8]}


@lru_cache
def _settle_in(directory: Path | None, versions: _Versions) -> None:
    """Go to the driver's folder, if any: relative paths lead to the same files; once a process.

    Raises:
        UserError: where there is none, or other libraries would give other bytes.
    """
    try:
        if directory is not None:
            os.chdir(directory)
    except OSError as error:
        raise UserError(
            f"{directory}: not on {platform.node()}, a machine of the Ray cluster; start the "
            "command in a folder on a disk that all machines share, or give --store URL."
        ) from error
    here = _versions()
    if odd := [f"{name} {version}" for name, version in versions if here.get(name) != version]:
        raise UserError(
            f"{platform.node()}, a machine of the Ray cluster, lacks {', '.join(odd)} of this one; "
            "other versions may give other bytes. Install the same (constraints.txt)."
        )
