"""A folder of shards, checked against its rows, and these against its bytes."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.counts import Fates
from pipeline.disk import hash_file
from pipeline.errors import DamagedError
from pipeline.records import Fate, Status
from pipeline.schema import RAW, SAMPLES, Row, members_of
from pipeline.shards.members import find_wrong_member
from pipeline.shards.rows import check_seal, read_info
from pipeline.shards.shard import list_shards, read_shard, read_span, rows_path, span_of, tar_path

FOREIGN = "does not belong here"


@dataclass(frozen=True, slots=True)
class Problem:
    """A promise that does not hold.

    Attributes:
        path: where.
        what: is wrong.
        shard: the shard that has to be made anew to mend it; "" where no stage can do that.
        is_stale: nothing is broken, but the samples' originals have changed since.
    """

    path: Path
    what: str
    shard: str = ""
    is_stale: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def check_shards(
    directory: Path, quick: bool, planned: Collection[str] | None = None
) -> Iterator[Problem]:
    """Check that a folder holds whole shards and nothing else, of the ``planned`` ones if given."""
    names = dict.fromkeys(list_shards(directory))
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.suffix not in (".tar", ".parquet") or path.stem not in names:
            wanted = planned is not None and path.suffix == ".tar" and path.stem in planned
            yield Problem(path, "has no rows" if wanted else FOREIGN, path.stem * wanted)
    for name in names:
        if planned and name not in planned:
            yield Problem(rows_path(directory, name), "no such shard is planned")
        else:
            yield from _check_shard(directory, name, quick)


def _check_shard(directory: Path, name: str, quick: bool) -> Iterator[Problem]:
    rows_file, tar = rows_path(directory, name), tar_path(directory, name)
    try:
        check_seal(rows_file)
        info = read_info(rows_file)
        schema = SAMPLES if info.get("stage") == "prepare" else RAW
        table, _ = read_shard(directory, name, schema)
    except DamagedError as error:
        yield Problem(rows_file, str(error).removeprefix(f"{rows_file}: "), name)
        return
    if info.get("shard") != name:
        yield Problem(rows_file, f"holds the rows of {info.get('shard')}", name)
    rows = table.to_pylist()
    members = ("",) if schema is RAW else members_of(table.schema)
    yield from (Problem(rows_file, what, name) for what in _wrong_rows(rows, info))
    if quick:
        return
    try:
        if hash_file(tar) != info.get("tar_sha256"):
            yield Problem(tar, "damaged; its bytes do not match the sum in its rows", name)
    except DamagedError as error:  # the disk fails: it is not read again
        yield Problem(tar, str(error).removeprefix(f"{tar}: "), name)
        return
    if wrong := find_wrong_member(tar, table):
        yield Problem(tar, wrong, name)
        return
    with tar.open("rb") as file:
        yield from (Problem(tar, what, name) for what in _wrong_sums(rows, members, file))


def _wrong_rows(rows: list[Row], info: dict[str, Any]) -> Iterator[str]:
    ids = [row["post_id"] for row in rows]
    if ids != sorted(set(ids)):
        yield "its posts are not in order, or one is there twice"
    fates: Fates = Counter()
    for row in rows:
        try:
            fates[str(Fate(Status(row["status"]), row["reason"]))] += 1
        except ValueError as error:
            yield f"post {row['post_id']}: {error}"
    if info.get("fates", fates) != fates:
        yield "its fates are not those that its commit record counts"


def _wrong_sums(rows: list[Row], members: Sequence[str], file: BinaryIO) -> Iterator[str]:
    """Yield the posts whose bytes have changed; ``members`` of samples, or ("",) of originals."""
    wanted = Status.FETCHED if members == ("",) else Status.KEPT
    for row in rows:
        if row["status"] != wanted:
            continue
        data = b"".join(read_span(file, span_of(row, member)) for member in members)
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            yield f"post {row['post_id']}: its bytes do not match their sum"
