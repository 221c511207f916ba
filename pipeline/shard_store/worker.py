"""A stage away from the work folder: in scratch on any machine, its outcome into a store.

A store holds ``plan/X.parquet``, the planned posts of a shard; ``raw/X.tar`` and ``raw/X.parquet``;
``ledger/X.parquet``; and ``samples/X.tar`` and ``samples/X.parquet``. As on a disk the rows make a
shard exist: they are taken away before the tar that they prove is replaced, and put last.
"""

import platform
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pipeline.counts import Fates
from pipeline.errors import UserError
from pipeline.executor import Tick
from pipeline.fetch import FetchStage
from pipeline.originals import split_tar
from pipeline.prepare import PrepareStage
from pipeline.scratch import process_scratch, scratch
from pipeline.share.index import IDENTITY
from pipeline.storage.rows import (
    DamagedError,
    check_seal,
    hash_file,
    read_info,
    replacing,
    telling_out_of_space,
)
from pipeline.stores.files import why_unavailable
from pipeline.stores.open import open_writable
from pipeline.stores.remote import MAX_WAIT, PATIENCE
from pipeline.stores.transfer import WritableStore
from pipeline.work import Work

PLAN, RAW, LEDGER, SAMPLES = "plan", "raw", "ledger", "samples"

_MAX_ROWS = 2**32  # bytes


@dataclass(frozen=True, slots=True)
class StageInStore:
    """Runs a stage for a shard where no work folder is, between a store and a scratch folder.

    Attributes:
        stage: its folders are those of the driver, and are not touched.
        url: of the store; its credentials are in each machine's own environment.
    """

    stage: FetchStage | PrepareStage
    url: str

    def __call__(self, name: str, tick: Tick) -> Fates:
        """Do shard ``name`` and put it into the store, its rows last.

        What an earlier ``fetch`` settled of the shard is not asked for again, if the store has it.

        Raises:
            DamagedError: where the store holds something else than was put there.
            UserError: where the store is out of reach, or there is no room for a shard.
        """
        store = _open(self.url)
        remedy = f"make room there on {platform.node()}, or set TMPDIR, and run the command again."
        with scratch() as root, telling_out_of_space(root.parent, remedy):
            work = Work(root)
            if isinstance(self.stage, FetchStage):
                fates = self._fetch(self.stage, name, work, store, tick)
            else:
                fates = self._prepare(self.stage, name, work, store, tick)
        return fates

    def _fetch(
        self, stage: FetchStage, name: str, work: Work, store: WritableStore, tick: Tick
    ) -> Fates:
        if not bring_rows(store, PLAN, name, work.plan_path):
            raise DamagedError(f"{store.url}/{PLAN}/{name}.parquet: is not there.")
        if bring_rows(store, RAW, name, work.raw_dir / f"{name}.parquet"):
            _bring_tar(store, RAW, name, work.root)  # what of it is sound the stage finds out
            bring_rows(store, LEDGER, name, work.ledger_dir / f"{name}.parquet")
        here = replace(
            stage,
            plan_path=work.plan_path,
            raw_dir=work.raw_dir,
            ledger_dir=work.ledger_dir,
            reuse_dirs=(),
            index_dir=process_scratch() if split_tar(stage.source.images)[1] else None,
        )
        fates = here(name, tick)
        put_shard(store, RAW, name, work.root, ledger=work.ledger_dir / f"{name}.parquet")
        return fates

    def _prepare(
        self, stage: PrepareStage, name: str, work: Work, store: WritableStore, tick: Tick
    ) -> Fates:
        rows = work.raw_dir / f"{name}.parquet"
        if not bring_rows(store, RAW, name, rows):
            raise DamagedError(f"{store.url}/{RAW}/{name}.parquet: is not there; run `fetch`.")
        bring_whole_tar(store, RAW, name, work.root)
        fates = replace(stage, raw_dir=work.raw_dir, samples_dir=work.samples_dir)(name, tick)
        put_shard(store, SAMPLES, name, work.root)
        return fates


@cache
def _open(url: str) -> WritableStore:
    """Return a store, kept for all shards of a process: one that has answered is waited for.

    So it is from the start, for it has answered the driver.
    """
    give_up_at, wait = time.monotonic() + PATIENCE, 1.0
    while True:
        try:
            store = open_writable(url)
            store.read(IDENTITY, _MAX_ROWS)  # so that it has answered here
        except UserError as error:
            if not why_unavailable(error) or time.monotonic() >= give_up_at:
                raise
            time.sleep(wait)
            wait = min(2 * wait, MAX_WAIT)
        else:
            return store


def bring_rows(store: WritableStore, kind: str, name: str, path: Path) -> bool:
    """Bring a shard's rows of a kind, checked by their seal; return whether they are there.

    Args:
        store: where they lie.
        kind: ``PLAN``, ``RAW``, ``LEDGER`` or ``SAMPLES``.
        name: the shard's.
        path: replaced as a whole, or left as it was.

    Raises:
        DamagedError: where they are not what was put there.
    """
    file = f"{kind}/{name}.parquet"
    data = store.read(file, _MAX_ROWS)
    if data is None:
        return False
    with replacing(path) as temporary:
        temporary.write_bytes(data)
        try:
            check_seal(temporary)
            is_its_own = kind == PLAN or read_info(temporary).get("shard") == name
        except DamagedError:
            is_its_own = False
        if not is_its_own:
            raise DamagedError(
                f"{store.url}/{file}: damaged, or not the rows of {name}. Remove it there, and the "
                "same command makes the shard anew."
            )
    return True


def _bring_tar(store: WritableStore, kind: str, name: str, root: Path) -> Path:
    """Bring a shard's tar beside its rows, unchecked."""
    tar = root / kind / f"{name}.tar"
    with tar.open("wb", 0) as out:
        size = int(read_info(tar.with_suffix(".parquet"))["tar_size"])
        store.bring(f"{kind}/{name}.tar", out, size, lambda num_bytes: None)
    return tar


def bring_whole_tar(store: WritableStore, kind: str, name: str, root: Path) -> None:
    """Bring a shard's tar beside its rows, checked by the sum in these.

    Args:
        store: where it lies.
        kind: ``RAW`` or ``SAMPLES``.
        name: the shard's.
        root: of a work folder, which has the rows.

    Raises:
        DamagedError: where it is not the tar of these rows.
    """
    tar = _bring_tar(store, kind, name, root)
    if hash_file(tar) != read_info(tar.with_suffix(".parquet"))["tar_sha256"]:
        where = f"{store.url}/{kind}/{name}"
        command = "fetch" if kind == RAW else "prepare"
        raise DamagedError(
            f"{where}.tar: damaged; its bytes do not match the sum in its rows. Remove "
            f"{where}.parquet, and `{command}` makes the shard anew."
        )


def put_shard(
    store: WritableStore, kind: str, name: str, root: Path, ledger: Path | None = None
) -> None:
    """Put a shard into a store: tar and rows out of a work folder, the rows last.

    Between taking the old rows away and putting the new the store has no such shard.

    Args:
        store: where it goes.
        kind: ``RAW`` or ``SAMPLES``.
        name: the shard's.
        root: of the work folder.
        ledger: to put before.
    """
    tar, rows = f"{kind}/{name}.tar", f"{kind}/{name}.parquet"
    put(store, {f"{LEDGER}/{name}.parquet": ledger} if ledger is not None else {})
    store.remove([rows])  # they prove the old tar
    store.put({tar: (root / tar, read_info(root / rows)["tar_sha256"])}, lambda num_bytes: None)
    put(store, {rows: root / rows})


def put(store: WritableStore, files: dict[str, Path]) -> None:
    """Put small files into a store, by their names there."""
    outgoing = {name: (path, hash_file(path)) for name, path in files.items()}
    store.put(outgoing, lambda num_bytes: None)
