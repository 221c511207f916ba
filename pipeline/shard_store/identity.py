"""What a store has beside its shards: whose they are, their plans, and the index of a push."""

from collections.abc import Collection, Iterable
from dataclasses import replace

import orjson

from pipeline.disk import write_whole
from pipeline.errors import UserError
from pipeline.planning.folder import plan_content
from pipeline.planning.plan import read_planned, write_plan
from pipeline.shard_store.files import Kind, put
from pipeline.shard_store.scratch import scratch
from pipeline.shards.shard import list_shards
from pipeline.share.index import (
    IDENTITY,
    INDEX,
    MAX_INDEX_BYTES,
    PENDING,
    read_index,
    write_index,
)
from pipeline.stores.transfer import WritableStore
from pipeline.work import Work

MAX_IDENTITY = 2**16  # bytes


def bind(store: WritableStore, names: Collection[str], work: Work) -> None:
    """Let a store, with files of these ``names``, and a work folder know each other.

    Raises:
        UserError: where either holds shards of something else.
    """
    found = store.read(IDENTITY, MAX_IDENTITY)
    if found is None and any(name.startswith(("raw/", "samples/")) for name in names):
        raise UserError(f"{store.url}: holds shards that no `--store` put there; name another.")
    content = plan_content(work)
    if found not in (None, _identity_of(content)):
        raise UserError(f"{store.url}: holds the shards of another plan; name another place.")
    if found is None and work.store:
        raise UserError(
            f"{store.url}: what was put there is gone; is it the same store? To begin anew "
            "give another --work."
        )
    if not work.store:
        for directory in (work.raw_dir, work.samples_dir):
            if list_shards(directory):
                raise UserError(
                    f"{directory}: holds shards; with --store give a work folder that has none."
                )
    if found is None:
        put_identity(store, content)
    write_whole(work.store_path, f"{store.url}\n")


def put_identity(store: WritableStore, content: str) -> None:
    """Say in a store whose shards it holds: those of a plan, by the hash of its posts."""
    with scratch() as folder:
        path = folder / IDENTITY
        path.write_bytes(_identity_of(content))
        put(store, {IDENTITY: path})


def _identity_of(content: str) -> bytes:
    return orjson.dumps({"content": content})


def put_plans(store: WritableStore, work: Work, names: Iterable[str]) -> None:
    """Put the planned posts of some shards into a store, for the workers that make them."""
    with scratch() as folder:
        files = {f"{Kind.PLAN}/{name}.parquet": folder / name for name in names}
        for path in files.values():
            write_plan(path, read_planned(work.plan_path, path.name), {})
        put(store, files)


def withdraw_index(store: WritableStore) -> None:
    """Say that what was pushed to a store is not whole any more, before any of it is replaced."""
    data = store.read(INDEX, MAX_INDEX_BYTES)
    if data is None:
        return  # nothing was pushed there, or another rank has taken it
    with scratch() as folder:
        path = folder / PENDING
        index = read_index(data, f"{store.url}/{INDEX}")
        path.write_bytes(write_index(replace(index, files=())))
        put(store, {PENDING: path})
    store.remove([INDEX])
