"""Caches of shards of a hundred bytes, downloaded by a function that notes what it did."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError
from pipeline.shards.shard import Span
from pipeline.share.cache import ShardCache
from pipeline.share.index import SharedFile
from tests.files import size_now

SIZE = 100


def content_of(shard: str) -> bytes:
    return shard.encode().ljust(SIZE, b".")


def tars_of(names: str) -> dict[str, SharedFile]:
    sums = {name: hashlib.sha256(content_of(name)).hexdigest() for name in names}
    return {name: SharedFile(f"samples/{name}.tar", SIZE, sum_) for name, sum_ in sums.items()}


class Downloader:
    """Downloads shards; notes in which order, and what the folder holds at most."""

    def __init__(self, directory: Path) -> None:
        self.downloaded: list[str] = []
        self.most = 0
        self.gate = threading.Event()
        self.gate.set()
        self.broken: set[str] = set()
        self._directory = directory

    def __call__(self, shard: str, path: Path) -> None:
        self.downloaded.append(shard)
        assert self.gate.wait(120)
        if shard in self.broken:
            raise UserError(f"{shard} cannot be had")
        path.write_bytes(content_of(shard))
        self.most = max(self.most, sum(map(size_now, self._directory.iterdir())))


@contextmanager
def caching(
    directory: Path, num_places: float, names: str = "abcdefgh", num_threads: int = 1
) -> Iterator[tuple[ShardCache, Downloader]]:
    downloader = Downloader(directory)
    cache = ShardCache(directory, int(num_places * SIZE), tars_of(names), downloader, num_threads)
    try:
        yield cache, downloader
    finally:
        downloader.gate.set()
        cache.close()


def read(cache: ShardCache, shard: str) -> bytes | None:
    tar = cache.find(shard)
    return None if tar is None else tar.read([Span(0, SIZE)])[0]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def names_in(directory: Path) -> set[str]:
    known = {tar.sha256: name for name, tar in tars_of("abcdefghxyz").items()}
    return {known[path.stem] for path in directory.glob("*.tar")}


def count_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
