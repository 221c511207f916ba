"""Runs a stage over all shards on this machine's cores: progress, Ctrl-C, lost workers, summary.

A stage is a function from a shard's name to the fates of its posts. It knows nothing of what runs
it. Only here are exceptions caught: what a shard raises is recorded and the others go on.
"""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.errors import UserError

Fates = Counter[str]
Tick = Callable[[int], None]

_MAX_LOSSES = 3  # times that a shard may take its worker down before it is given up


class Stage(Protocol):
    """One planned shard -> one committed shard. Picklable; a pure function of its inputs."""

    def __call__(self, name: str, tick: Tick) -> Fates:
        """Do the shard and return the fates of its posts; ``tick(n)`` after every n posts."""


@dataclass(slots=True)
class Summary:
    """What a run over shards came to.

    Attributes:
        fates: posts by ``str(Fate)``, over all shards that are done.
        errors: shards that could not be done, each with the reason.
        num_posts: posts that went in, of the shards that are done.
        seconds: wall time.
    """

    fates: Fates = field(default_factory=Counter)
    errors: dict[str, str] = field(default_factory=dict)
    num_posts: int = 0
    seconds: float = 0.0


def run_stage(
    stage: Stage, sizes: dict[str, int], num_workers: int, label: str, console: Console
) -> Summary:
    """Run ``stage`` over the shards named in ``sizes`` (name -> number of posts).

    Checks conservation: each shard gives as many fates as it had posts.

    Raises:
        UserError: that a stage raised; it concerns the whole run, which stops.
        KeyboardInterrupt: after the workers have stopped.
    """
    summary, started = Summary(), time.monotonic()
    with _progress(console, label, sum(sizes.values())) as show:
        runner = _run_inline if num_workers == 1 else _run_in_pool
        for name, fates in runner(stage, list(sizes), num_workers, show):
            if isinstance(fates, str):
                summary.errors[name] = fates
                continue
            if fates.total() != sizes[name]:
                raise RuntimeError(f"{name}: {sizes[name]} posts in, {fates.total()} fates out")
            summary.fates.update(fates)
            summary.num_posts += sizes[name]
    summary.seconds = time.monotonic() - started
    return summary


Outcome = tuple[str, Fates | str]


def _run_inline(
    stage: Stage, names: Sequence[str], num_workers: int, show: Callable[[int], None]
) -> Iterator[Outcome]:
    done = 0

    def tick(num_posts: int) -> None:
        nonlocal done
        done += num_posts
        show(done)

    for name in names:
        yield name, _attempt(stage, name, tick)


def _run_in_pool(
    stage: Stage, names: Sequence[str], num_workers: int, show: Callable[[int], None]
) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    waiting, losses = list(names), Counter[str]()
    while waiting:
        pool = ProcessPoolExecutor(
            min(num_workers, len(waiting)), context, _start_worker, (counter,)
        )
        futures: dict[Future[Fates | str], str] = {}
        try:
            futures = {pool.submit(_attempt, stage, name, _tick_shared): name for name in waiting}
            for future in _as_completed(futures, lambda: show(counter.value)):
                outcome = future.result()
                waiting.remove(futures[future])
                yield futures[future], outcome
        except BrokenProcessPool:
            # A worker died, and the pool does not say on which shard: shards are handed out in
            # order, so it was one of the first that are not done. The rest go on in a new pool.
            losses.update(waiting[:num_workers])
            for name in [name for name in waiting if losses[name] >= _MAX_LOSSES]:
                waiting.remove(name)
                yield name, f"its worker process died {_MAX_LOSSES} times; out of memory?"
        finally:
            _stop(pool)


def _as_completed(
    futures: Iterable[Future[Fates | str]], poll: Callable[[], None]
) -> Iterator[Future[Fates | str]]:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
        poll()
        yield from done


def _stop(pool: ProcessPoolExecutor) -> None:
    """End a pool at once: a shard in hand leaves nothing but a temporary file."""
    workers = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()


_shared_counter: "Synchronized[int] | None" = None


def _start_worker(counter: "Synchronized[int]") -> None:
    global _shared_counter
    _shared_counter = counter
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends them


def _tick_shared(num_posts: int) -> None:
    if _shared_counter is not None:
        with _shared_counter.get_lock():
            _shared_counter.value += num_posts


def _attempt(stage: Stage, name: str, tick: Tick) -> Fates | str:
    try:
        return stage(name, tick)
    except UserError:
        raise
    except Exception as error:
        if os.environ.get("NURIE_DEBUG"):
            traceback.print_exc(file=sys.stderr)
        return f"{type(error).__name__}: {error}"


@contextmanager
def _progress(console: Console, label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere a line every ten seconds."""
    if console.is_terminal:
        columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    last = time.monotonic()

    def show(done: int) -> None:
        nonlocal last
        if time.monotonic() - last > 10:
            last = time.monotonic()
            console.print(f"{label}: {done} of {total}")

    yield show
