"""A bounded folder of tars on this disk: downloaded in the order in which they are wanted.

A tar is called by its SHA-256, so several processes and data sets may share the folder: what one
has downloaded is there for the others.
"""

import math
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.disk import commit, telling_unwritable
from pipeline.errors import UserError
from pipeline.shards.tar_pool import OpenTar, TarPool
from pipeline.share.index import SharedFile
from pipeline.words import sized

_OURS = re.compile(r"([0-9a-f]{64})\.tar(\.part)?")

_KEPT = 0.5  # in place of a window's number: between this one and the next

Download = Callable[[str, Path], None]
"""Downloads a shard's tar to a path, or goes on with what is there, and checks it."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A file in the cache, and the window in which it is wanted; infinite for never."""

    size: int
    modified: float
    is_whole: bool
    wanted: float

    @property
    def rank(self) -> tuple[float, float]:
        """The file with the highest makes way first: wanted latest, and of those the oldest."""
        return self.wanted, -self.modified


class ShardCache:
    """Downloads shards ahead of their readers, in threads of its own, and makes room for them.

    The shard that is wanted latest makes way first, and none makes way for one that is wanted
    later than itself.

    Args:
        directory: of the tars; see ``check_room``, which makes it.
        max_bytes: of all tars in it, those of other data sets included.
        tars: of the data set, by shard.
        download: see ``Download``; a UserError of it is raised to whoever waits for the shard.
        num_threads: shards that are downloaded at a time.
    """

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        tars: Mapping[str, SharedFile],
        download: Download,
        num_threads: int,
    ) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._tars = tars
        self._download = download
        self._changed = threading.Condition()
        self._is_closed = False
        self._paths = {shard: str(directory / f"{tar.sha256}.tar") for shard, tar in tars.items()}
        self._there: set[str] = set()
        self._pool = TarPool()
        self._kept: list[str] = []
        self._wanted: dict[str, float] = {}  # the window in which a shard is wanted next
        self._queue: dict[str, None] = {}  # to be downloaded, in this order; there is room for all
        self._coming: set[str] = set()
        self._errors: dict[str, UserError] = {}
        for _ in range(num_threads):
            threading.Thread(target=self._work, daemon=True, name="shards").start()

    def keep(self, shards: Iterable[str]) -> None:
        """Want these shards from now on: after those of the first window, before all others."""
        self._kept = list(shards)

    def expect(self, windows: Sequence[Sequence[str]]) -> None:
        """Download these shards, window after window, as far as there is room."""
        numbered = list(enumerate(windows))
        with self._changed:
            self._wanted = {}
            for window, shards in [*numbered[:1], (_KEPT, self._kept), *numbered[1:]]:
                for shard in shards:
                    self._wanted.setdefault(shard, window)
            self._errors.clear()
            with telling_unwritable(self._directory):
                self._plan()
            self._changed.notify_all()

    def find(self, shard: str, *, is_patient: bool = False) -> OpenTar | None:
        """Return a shard's tar; waits for one that is wanted soon and on its way.

        Args:
            shard: whose tar.
            is_patient: wait for any that is on its way.

        Returns:
            None where it is not there and will not be soon.

        Raises:
            UserError: where it could not be downloaded.
        """
        if shard in self._there:
            return self._open(shard)
        with self._changed:
            while not self._is_closed and (is_patient or self._is_soon(shard)):
                if shard in self._errors:
                    raise self._errors[shard]
                if shard not in self._queue and shard not in self._coming:
                    break
                self._changed.wait()
            return self._open(shard) if shard in self._there else None

    def close(self) -> None:
        """Download nothing more; what is under way ends with the process at the latest."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._pool.close()

    def _open(self, shard: str) -> OpenTar | None:
        try:
            return self._pool.open(self._paths[shard])
        except FileNotFoundError:  # it has made way meanwhile
            return None

    def _is_soon(self, shard: str) -> bool:
        """Whether a shard is of this window or the next: a batch may have samples of both."""
        return self._wanted.get(shard, math.inf) <= 1

    def _plan(self) -> None:
        """Make room for the shards wanted soonest, and queue them."""
        there = self._list()
        used = sum(f.size for f in there.values()) + sum(self._tars[s].size for s in self._coming)
        self._queue.clear()
        for shard, window in self._wanted.items():
            tar = self._tars[shard]
            found = there.get(tar.sha256)
            if shard in self._coming or (found is not None and found.is_whole):
                continue
            if found is not None:  # it will go on from there
                used -= there.pop(tar.sha256).size
            while used + tar.size > self._max_bytes:
                latest = max(there, key=lambda sum_: there[sum_].rank, default="")
                if not latest or there[latest].wanted <= window:
                    break
                made_way = there.pop(latest)
                if self._remove(latest, is_whole=made_way.is_whole):
                    used -= made_way.size
            if used + tar.size > self._max_bytes:
                break  # and what follows is wanted later still
            self._queue[shard] = None
            used += tar.size
        whole = {sum_ for sum_, found in there.items() if found.is_whole}
        before = self._there
        self._there = {shard for shard, tar in self._tars.items() if tar.sha256 in whole}
        for shard in before - self._there:  # another process may have removed it
            self._pool.drop(self._paths[shard])

    def _remove(self, sum_: str, *, is_whole: bool) -> bool:
        """Remove a tar; returns False where another process is downloading it just now."""
        path = self._directory / f"{sum_}.tar"
        try:
            held = nullcontext() if is_whole else lock_for(path).acquire(blocking=False)
        except Timeout:
            return False
        with held:
            for file in self._directory.glob(f"{path.name}*"):
                file.unlink(missing_ok=True)
            self._pool.drop(str(path))
        return True

    def _list(self) -> dict[str, _Found]:
        """Return what is there, by its sum; what is coming is not there yet."""
        coming = {self._tars[shard].sha256 for shard in self._coming}
        size_of = {tar.sha256: tar.size for tar in self._tars.values()}
        wanted = {self._tars[shard].sha256: at for shard, at in self._wanted.items()}
        there = {}
        for path in self._directory.iterdir():
            match = _OURS.fullmatch(path.name)
            if match is None or match[1] in coming:
                continue
            try:
                status = path.stat()
            except FileNotFoundError:  # it has made way for what another process wants
                continue
            is_whole = not match[2]
            if is_whole and status.st_size != size_of.get(match[1], status.st_size):
                path.unlink(missing_ok=True)  # a power loss left it so
                continue
            at = wanted.get(match[1], math.inf)
            there[match[1]] = _Found(status.st_size, status.st_mtime, is_whole, at)
        return there

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_closed)
                if self._is_closed:
                    return
                shard = next(iter(self._queue))
                del self._queue[shard]
                self._coming.add(shard)
            error = self._fetch(shard)
            with self._changed:
                self._coming.discard(shard)
                if error is None:
                    self._there.add(shard)
                else:
                    self._errors[shard] = error
                self._changed.notify_all()

    def _fetch(self, shard: str) -> UserError | None:
        path = Path(self._paths[shard])
        part = path.with_name(f"{path.name}.part")
        try:
            with lock_for(path):
                if not path.exists():  # another process may have downloaded it meanwhile
                    self._download(shard, part)
                    commit(part, path)
        except UserError as error:
            return error
        except OSError as error:
            with suppress(OSError):  # of a disk that may only be read now
                part.unlink()
            return UserError(f"{self._directory}: {shard} cannot be kept: {error.strerror}.")
        except Exception as error:  # whoever waits must not wait for ever
            return UserError(f"{shard}: could not be brought: {error!r}.")
        return None


def lock_for(path: Path) -> FileLock:
    """Return the lock under which a file of the cache is downloaded; there are 256 for all."""
    return FileLock(path.parent / f".{path.name[:2]}.lock")


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it has made way for what another process wants
        return 0


def check_room(directory: Path, max_bytes: int, num_bytes: int) -> None:
    """Check that the disk has room for a data set of ``num_bytes``, or ``max_bytes`` of it.

    Raises:
        UserError: where it does not, or no folder can be made there.
    """
    with telling_unwritable(directory):
        directory.mkdir(parents=True, exist_ok=True)
    there = sum(_size_of(path) for path in directory.iterdir() if _OURS.fullmatch(path.name))
    free = shutil.disk_usage(directory).free + there
    needed = min(max_bytes, num_bytes)
    if needed > free:
        raise UserError(
            f"{directory}: has room for {sized(free)}, and the cache may need "
            f"{sized(needed)}. Make room, or give less: --cache-size {free / 2e9:.3g}."
        )
