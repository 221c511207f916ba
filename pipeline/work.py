"""The work folder: where everything lies, one run at a time, and what became of every post."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import UserError
from pipeline.executor import Fates
from pipeline.fetch import count_fates
from pipeline.plan import planned_shards
from pipeline.rows import is_out_of_space, read_info, read_rows, sweep_temporaries
from pipeline.schema import RAW, SAMPLES
from pipeline.shard import list_shards, recover, rows_path, tar_path


@dataclass(frozen=True, slots=True)
class Work:
    """A work folder's places."""

    root: Path

    @property
    def plan_path(self) -> Path:
        """Every wanted post, with its split and shard."""
        return self.root / "selection.parquet"

    @property
    def listing_dir(self) -> Path:
        """Pages of an API that the selection was made from, a folder for each query."""
        return self.root / "listing"

    @property
    def raw_dir(self) -> Path:
        """Shards of originals."""
        return self.root / "raw"

    @property
    def reuse_dir(self) -> Path:
        """Earlier plans, each with its shards of originals, until the new one has used them."""
        return self.root / "raw.old"

    @property
    def ledger_dir(self) -> Path:
        """How each original came."""
        return self.root / "ledger"

    @property
    def samples_dir(self) -> Path:
        """Shards of samples."""
        return self.root / "samples"

    @property
    def runs_dir(self) -> Path:
        """Training runs."""
        return self.root / "runs"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run, and finish or clear what an interrupted one left half-done.

        Raises:
            UserError: where another run holds it, it cannot be written, or it has no room left.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            held = FileLock(self.root / ".lock", blocking=False).acquire()
        except Timeout as error:
            raise UserError(
                f"{self.root}: another run is using this folder; wait until it has ended."
            ) from error
        except OSError as error:
            raise UserError(f"{self.root}: cannot be written: {error.strerror}.") from error
        with held, self._room():
            self._recover()
            try:
                yield
            finally:
                self._recover()

    def _recover(self) -> None:
        for directory in (self.root, self.ledger_dir, *self.listing_dir.glob("*")):
            sweep_temporaries(directory)
        for directory in (self.raw_dir, self.samples_dir):
            recover(directory)

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not is_out_of_space(error):
                raise
            raise UserError(
                f"{self.root}: {os.strerror(error.errno or 0).lower()}; make room there and run "
                "the same command again."
            ) from error


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
    """

    select: dict[str, int]
    num_records: int
    num_shards: int
    stages: dict[str, StageStatus]

    @property
    def adds_up(self) -> bool:
        """Whether the selection and every stage conserve what went in."""
        selected = sum(self.select.values()) == self.num_records
        return selected and all(stage.adds_up for stage in self.stages.values())


def read_status(work: Work) -> WorkStatus:
    """Read what became of every post so far, from footers and two columns.

    Raises:
        UserError: where the folder holds no plan, or a damaged shard.
    """
    planned = planned_shards(work.plan_path)
    info = read_info(work.plan_path)
    stages = {}
    for stage, directory, schema in (
        ("fetch", work.raw_dir, RAW),
        ("prepare", work.samples_dir, SAMPLES),
    ):
        names = [name for name in list_shards(directory) if name in planned]
        fates: Fates = Counter()
        for name in names:
            fates += count_fates(
                read_rows(rows_path(directory, name), schema, ["status", "reason"])
            )
        num_bytes = sum(tar_path(directory, name).stat().st_size for name in names)
        num_expected = sum(planned[name] for name in names)
        stages[stage] = StageStatus(len(names), num_bytes, fates, num_expected)
    return WorkStatus(info["counts"], info["num_records"], len(planned), stages)


def status_table(status: WorkStatus) -> dict[str, Any]:
    """Return a status as plain values, for JSON."""
    return {
        "select": {"num_records": status.num_records, "fates": status.select},
        "num_shards_planned": status.num_shards,
        **{
            name: {
                "num_shards": stage.num_shards,
                "num_bytes": stage.num_bytes,
                "num_posts": stage.num_expected,
                "fates": dict(sorted(stage.fates.items())),
            }
            for name, stage in status.stages.items()
        },
        "adds_up": status.adds_up,
    }
