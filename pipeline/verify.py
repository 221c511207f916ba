"""verify: every promise that a data folder makes, checked against its bytes."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.plan import planned_shards, read_planned
from pipeline.records import Fate, Status
from pipeline.rows import DamagedError, check_seal, read_info, read_rows
from pipeline.schema import RAW, SAMPLES, extension_of, members_of
from pipeline.shard import (
    Span,
    iterate_members,
    list_shards,
    read_shard,
    read_span,
    rows_path,
    tar_path,
)
from pipeline.work import Work

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """A promise that does not hold: where, and what is wrong."""

    path: Path
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def verify(directory: Path, quick: bool = False) -> list[Problem]:
    """Check a work folder, or one folder of shards.

    Args:
        directory: a work folder (with ``selection.parquet``), or its ``raw`` or ``samples``.
        quick: sizes and indexes only; without it every byte is read and hashed.

    Returns:
        The problems, none when every promise holds.

    Raises:
        UserError: where the folder holds nothing of ours.
    """
    work = Work(directory)
    if not work.plan_path.is_file():
        if not list_shards(directory):
            raise UserError(f"{directory}: neither a work folder nor a folder of shards.")
        return list(_check_shards(directory, quick))
    problems = [*_damage(work.plan_path, check_seal)]
    for stage_dir in (work.raw_dir, work.samples_dir):
        problems += _check_shards(stage_dir, quick)
    return problems or list(_check_conservation(work))


def _damage(path: Path, check: Callable[[Path], object]) -> Iterator[Problem]:
    try:
        check(path)
    except DamagedError as error:
        yield Problem(path, str(error).removeprefix(f"{path}: "))


def _check_shards(directory: Path, quick: bool) -> Iterator[Problem]:
    names = list_shards(directory)
    known = {
        path for name in names for path in (tar_path(directory, name), rows_path(directory, name))
    }
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path not in known:
            tar_alone = path.suffix == ".tar"
            what = "a tar without rows, never committed" if tar_alone else "does not belong here"
            yield Problem(path, what)
    for name in names:
        yield from _check_shard(directory, name, quick)


def _check_shard(directory: Path, name: str, quick: bool) -> Iterator[Problem]:
    rows_file, tar = rows_path(directory, name), tar_path(directory, name)
    try:
        check_seal(rows_file)
        info = read_info(rows_file)
        schema = SAMPLES if info.get("stage") == "prepare" else RAW
        table, _ = read_shard(directory, name, schema)
    except DamagedError as error:
        yield Problem(rows_file, str(error).removeprefix(f"{rows_file}: "))
        return
    if info.get("shard") != name:
        yield Problem(rows_file, f"holds the rows of {info.get('shard')}")
    rows = table.to_pylist()
    members = () if schema is RAW else members_of(table.schema)
    yield from (Problem(rows_file, what) for what in _wrong_rows(rows))
    if quick:
        return
    with tar.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != info["tar_sha256"]:
            yield Problem(tar, "damaged; its bytes do not match the sum in its rows")
        yield from (Problem(tar, what) for what in _wrong_members(rows, members, file, tar))


def _wrong_rows(rows: list[Row]) -> Iterator[str]:
    ids = [row["post_id"] for row in rows]
    if ids != sorted(set(ids)):
        yield "its posts are not in order, or one is there twice"
    for row in rows:
        try:
            Fate(Status(row["status"]), row["reason"])
        except ValueError as error:
            yield f"post {row['post_id']}: {error}"


def _expected_members(row: Row, members: Sequence[str]) -> dict[str, Span]:
    """Return where a post's members have to lie; without ``members``, its original."""
    if not members:
        held = row["status"] == Status.FETCHED
        return {f"{row['key']}.{row['format']}": Span(row["offset"], row["size"])} if held else {}
    if row["status"] != Status.KEPT:
        return {}
    return {
        f"{row['key']}.{extension_of(member)}": Span(row[f"{member}_offset"], row[f"{member}_size"])
        for member in members
    }


def _wrong_members(rows: list[Row], names: Sequence[str], file: Any, tar: Path) -> Iterator[str]:
    expected: dict[str, Span] = {}
    for row in rows:
        members = _expected_members(row, names)
        expected |= members
        try:
            digest = hashlib.sha256(b"".join(read_span(file, span) for span in members.values()))
        except DamagedError as error:
            yield f"post {row['post_id']}: {error}"
            continue
        if members and digest.hexdigest() != row["sha256"]:
            yield f"post {row['post_id']}: its bytes do not match their sum"
    try:
        found = dict(iterate_members(tar))
    except DamagedError as error:
        yield str(error)
        return
    if found != expected:
        odd = sorted(set(found.items()) ^ set(expected.items()), key=lambda item: item[0])
        yield f"its members are not those that its rows name, for one {odd[0][0]}"


def _check_conservation(work: Work) -> Iterator[Problem]:
    """Check that each stage has one row for each planned post, and no family straddles splits."""
    split_of: dict[int, str] = {}
    for name in planned_shards(work.plan_path):
        ids = read_planned(work.plan_path, name)["post_id"]
        for directory, schema in ((work.raw_dir, RAW), (work.samples_dir, SAMPLES)):
            path = rows_path(directory, name)
            if path.is_file() and not read_rows(path, schema, ["post_id"])["post_id"].equals(ids):
                yield Problem(path, "its posts are not the planned ones")
        path = rows_path(work.samples_dir, name)
        if path.is_file():
            yield from _straddling(path, split_of)
    planned = set(planned_shards(work.plan_path))
    for directory in (work.raw_dir, work.samples_dir):
        for name in sorted(set(list_shards(directory)) - planned):
            yield Problem(rows_path(directory, name), "no such shard is planned")


def _straddling(path: Path, split_of: dict[int, str]) -> Iterator[Problem]:
    table = read_rows(path, SAMPLES, ["family", "split", "status"])
    kept = table.filter(pc.equal(table["status"].cast(pa.string()), Status.KEPT))
    for family, split in zip(kept["family"].to_pylist(), kept["split"].to_pylist(), strict=True):
        if split_of.setdefault(family, split) != split:
            yield Problem(path, f"family {family} lies in {split} and in {split_of[family]}")
