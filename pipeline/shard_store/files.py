"""The files of shards in a store: how they are called, downloaded, checked, and put.

A store holds ``plan/X.parquet``, the planned posts of a shard; ``raw/X.tar`` and ``raw/X.parquet``;
``ledger/X.parquet``; and ``samples/X.tar`` and ``samples/X.parquet``. As on a disk the rows make a
shard exist: they are taken away before the tar that they prove is replaced, and put last.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path

from pipeline.disk import hash_file, replacing, telling_out_of_space
from pipeline.errors import AbsentError, DamagedError
from pipeline.shard_store.scratch import scratch
from pipeline.shards.rows import check_seal, read_info, read_tar_sum
from pipeline.shards.shard import rows_path, tar_path
from pipeline.stores.transfer import WritableStore, no_tick
from pipeline.work import Work


class Kind(StrEnum):
    """A folder of a store with files of shards."""

    PLAN = "plan"
    RAW = "raw"
    LEDGER = "ledger"
    SAMPLES = "samples"


_MAX_ROWS = 2**32  # bytes


def download_rows(store: WritableStore, kind: Kind, name: str, path: Path) -> bool:
    """Download a shard's rows, checked by their seal; return whether they are there.

    Args:
        store: where they are.
        kind: the store's folder.
        name: the shard's.
        path: where they go; replaced as a whole, or left as it was.

    Raises:
        DamagedError: where they are not what was put there.
    """
    file = f"{kind}/{name}.parquet"
    with suppress(AbsentError), replacing(path) as temporary:
        with temporary.open("wb", 0) as out:
            store.download(file, out, _MAX_ROWS, no_tick)
        try:
            check_seal(temporary)
            is_its_own = kind == Kind.PLAN or read_info(temporary).get("shard") == name
        except DamagedError:
            is_its_own = False
        if not is_its_own:
            raise DamagedError(
                f"{store.url}/{file}: damaged, or not the rows of {name}. Remove it there, and the "
                "same command makes the shard anew."
            )
        return True
    return False


def download_tar(store: WritableStore, kind: Kind, name: str, root: Path) -> Path:
    """Download a shard's tar beside its rows, unchecked."""
    tar = tar_path(root / kind, name)
    with tar.open("wb", 0) as out:
        size, _ = read_tar_sum(rows_path(root / kind, name))
        store.download(f"{kind}/{name}.tar", out, size, no_tick)
    return tar


def download_checked_tar(store: WritableStore, kind: Kind, name: str, root: Path) -> None:
    """Download a shard's tar beside its rows in a work folder, checked by the sum in these.

    Raises:
        DamagedError: where it is not the tar of these rows.
    """
    tar = download_tar(store, kind, name, root)
    _, sha256 = read_tar_sum(rows_path(root / kind, name))
    if hash_file(tar) != sha256:
        where = f"{store.url}/{kind}/{name}"
        command = "fetch" if kind == Kind.RAW else "prepare"
        raise DamagedError(
            f"{where}.tar: damaged; its bytes do not match the sum in its rows. Remove "
            f"{where}.parquet, and `{command}` makes the shard anew."
        )


def put_shard(
    store: WritableStore, kind: Kind, name: str, root: Path, ledger: Path | None = None
) -> None:
    """Put a shard into a store: its ledger, if any, tar and rows, out of a work folder.

    Between taking the old rows away and putting the new the store has no such shard.
    """
    tar, rows = f"{kind}/{name}.tar", f"{kind}/{name}.parquet"
    put(store, {f"{Kind.LEDGER}/{name}.parquet": ledger} if ledger is not None else {})
    store.remove([rows])  # they prove the old tar
    _, sha256 = read_tar_sum(root / rows)
    store.put({tar: (root / tar, sha256)}, no_tick)
    put(store, {rows: root / rows})


def put(store: WritableStore, files: dict[str, Path]) -> None:
    """Put small files into a store, by their names there."""
    outgoing = {name: (path, hash_file(path)) for name, path in files.items()}
    store.put(outgoing, no_tick)


@contextmanager
def scratch_work() -> Iterator[Work]:
    """Yield a work folder in scratch, which is gone afterwards.

    Raises:
        UserError: where there was no room for what was written.
    """
    remedy = f"make room there on {platform.node()}, or set TMPDIR, and run the command again."
    with scratch() as root, telling_out_of_space(root.parent, remedy):
        yield Work(root)
