"""Who works on a folder at a time: one whole run, or ranks that share its shards among them.

A whole run holds ``.lock`` for as long as it lasts. A rank holds a lock of its own, such as
``.lock.rank-1-of-4``. Ranks come in one by one: who takes or looks at their locks holds
``.lock.ranks`` meanwhile, and so does a rank that makes the plan or finds near duplicates for all.
"""

import fcntl
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.disk import check_writable, telling_unwritable
from pipeline.errors import UserError

WHOLE_LOCK, _GATE = ".lock", ".lock.ranks"
_RANK = re.compile(r"\.lock\.rank-(\d+)-of-(\d+)")

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Part:
    """One of several runs that share out a work folder's shards.

    Attributes:
        rank: which one this is, from 0.
        world_size: how many there are; 1 is a whole run.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise UserError(
                f"--rank {self.rank} --world-size {self.world_size}: the ranks of N are 0 to N - 1."
            )

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world_size}"

    @property
    def is_whole(self) -> bool:
        """Whether there is but one part."""
        return self.world_size == 1

    def choose(self, planned: dict[str, int]) -> dict[str, int]:
        """Return this part's shards, of all planned ones: dealt in turn, in the plan's order."""
        return dict(islice(planned.items(), self.rank, None, self.world_size))


WHOLE = Part()


@dataclass(frozen=True, slots=True)
class Entry:
    """A run that has come into a folder.

    Attributes:
        has_peers: whether other ranks are at work there.
        let_others_in: a rank keeps the others out until this is called.
    """

    has_peers: bool = False
    let_others_in: Callable[[], object] = lambda: None


@contextmanager
def hold(root: Path, part: Part, say: Say) -> Iterator[Entry]:
    """Hold a folder, made where it is missing, for a whole run or one of several ranks.

    A rank waits while another one comes in, for as long as that takes: a plan may take hours.

    Raises:
        UserError: where a run is there that this one must not work beside, or the folder cannot be
            written; at the end, where it was moved or removed meanwhile.
    """
    with ExitStack() as held:
        with telling_unwritable(root):
            root.mkdir(parents=True, exist_ok=True)
            check_writable(root / WHOLE_LOCK)  # itself it may be there from earlier runs
            entry = _enter_whole(root, held) if part.is_whole else _enter(root, part, say, held)
        yield entry
        if not (root / WHOLE_LOCK if part.is_whole else _rank_path(root, part)).exists():
            raise UserError(
                f"{root}: was moved or removed meanwhile; run the same command again where it is "
                "now."
            )


def is_held(root: Path) -> bool:
    """Whether a run is at work in a folder, or comes in; asks without a right to write there."""
    for path in root.glob(f"{WHOLE_LOCK}*"):
        with suppress(OSError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def _enter_whole(root: Path, held: ExitStack) -> Entry:
    held.enter_context(_take(root / WHOLE_LOCK, f"{root}: another run is using this folder"))
    with _take(root / _GATE, f"{root}: a rank is coming into this folder"):
        for part in _ranks(root):
            if _is_at_work(root, part):
                raise UserError(f"{root}: {part} is using this folder; wait until all have ended.")
    return Entry()


def _enter(root: Path, part: Part, say: Say, held: ExitStack) -> Entry:
    gate = FileLock(root / _GATE)
    try:
        gate.acquire(timeout=1)
    except Timeout:
        say(f"{part}: waiting for another rank, which does what is done once for all")
        gate.acquire()
    held.callback(gate.release)
    with _take(root / WHOLE_LOCK, f"{root}: another run is using this folder"):
        pass  # who holds the gate need not hold this: no whole run gets past the gate
    own = _rank_path(root, part)
    held.enter_context(_take(own, f"{root}: {part} is using this folder already"))
    others = [other for other in _ranks(root) if other != part]
    for other in others:
        if other.world_size != part.world_size and _is_at_work(root, other):
            raise UserError(
                f"{root}: {other} is using this folder; {part} must wait until all of those have "
                "ended."
            )
    return Entry(any(_is_at_work(root, other) for other in others), gate.release)


def _take(path: Path, why_not: str) -> AbstractContextManager[object]:
    try:
        return FileLock(path, timeout=0.1).acquire()  # `is_held` has it for a moment
    except Timeout as error:
        raise UserError(f"{why_not}; wait until it has ended.") from error


def _rank_path(root: Path, part: Part) -> Path:
    return root / f".lock.rank-{part.rank}-of-{part.world_size}"


def _ranks(root: Path) -> list[Part]:
    """Return the ranks that are at work or have been; only for who holds the gate."""
    found = (_RANK.fullmatch(path.name) for path in root.glob(".lock.rank-*"))
    return sorted((Part(*map(int, match.groups())) for match in found if match), key=str)


def _is_at_work(root: Path, part: Part) -> bool:
    """Whether a rank is; clears its lock away where it is not. Only for who holds the gate."""
    path = _rank_path(root, part)
    try:
        with FileLock(path, blocking=False):
            path.unlink(missing_ok=True)
    except Timeout:
        return True
    return False
