"""A file that one process at a time may write, wherever on a cluster the others are.

A cluster gives a shard to another machine when the one that had it seems dead. That one may only be
cut off, or slow to die, and go on writing for a while, with the same temporary name.
"""

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import BinaryIO

from pipeline.disk import open_no_link
from pipeline.errors import UserError

_PATIENCE = 120.0  # seconds; Ray's machines end their work a minute after they are cut off


def claim(path: Path) -> BinaryIO:
    """Open a file for writing, its bytes kept, once no other process has it open by this function.

    It is held until it is closed, under whatever name it is then. File systems without locks let
    everybody in.

    Raises:
        UserError: when the other process does not end.
    """
    give_up_at = time.monotonic() + _PATIENCE
    while True:
        file = open(path, "wb", 2**20, opener=_open_as_it_is)  # noqa: SIM115
        if _lock(file) and _is_at(file, path):
            return file
        file.close()
        if time.monotonic() > give_up_at:
            raise UserError(
                f"{path}: another process goes on writing it, of an earlier run or on a machine "
                "that was given up; run again when it has ended."
            )
        time.sleep(0.1)


def _open_as_it_is(path: str, flags: int) -> int:
    return open_no_link(path, flags & ~os.O_TRUNC)


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file still has its name: who held it may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
