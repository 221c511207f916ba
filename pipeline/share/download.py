"""What arrives of a shared data set: downloaded, and checked before any of it is used."""

import os
from pathlib import Path

import pyarrow as pa

from pipeline.disk import hash_file, open_no_link
from pipeline.errors import DamagedError, UserError
from pipeline.lockfile.check import MAX_POSTS, check_size, check_text
from pipeline.lockfile.posts import to_hex
from pipeline.schema import SAMPLES, SCHEMA_VERSION
from pipeline.shards.members import find_wrong_member
from pipeline.shards.rows import check_seal, read_info, read_rows
from pipeline.share.index import INDEX, MAX_INDEX_BYTES, PENDING, Index, SharedFile, read_index
from pipeline.stores.transfer import Store, Tick

_LOCKED = ("post_id", "split", "status", "reason", "character", "family")


def find_index(store: Store) -> Index:
    """Return the checked index of a data set.

    Raises:
        UserError: where there is none, its push is not complete, or it is not as ``push`` writes.
    """
    data = store.read(INDEX, MAX_INDEX_BYTES)
    if data is not None:
        return read_index(data, f"{store.url}/{INDEX}")
    if store.read(PENDING, MAX_INDEX_BYTES) is not None:
        raise UserError(
            f"{store.url}: its push is not complete yet: wait until it is, or run the same `push` "
            "again, and then pull."
        )
    raise UserError(f"{store.url}: no data set is shared there: it has no {INDEX}.")


def check_shard(shard: str, named: SharedFile, tar: Path, rows: Path, posts: pa.Table) -> None:
    """Check that a shard is one that our own writer would have written, for the lock's posts."""
    table = check_rows(shard, rows, named, len(posts))
    sums = pa.array(to_hex(posts["sample_sha256"]))
    for column, locked in (*((name, posts[name]) for name in _LOCKED), ("sha256", sums)):
        if table[column].cast(pa.string()).to_pylist() != locked.cast(pa.string()).to_pylist():
            raise DamagedError(f"the {column} of its posts is not that of the lock.")
    if wrong := find_wrong_member(tar, table):
        raise DamagedError(f"its tar {wrong}.")


def check_rows(shard: str, rows: Path, tar: SharedFile, max_posts: int = MAX_POSTS) -> pa.Table:
    """Return a shard's rows, having checked that they are a prepared shard's, and whole.

    Raises:
        UserError: where they are not, or they are of another tar.
    """
    check_size(rows, min(max_posts, rows.stat().st_size))  # a post takes more bytes than one
    check_text(rows)
    check_seal(rows)
    info = read_info(rows)
    if info.get("shard") != shard or info.get("stage") != "prepare":
        raise DamagedError(f"its rows are of {info.get('stage')} {info.get('shard')}.")
    if (info.get("tar_size"), info.get("tar_sha256")) != (tar.size, tar.sha256):
        raise DamagedError("its rows are of another tar.")
    if (version := info.get("schema_version")) != SCHEMA_VERSION:
        raise DamagedError(
            f"its rows are of version {version}, and this program reads version {SCHEMA_VERSION}."
        )
    recipe = info.get("recipe")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("prepare"), dict):
        raise DamagedError("its rows do not say how they were prepared.")
    return read_rows(rows, SAMPLES)


def download(store: Store, file: SharedFile, path: Path, tick: Tick) -> None:
    """Download a file, go on where one was cut short, and check it; a wrong one does not stay.

    Raises:
        UserError: where it cannot be had, or is not what the index says.
    """
    started_at = path.stat().st_size if path.exists() else 0
    if _receive(store, file, path, tick):
        return
    path.unlink()
    if started_at and _receive(store, file, path, tick):  # what was there was of another version
        return
    path.unlink(missing_ok=True)
    raise UserError(
        f"{store.url}/{file.name}: is not what its index says. It is damaged, or is being pushed "
        "anew just now; pull again, and tell whoever shares it if that does not help."
    )


def _receive(store: Store, file: SharedFile, path: Path, tick: Tick) -> bool:
    """Download the rest of a file; returns whether the whole is what the index says."""
    # Not in append mode, in which the kernel copies nothing into a file.
    with open(path, "r+b", 0, opener=open_no_link) as out:
        tick(out.seek(0, os.SEEK_END))
        if out.tell() < file.size:
            store.download(file.name, out, file.size, tick)
        size = out.tell()
    return size == file.size and hash_file(path) == file.sha256
