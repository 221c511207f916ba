"""Taking posts out of shards that lie in a store, of which the work folder has the rows.

A store cannot replace a tar and its rows at once. So what replaces a shard is made in scratch, and
kept in the work folder until the store has it: whatever ends this, the next run puts it there. What
is kept holds nothing of the posts that go.
"""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.disk import replacing
from pipeline.errors import UserError
from pipeline.maintenance.clearing import clear_stage
from pipeline.removals import (
    Removals,
    count_cleared,
    decode_removals,
    read_removals,
    write_removals,
)
from pipeline.schema import RAW, SAMPLES, among
from pipeline.shard_store.files import (
    Kind,
    download_checked_tar,
    download_rows,
    put,
    put_shard,
    scratch_work,
)
from pipeline.shards.rows import read_info, read_rows
from pipeline.shards.shard import remove_shard, rows_path, tar_path
from pipeline.stores.transfer import WritableStore
from pipeline.work import Work

_REMOVALS = "takedown.json"  # in the store: posts that were taken down there, ever
_MAX_REMOVALS = 2**26  # bytes


@dataclass(frozen=True, slots=True)
class StoreClearing:
    """Takes posts out of one shard at a time.

    Attributes:
        store: has the shards.
        work: has their rows, and follows.
    """

    store: WritableStore
    work: Work

    def adopt_removals(self) -> None:
        """Let a folder without a plan know which posts were taken down in the store.

        Raises:
            UserError: where the folder has a plan that knows one: another folder took it down.
        """
        there = removals_in(self.store)
        here = read_removals(self.work.removals_path)
        if not set(there.post_ids) - set(here.post_ids):
            return
        if self.work.plan_path.is_file():
            raise UserError(
                f"{self.store.url}: posts were taken down there, and {self.work.root} still knows "
                "them. Remove it; the same `fetch` makes it anew, without them."
            )
        write_removals(self.work.removals_path, there)

    def record_removals(self, post_ids: Collection[int]) -> None:
        """Let the store know which posts were taken down, ever."""
        with scratch_work() as here:
            write_removals(here.removals_path, Removals(tuple(sorted(post_ids))))
            put(self.store, {_REMOVALS: here.removals_path})

    def check(self, names: Sequence[str], post_ids: Collection[int]) -> None:
        """Check that shards out of which posts are to be taken are whole, as far as they are there.

        Raises:
            DamagedError: where one is not what its rows say.
        """
        for name in names:
            for kind, schema in ((Kind.RAW, RAW), (Kind.SAMPLES, SAMPLES)):
                with scratch_work() as here:
                    rows = rows_path(here.root / kind, name)
                    is_there = download_rows(self.store, kind, name, rows)
                    if is_there and not _is_clear(rows, schema, post_ids):
                        download_checked_tar(self.store, kind, name, here.root)

    def clear(
        self, schema: pa.Schema, name: str, post_ids: Collection[int], fingerprint: str
    ) -> None:
        """Take posts out of a shard, as ``clear_stage`` does on a disk.

        Raises:
            DamagedError: where the shard is not what its rows say.
        """
        kind = Kind.RAW if schema is RAW else Kind.SAMPLES
        kept = Work(self.work.cleared_dir)
        if not rows_path(kept.root / kind, name).is_file():
            with scratch_work() as here:
                if not self._make(schema, kind, name, post_ids, fingerprint, here):
                    return
                for path in _files(here.root, kind, name):
                    with replacing(kept.root / path.relative_to(here.root)) as temporary:
                        shutil.copyfile(path, temporary)
        ledger = rows_path(kept.ledger_dir, name)
        put_shard(self.store, kind, name, kept.root, ledger if ledger.is_file() else None)
        self._follow(kind, name, kept.root)
        remove_shard(kept.root / kind, name)
        ledger.unlink(missing_ok=True)

    def _make(
        self,
        schema: pa.Schema,
        kind: Kind,
        name: str,
        post_ids: Collection[int],
        fingerprint: str,
        here: Work,
    ) -> bool:
        """Make what replaces a shard; return False where the store needs none."""
        rows = rows_path(here.root / kind, name)
        is_there = download_rows(self.store, kind, name, rows)
        if kind == Kind.RAW:
            download_rows(self.store, Kind.LEDGER, name, rows_path(here.ledger_dir, name))
        if not is_there:  # what may lie there is of a run that was cut short
            self.store.remove([f"{kind}/{name}.tar"])
            if kind == Kind.RAW:
                self.store.remove([f"{Kind.LEDGER}/{name}.parquet"])
                rows_path(self.work.ledger_dir, name).unlink(missing_ok=True)
            return False
        has_it = fingerprint in ("", read_info(rows)["fingerprint"])
        if has_it and _is_clear(rows, schema, post_ids):
            self._follow(kind, name, here.root)
            return False
        download_checked_tar(self.store, kind, name, here.root)
        clear_stage(here, schema, name, post_ids, fingerprint)
        return True

    def _follow(self, kind: Kind, name: str, root: Path) -> None:
        """Let the work folder have the rows of a shard as the store has them."""
        for path in _files(root, kind, name):
            if path.suffix == ".parquet":
                with replacing(self.work.root / path.relative_to(root)) as temporary:
                    shutil.copyfile(path, temporary)


def removals_in(store: WritableStore) -> Removals:
    """Return what was taken down in a store, ever."""
    data = store.read(_REMOVALS, _MAX_REMOVALS)
    return Removals() if data is None else decode_removals(data, f"{store.url}/{_REMOVALS}")


def _files(root: Path, kind: Kind, name: str) -> list[Path]:
    """Return the files of a shard that are there, its rows last."""
    paths = [rows_path(root / Kind.LEDGER, name)] if kind == Kind.RAW else []
    paths += [tar_path(root / kind, name), rows_path(root / kind, name)]
    return [path for path in paths if path.is_file()]


def _is_clear(rows: Path, schema: pa.Schema, post_ids: Collection[int]) -> bool:
    """Whether nothing is left in a shard of some posts, but their ids and fates."""
    table = read_rows(rows, schema, ["post_id", "status"])
    found = table.filter(among(table, post_ids))
    return count_cleared(found) == len(found)
