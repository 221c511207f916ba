"""Shards that are elsewhere, read as they come: behind the same calls as those on this disk.

Nothing is trusted that the index does not vouch for: rows and tars are checked against its sums,
and what is read past the cache against the rows' sums of each sample.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.disk import commit, telling_unwritable
from pipeline.errors import UserError, WholeFilesOnlyError
from pipeline.records import Status
from pipeline.schema import SAMPLES, members_of
from pipeline.shards.members import find_wrong_member
from pipeline.shards.rows import read_info, read_rows
from pipeline.shards.shard import Span, parse_shard_name
from pipeline.share.cache import ShardCache, check_room, lock_for
from pipeline.share.download import check_rows, download, find_index
from pipeline.share.index import SharedFile, shard_files
from pipeline.stores.open import open_store
from pipeline.stores.transfer import in_threads, no_tick
from pipeline.words import counted, sized

_MAX_ROWS = 2**30
"""Bytes of all rows, which stay beside the cache, unless that may hold more."""

_MAX_SAMPLE = 2**26
"""Largest sample in bytes that is asked for by itself."""


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a shard's samples lie, in the tar's order, and their sums.

    Attributes:
        offsets, sizes: bytes, samples x members.
        sums: SHA-256 (hex) of each sample's members together.
    """

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    sums: list[str]


class RemoteShards:
    """A data set that was pushed somewhere, streamed through a cache on this disk.

    Whole shards come ahead of their readers, as ``expect`` names them, each once as long as the
    cache holds it. A sample of a shard that is not there, nor will be soon, is asked for by itself.
    Only the URL's own host is asked.

    Attributes:
        place: the URL.
        remedy: what to do about damage.

    Args:
        url: of a folder, store, web server or Hub repository that was pushed to.
        cache_dir: of the cache; several processes may share it.
        max_bytes: of all that the cache holds.

    Raises:
        UserError: where there is no whole data set, it shares no samples, its rows take too much,
            or the cache is too small for it or too large for the disk.
    """

    def __init__(self, url: str, cache_dir: Path, max_bytes: int) -> None:
        self.place = url
        self.remedy = f"Remove the tars in {cache_dir}; tell whoever shares it if that is no help."
        self._store = open_store(url, "--shards")
        index = find_index(self._store)
        self._files = index.by_name
        self._shards = index.shards
        self._directory = cache_dir
        if not self._shards:
            raise UserError(f"{url}: shares no pictures, only a recipe; see `pull` and `fetch`.")
        tars = {shard: self._tar(shard) for shard in self._shards}
        largest = max(tar.size for tar in tars.values())
        if max_bytes < largest:
            raise UserError(
                f"a cache of {sized(max_bytes)} holds no shard of {sized(largest)}: "
                f"--cache-size {2 * largest / 1e9:.3g} or more."
            )
        rows = sum(file.size for file in index.files if file.name.endswith(".parquet"))
        if rows > max(max_bytes, _MAX_ROWS):
            raise UserError(
                f"{url}: its rows take {sized(rows)}, beside a cache of {sized(max_bytes)}: "
                f"--cache-size {1.01 * rows / 1e9:.3g} or more, if you trust it with as much."
            )
        check_room(cache_dir, max_bytes, sum(tar.size for tar in tars.values()))
        self._max_bytes = max_bytes
        self._is_whole_only = False
        self._cache = ShardCache(
            cache_dir, max_bytes, tars, self._download_tar, self._store.num_connections
        )
        self._places = functools.lru_cache(maxsize=64)(self._find_places)

    def describe(self, num_together: int) -> str:
        """Say how much of the data set, shuffled so many shards together, the cache holds."""
        sizes = {shard: self._tar(shard).size for shard in self._shards}
        train = [size for shard, size in sizes.items() if parse_shard_name(shard)[0] == "train"]
        val = sum(size for shard, size in sizes.items() if parse_shard_name(shard)[0] == "val")
        total = sum(train) + val
        shards = counted(len(train), "training shard")
        text = f"{self.place}: {shards}, {sized(total)} with validation"
        if total <= self._max_bytes:
            return f"{text}; the cache holds all of it."
        needed = val + 2 * num_together * max(train, default=0)
        if needed <= self._max_bytes:
            return f"{text}; the cache of {sized(self._max_bytes)} holds what comes next."
        enough = 1.01 * min(needed, total)  # three digits of it are no less than what is needed
        return (
            f"{text}; the cache of {sized(self._max_bytes)} is less than two windows of "
            f"{counted(num_together, 'shard')}, so that training may wait. --cache-size "
            f"{enough / 1e9:.3g} is enough, or a lower train.shuffle_shards."
        )

    def names(self, split: str) -> list[str]:
        """Return the shards of a split, and download their rows."""
        shards = [shard for shard in self._shards if parse_shard_name(shard)[0] == split]
        in_threads(self._download_rows, shards, self._store.num_connections)
        return shards

    def rows(self, name: str) -> tuple[pa.Table, dict[str, Any]]:
        """Return a shard's rows and the info about them."""
        path, tar = self._rows_path(name), self._tar(name)
        try:
            table, info = check_rows(name, path, tar), read_info(path)
        except UserError as error:
            raise UserError(f"{self.place}: {name} is refused: {error}") from error
        return table, info

    def read(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        """Return members of a sample, from the cache or by themselves."""
        is_patient = self._is_whole_only  # another thread may find it out meanwhile
        tar = self._cache.find(name, is_patient=is_patient)
        if tar is not None:
            return tar.read(spans)
        try:
            return self._read_alone(name, spans)
        except WholeFilesOnlyError as error:
            if is_patient:
                raise UserError(
                    f"{self.place}: its server gives whole files only, so the cache must hold all "
                    "shards of an epoch's window and more: give a larger --cache-size, or share "
                    "from a server that serves ranges of bytes."
                ) from error
        self._is_whole_only = True
        return self.read(name, spans)

    def expect(self, windows: Sequence[Sequence[str]]) -> None:
        """Have shards downloaded, a window after the other."""
        self._cache.expect(windows)

    def keep(self, names: Sequence[str]) -> None:
        """Have shards downloaded early, and kept as long as there is room."""
        self._cache.keep(names)

    def close(self) -> None:
        """Stop what is under way."""
        self._cache.close()
        self._store.close()

    def _tar(self, shard: str) -> SharedFile:
        return self._files[shard_files(shard)[0]]

    def _rows_path(self, shard: str) -> Path:
        return self._directory / f"{self._files[shard_files(shard)[1]].sha256}.parquet"

    def _download_rows(self, shard: str) -> None:
        path = self._rows_path(shard)
        with telling_unwritable(self._directory), lock_for(path):
            if not path.exists():
                part = path.with_name(f"{path.name}.part")
                download(self._store, self._files[shard_files(shard)[1]], part, no_tick)
                commit(part, path)

    def _download_tar(self, shard: str, path: Path) -> None:
        reached = -1
        while True:
            try:
                download(self._store, self._tar(shard), path, no_tick)
                break
            except UserError:  # a run of days outlives a bad hour, as long as something comes
                size = path.stat().st_size if path.exists() else -1
                if size <= reached:
                    raise
                reached = size
        if wrong := find_wrong_member(path, read_rows(self._rows_path(shard), SAMPLES)):
            path.unlink()
            raise UserError(f"{self.place}: {shard} is refused: its tar {wrong}.")

    def _find_places(self, shard: str) -> _Places:
        rows = read_rows(self._rows_path(shard), SAMPLES)
        rows = rows.filter(pc.equal(rows["status"], Status.KEPT))
        offsets, sizes = (
            np.stack([rows[f"{member}_{what}"].to_numpy() for member in members_of(rows.schema)], 1)
            for what in ("offset", "size")
        )
        return _Places(offsets, sizes, rows["sha256"].to_pylist())

    def _read_alone(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        """Ask for one sample, all members of it, and check them against its row's sum."""
        places = self._places(name)
        row = int(np.searchsorted(places.offsets[:, 0], spans[0].offset, side="right")) - 1
        members = list(zip(places.offsets[row].tolist(), places.sizes[row].tolist(), strict=True))
        start, end = members[0][0], sum(members[-1])
        data = b""
        if 0 < end - start <= _MAX_SAMPLE:
            data = self._store.read_range(shard_files(name)[0], range(start, end))
        digest = hashlib.sha256()
        for offset, size in members:
            digest.update(data[offset - start : offset - start + size])
        if digest.hexdigest() != places.sums[row]:
            raise UserError(f"{self.place}: a sample of {name} is not what its row says.")
        return [data[s.offset - start : s.offset - start + s.size] for s in spans]
