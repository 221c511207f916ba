"""Takedowns: where a post that was taken down might still be found, and one that is cut short."""

import tarfile
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.maintenance import takedown
from pipeline.records import key_of
from pipeline.schema import RAW, SAMPLES
from pipeline.shards.rows import read_rows
from pipeline.shards.shard import list_shards, rows_path
from pipeline.work import Work


def members(work: Work, directory: str = "samples") -> dict[str, bytes]:
    """Return every member of every tar, by name."""
    found = {}
    for path in sorted((work.root / directory).glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                data = tar.extractfile(member)
                assert data is not None
                found[member.name] = data.read()
    return found


def readable(folder: Path) -> dict[str, bytes]:
    """Return all that a folder's files hold: tables as text, with every word that they number."""
    found = {}
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            columns = [chunk for column in table.columns for chunk in column.chunks]
            columns += [column.values for column in columns if pa.types.is_list(column.type)]
            words = [c.dictionary for c in columns if pa.types.is_dictionary(c.type)]
            text = str([column.to_pylist() for column in (*columns, *words)])
            found[str(path)] = text.encode() + str(table.schema.metadata).encode()
        elif path.is_file():
            found[str(path)] = path.read_bytes()
    return found


def holding(folder: Path, secrets: list[bytes]) -> list[str]:
    """Return the files of a folder that hold any of some secrets."""
    return [name for name, data in readable(folder).items() if any(s in data for s in secrets)]


def secrets_of(work: Work, post_id: int) -> list[bytes]:
    """Return what must be found nowhere once a post is gone: its hashes, and its pictures."""
    found: list[bytes] = []
    for directory, schema in ((work.raw_dir, RAW), (work.samples_dir, SAMPLES)):
        for name in list_shards(directory):
            for row in read_rows(rows_path(directory, name), schema).to_pylist():
                if row["post_id"] == post_id:
                    sums = [row["md5"], row["sha256"]]
                    found += [sum_.encode() for sum_ in sums]
                    found += [repr(bytes.fromhex(sum_)).encode() for sum_ in sums]
    pictures = {**members(work), **members(work, "raw")}
    return found + [d[-200:] for n, d in pictures.items() if n.startswith(key_of(post_id))]


def cut_short(
    work: Work,
    post_ids: Collection[int],
    step: str,
    monkeypatch: pytest.MonkeyPatch,
    store: str = "",
) -> None:
    """Begin a takedown that Ctrl-C ends before a step, done by a function of ``takedown``."""
    plain = getattr(takedown, step)

    def fail(*arguments: object) -> None:
        if arguments[1] is not RAW:  # the samples, or the plan
            raise KeyboardInterrupt
        plain(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(takedown, step, fail)
        takedown.take_down(work, post_ids, store=store)
