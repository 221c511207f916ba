"""Runs a stage over all shards on this machine's cores: progress, Ctrl-C, lost workers, summary.

A stage is a function from a shard's name to the fates of its posts. It knows nothing of what runs
it. Only here are exceptions caught: what a shard raises is recorded and the others go on.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from ctypes import c_longlong
from dataclasses import dataclass, field
from multiprocessing.synchronize import Lock
from typing import TYPE_CHECKING, Protocol

from pipeline.counts import Fates
from pipeline.disk import is_out_of_space
from pipeline.errors import DamagedError, UserError
from pipeline.progress import show_progress
from pipeline.shards.arrow import leave_pandas_out
from pipeline.words import harmless

if TYPE_CHECKING:
    from rich.console import Console

Tick = Callable[[int], None]
Show = Callable[[int], None]

_JOIN_TIMEOUT = 5.0  # seconds; a pool whose workers are gone needs a moment

MAX_LOSSES = 3  # times that a shard may take its worker down before it is given up


class Stage(Protocol):
    """One planned shard -> one committed shard. Picklable; a pure function of its inputs."""

    def __call__(self, name: str, tick: Tick) -> Fates:
        """Do the shard and return the fates of its posts; ``tick(n)`` after every n posts."""


@dataclass(slots=True)
class Summary:
    """What a run over shards came to.

    Attributes:
        fates: posts by ``str(Fate)``, over all shards that are done; as many as went in.
        errors: shards that could not be done, each with the reason.
    """

    fates: Fates = field(default_factory=Counter)
    errors: dict[str, str] = field(default_factory=dict)


Outcomes = Generator[tuple[str, Fates | str], None, None]
Runner = Callable[[Stage, Sequence[str], int, Show], Outcomes]
"""Runs a stage over the named shards, so many at a time, and shows how many posts are done."""


def run_stage(
    stage: Stage,
    sizes: dict[str, int],
    num_workers: int,
    label: str,
    console: "Console",
    runner: Runner | None = None,
) -> Summary:
    """Run ``stage`` over the shards named in ``sizes`` (name -> number of posts).

    Checks conservation: each shard gives as many fates as it had posts.

    Args:
        stage: what is done with a shard.
        sizes: in the order in which the shards are handed out.
        num_workers: shards at a time.
        label: what progress is shown of.
        console: where it is shown.
        runner: what runs the stage; this machine's cores if None.

    Raises:
        UserError: that a stage raised; it concerns the whole run, which stops.
        OSError: where the disk is full; likewise.
        KeyboardInterrupt: after the workers have stopped.
    """
    summary = Summary()
    runner = runner or local_runner(num_workers)
    with (
        show_progress(console, label, sum(sizes.values())) as show,
        closing(runner(stage, list(sizes), num_workers, show)) as outcomes,
    ):
        for name, fates in outcomes:
            if isinstance(fates, str):
                summary.errors[name] = fates
                continue
            if fates.total() != sizes[name]:
                raise RuntimeError(f"{name}: {sizes[name]} posts in, {fates.total()} fates out")
            summary.fates.update(fates)
    return summary


def local_runner(num_workers: int) -> Runner:
    """Return what runs stages on this machine, in this process where one worker is enough."""
    return _run_inline if num_workers == 1 else _run_in_pool


def _run_inline(stage: Stage, names: Sequence[str], num_workers: int, show: Show) -> Outcomes:
    done = 0

    def tick(num_posts: int) -> None:
        nonlocal done
        done += num_posts
        show(done)

    for name in names:
        yield name, attempt(stage, name, tick)


def _run_in_pool(stage: Stage, names: Sequence[str], num_workers: int, show: Show) -> Outcomes:
    context = multiprocessing.get_context("spawn")
    counter = context.RawValue(c_longlong, 0)
    waiting, losses, num_done = list(names), Counter[str](), 0
    while waiting:
        # A shard is tried alone for the last time: one that kills its worker takes those that are
        # in hand beside it down as well.
        some = waiting[:1] if losses[waiting[0]] == MAX_LOSSES - 1 else list(waiting)
        # The stage goes once to each worker, not along with each shard: prepare's holds all
        # duplicates. The lock is a new one, for a worker that died may hold the last pool's.
        counter.value = num_done  # what the dead one had in hand is done again
        shared = (stage, counter, context.Lock())
        pool = ProcessPoolExecutor(min(num_workers, len(some)), context, _start_worker, shared)
        futures: dict[Future[Fates | str], str] = {}
        try:
            with _sigint_held():  # the workers inherit it: Ctrl-C is for this process
                futures = {pool.submit(_attempt_shared, name): name for name in some}
            for future in _as_completed(futures, lambda: show(counter.value)):
                outcome = future.result()
                waiting.remove(futures[future])
                num_done += 0 if isinstance(outcome, str) else outcome.total()
                yield futures[future], outcome
        except BrokenProcessPool:
            # A worker died, and the pool does not say on which shard: shards are handed out in
            # order, so it was one of the first that are not done. The rest go on in a new pool.
            losses.update(waiting[: min(num_workers, len(some))])
            for name in [name for name in waiting if losses[name] >= MAX_LOSSES]:
                waiting.remove(name)
                yield name, f"its worker process died {MAX_LOSSES} times; out of memory?"
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
    with _sigint_held():
        workers = list((getattr(pool, "_processes", None) or {}).values())
        manager = getattr(pool, "_executor_manager_thread", None)
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
        if manager is not None:  # ended before it gives its semaphores back, they look leaked
            manager.join(_JOIN_TIMEOUT)


@contextmanager
def _sigint_held() -> Iterator[None]:
    """Hold Ctrl-C back until the end; processes that are started meanwhile never get one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_shared: tuple[Stage, c_longlong, Lock]


def _start_worker(stage: Stage, counter: c_longlong, lock: Lock) -> None:
    global _shared
    leave_pandas_out()
    gc.freeze()  # what was imported stays: no collection needs to go through it
    _shared = (stage, counter, lock)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End a worker whose parent was killed: it must not write beside the next run's workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _attempt_shared(name: str) -> Fates | str:
    stage, counter, lock = _shared

    def tick(num_posts: int) -> None:
        with lock:
            counter.value += num_posts

    return attempt(stage, name, tick)


def attempt(stage: Stage, name: str, tick: Tick) -> Fates | str:
    """Run a stage over a shard; return its fates, or why it could not be done.

    Raises:
        UserError: that concerns the whole run.
        OSError: where the disk is full.
    """
    try:
        return stage(name, tick)
    except DamagedError as error:
        return str(error)
    except UserError:
        raise
    except Exception as error:
        if is_out_of_space(error):
            raise
        if os.environ.get("NURIE_DEBUG"):
            print(harmless(traceback.format_exc()), file=sys.stderr)
        return f"{type(error).__name__}: {error}"
