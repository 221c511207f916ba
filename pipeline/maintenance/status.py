"""status: what became of every record and post of a work folder, and what getting them took.

It takes each shard's own word for it, out of the commit record: that of 10,000 shards is read in a
second or two, and their rows in ten times as much.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from pipeline.counts import Fates, count_retryable
from pipeline.errors import DamagedError
from pipeline.planning.plan import planned_shards
from pipeline.planning.plan_check import read_about
from pipeline.schema import LEDGER, RAW, SAMPLES
from pipeline.shards.rows import peek_info, read_fates, read_rows
from pipeline.shards.shard import list_shards, rows_path, tar_path
from pipeline.stages.ledger import FetchTotals, sum_ledger
from pipeline.work import Work

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One stage's shards and fates.

    Attributes:
        num_shards: shards that are committed.
        num_bytes: of their tars.
        fates: posts by ``str(Fate)``.
        num_expected: posts that went in, of the shards that are committed.
    """

    num_shards: int
    num_bytes: int
    fates: Fates
    num_expected: int

    @property
    def adds_up(self) -> bool:
        """Whether every post that went in came out with a fate."""
        return self.fates.total() == self.num_expected


@dataclass(frozen=True, slots=True)
class WorkStatus:
    """What became of every record and post of a work folder.

    Attributes:
        select: the selection's counts by fate, ``planned`` among them; num_records is their sum.
        num_records: records that the metadata held.
        num_shards: shards that are planned.
        stages: by name, ``fetch`` and ``prepare``.
        asked: what ``fetch`` took.
    """

    select: dict[str, int]
    num_records: int
    num_shards: int
    stages: dict[str, StageStatus]
    asked: FetchTotals

    @property
    def adds_up(self) -> bool:
        """Whether the selection and every stage conserve what went in."""
        selected = sum(self.select.values()) == self.num_records
        return selected and all(stage.adds_up for stage in self.stages.values())


def read_status(work: Work) -> WorkStatus:
    """Read what became of every post so far, from footers and a few columns.

    Raises:
        UserError: where the folder holds no plan, or a damaged shard.
    """
    planned = planned_shards(work.plan_path)
    info = read_about(work.plan_path)
    stages = {
        "fetch": _read_stage(work.raw_dir, RAW, planned, work.store),
        "prepare": _read_stage(work.samples_dir, SAMPLES, planned, work.store),
    }
    asked = _read_ledger(work.ledger_dir, planned)
    return WorkStatus(info["counts"], info["num_records"], len(planned), stages, asked)


def _read_stage(
    directory: Path, schema: pa.Schema, planned: dict[str, int], store: str
) -> StageStatus:
    names = [name for name in list_shards(directory) if name in planned]
    fates: Fates = Counter()
    num_bytes = 0
    for name in names:
        path = rows_path(directory, name)
        told = _told(path, "fates", dict[str, int])
        fates.update(told if told is not None else read_fates(path, schema))
        if store:  # which has the tars
            num_bytes += _told(path, "tar_size", int) or 0
            continue
        try:
            num_bytes += tar_path(directory, name).stat().st_size
        except OSError as error:
            raise DamagedError(
                f"{error.filename}: missing; its rows are there, and `verify` says what mends it."
            ) from error
    num_expected = sum(planned[name] for name in names)
    return StageStatus(len(names), num_bytes, fates, num_expected)


def _read_ledger(directory: Path, planned: dict[str, int]) -> FetchTotals:
    asked = FetchTotals()
    for name in list_shards(directory):
        if name in planned:
            path = rows_path(directory, name)
            told = _told(path, "asked", FetchTotals)
            asked.add(told if told is not None else sum_ledger(read_rows(path, LEDGER)))
    return asked


def _told(path: Path, key: str, kind: type[T]) -> T | None:
    """Return what a file's commit record says its rows come to; `verify` checks that they do.

    Rows that were written by an earlier version have nothing of the kind.
    """
    try:
        told = peek_info(path).get(key)
        return msgspec.convert(told, kind) if told is not None else None
    except msgspec.ValidationError as error:
        raise DamagedError(f"{path}: damaged; its {key}: {error}.") from error


def status_table(status: WorkStatus) -> dict[str, Any]:
    """Return a status as plain values, for JSON."""
    asked = status.asked
    return {
        "select": {"num_records": status.num_records, "fates": status.select},
        "num_shards_planned": status.num_shards,
        **{
            name: {
                "num_shards": stage.num_shards,
                "num_bytes": stage.num_bytes,
                "num_posts": stage.num_expected,
                "num_retryable": count_retryable(stage.fates),
                "fates": dict(sorted(stage.fates.items())),
            }
            for name, stage in status.stages.items()
        },
        "ledger": asdict(asked)
        | {
            "seconds": round(asked.seconds, 3),
            "http_statuses": dict(sorted(asked.http_statuses.items())),
        },
        "adds_up": status.adds_up,
    }
