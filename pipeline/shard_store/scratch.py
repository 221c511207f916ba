"""Scratch folders of this machine, under TMPDIR; those of processes that were killed are swept.

Who uses one holds a lock on it, which the system releases when its process ends, however it ends.
TMPDIR may lie on a disk of many machines, which need not see each other's locks.
"""

import atexit
import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

_PREFIX, _SUFFIX = "nurie-scratch-", f"@{platform.node()}"


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty folder that is gone afterwards; sweep those that others left behind."""
    sweep()
    path, held = _make()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


@cache
def process_scratch() -> Path:
    """Return a folder that lasts as long as this process."""
    until_exit = ExitStack()
    atexit.register(until_exit.close)
    return until_exit.enter_context(scratch())


def sweep() -> None:
    """Remove this user's scratch folders of this machine that no process holds any more."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*{_SUFFIX}"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # gone meanwhile, another user's, or no folder
        try:
            if os.fstat(descriptor).st_uid == os.getuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass  # somebody holds it, or there are no locks here to tell
        finally:
            os.close(descriptor)


def _make() -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(_SUFFIX, _PREFIX))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # swept before it was held
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            return path, descriptor  # no locks here: nobody sweeps it either
        if path.is_dir():
            return path, descriptor
        os.close(descriptor)
