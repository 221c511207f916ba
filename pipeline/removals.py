"""Posts that were taken down: which they are, and what is left of one in every table.

Nothing but its id, its place in the plan and its fate: no tags, no hashes, no bytes. The list of
them outlives plans, so that no later ``fetch`` brings one back.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.disk import write_whole
from pipeline.errors import DamagedError
from pipeline.records import Fate, Status
from pipeline.schema import among
from pipeline.settings import to_table

TAKEN_DOWN = Fate(Status.REMOVED, "takedown")

_PostId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]

_LEFT = ("post_id", "split", "family", "shard", "rating")


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a takedown that was cut short has to know to end as if it had not been.

    Attributes:
        shards: all that the posts are in.
        raw: those of originals that were up to date when it began.
        samples: likewise, of samples.
        content: hash of the plan's posts as it leaves them, "" where no store needs to know it.
    """

    shards: tuple[str, ...]
    raw: tuple[str, ...]
    samples: tuple[str, ...]
    content: str = ""


@dataclass(frozen=True, slots=True)
class Removals:
    """The posts of a work folder that were taken down, ever.

    Attributes:
        post_ids: sorted.
        unfinished: None where all of it is done.
    """

    post_ids: tuple[_PostId, ...] = ()
    unfinished: Unfinished | None = None


def read_removals(path: Path) -> Removals:
    """Return what was taken down, by a work folder's list; where there is none, nothing.

    Raises:
        DamagedError: where the list does not read.
    """
    return decode_removals(path.read_bytes(), str(path)) if path.is_file() else Removals()


def decode_removals(data: bytes, where: str) -> Removals:
    """Return what a list says.

    Raises:
        DamagedError: where it does not read.
    """
    try:
        return msgspec.json.decode(data, type=Removals)
    except (ValueError, RecursionError) as error:
        raise DamagedError(
            f"{where}: damaged: {error}. Remove it, and run `takedown` with the ids of all posts "
            "that were ever taken down here."
        ) from error


def write_removals(path: Path, removals: Removals) -> None:
    """Write the list, as a whole or not at all."""
    write_whole(path, orjson.dumps(to_table(removals), option=orjson.OPT_INDENT_2))


def clear_posts(table: pa.Table, post_ids: Collection[int]) -> pa.Table:
    """Return a table of posts in which nothing is left of some but what ``removals`` keeps.

    Args:
        table: of ``SELECTION``, ``RAW``, ``SAMPLES`` or ``LEDGER``; its order stays.
        post_ids: those that are not in the table do not matter.
    """
    places = np.flatnonzero(among(table, post_ids).to_numpy())
    if not len(places):
        return table
    rows = [_clear(row, table.schema) for row in table.take(pa.array(places)).to_pylist()]
    cleared = pa.Table.from_pylist(rows, schema=table.schema)
    order = np.arange(len(table))
    order[places] = len(table) + np.arange(len(places))
    return pa.concat_tables([table, cleared]).unify_dictionaries().take(pa.array(order))


def count_cleared(table: pa.Table) -> int:
    """Return how many posts of a table are taken down."""
    return int(pc.sum(pc.equal(table["status"], Status.REMOVED)).as_py() or 0)


def count_removed(counts: dict[str, int], num_removed: int) -> dict[str, int]:
    """Return a selection's counts with so many of the planned posts taken down."""
    if not num_removed:
        return counts
    num_planned = counts.get(Status.PLANNED, 0) - num_removed
    before = counts.get(str(TAKEN_DOWN), 0)
    return counts | {str(Status.PLANNED): num_planned, str(TAKEN_DOWN): before + num_removed}


def _clear(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    cleared: dict[str, Any] = TAKEN_DOWN.columns
    for field in schema:
        if field.name in _LEFT:
            cleared[field.name] = row[field.name]
        elif field.name not in cleared and not field.nullable:
            is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            cleared[field.name] = 0 if is_number else ""
    return cleared
