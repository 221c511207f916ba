"""report, part 1: what became of every record and post, exactly, from five columns of all shards.

The table of fates is the one table over the whole data set that a report holds: 24 bytes a post.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.counts import fates_of
from pipeline.errors import UserError
from pipeline.maintenance.status import WorkStatus
from pipeline.planning.plan import hash_families
from pipeline.records import OF_PREPARE, Status, split_tags
from pipeline.schema import RAW, SAMPLES, SPLITS, among
from pipeline.shards.rows import read_rows
from pipeline.shards.shard import parse_shard_name, rows_path
from pipeline.words import noun
from pipeline.work import Work

ALIVE = (str(Status.FETCHED), str(Status.KEPT))
"""The fates of posts that are samples, or may become some."""

_TONES = {"planned": "in", "fetched": "in", "kept": "in", "waiting": "wait", "failed": "warn"}

_WORD = pa.dictionary(pa.int8(), pa.string())
_FATE_TABLE = pa.schema(
    [
        pa.field("post_id", pa.int64()),
        pa.field("family", pa.int64()),
        pa.field("split", _WORD),
        pa.field("fate", _WORD),
        pa.field("shard", pa.int32()),  # index into FateTable.names
    ]
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a chart: a label, a count, its share of a whole (0 to 1), and how it looks."""

    label: str
    count: int
    share: float
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the funnel: what went in, and what became of it."""

    name: str
    what: str  # went in
    num_in: int
    bars: list[Bar]

    @property
    def num_out(self) -> int:
        """Posts that are accounted for."""
        return sum(bar.count for bar in self.bars)

    @property
    def adds_up(self) -> bool:
        """Whether all that went in is accounted for."""
        return self.num_in == self.num_out


@dataclass(frozen=True, slots=True)
class SplitCount:
    """One split: its posts that are still in, their families, and the largest of these."""

    name: str
    num_posts: int
    num_families: int
    largest_family: int


@dataclass(frozen=True, slots=True)
class Place:
    """A post and the shard that holds its row."""

    post_id: int
    shard: str


@dataclass(frozen=True, slots=True)
class FateTable:
    """What became of each post so far, by the last stage that has met its shard.

    Attributes:
        names: the shards that have rows.
        table: ``post_id, family, split, fate, shard`` of all their posts.
    """

    names: list[str]
    table: pa.Table

    def count(self, fate: str) -> int:
        """Return how many posts have a fate."""
        return int(pc.sum(pc.equal(self.table["fate"], fate)).as_py() or 0)

    def fates(self) -> list[str]:
        """Return the fates that occur, sorted."""
        return sorted(self.table["fate"].cast(pa.string()).unique().to_pylist())

    def alive(self) -> pa.Table:
        """Return the part of the table that is, or may become, samples."""
        return self.table.filter(pc.is_in(self.table["fate"], value_set=pa.array(ALIVE)))

    def choose(self, fate: str, num: int, split: str | None = None) -> list[Place]:
        """Return up to ``num`` posts with a fate: those whose ids hash lowest, in that order.

        The choice looks at nothing but ids, so it is no one's favourites, and the same every time.
        """
        mask = pc.equal(self.table["fate"], fate)
        if split is not None:
            mask = pc.and_(mask, pc.equal(self.table["split"], split))
        return self._lowest(mask, num)

    def find(self, post_ids: list[int]) -> list[Place]:
        """Return where some posts are, lowest hash first."""
        return self._lowest(among(self.table, post_ids), len(post_ids))

    def _lowest(self, mask: pa.ChunkedArray, num: int) -> list[Place]:
        some = self.table.select(["post_id", "shard"]).filter(mask)
        ids, shards = some["post_id"].to_numpy(), some["shard"].to_numpy()
        order = np.argsort(hash_families(ids, seed=0), kind="stable")[:num]
        return [Place(int(ids[i]), self.names[shards[i]]) for i in order]


def latest_rows(work: Work, name: str) -> tuple[Path, pa.Schema] | None:
    """Return where the last stage that has met a shard put its rows, with their schema."""
    for directory, schema in ((work.samples_dir, SAMPLES), (work.raw_dir, RAW)):
        if (path := rows_path(directory, name)).is_file():
            return path, schema
    return None


def taken_away(work: Work, name: str) -> UserError:
    """Return what to say of a shard whose rows were there before."""
    return UserError(
        f"{work.root}: {name} was there a moment ago, so another run is using this folder; "
        "wait until it has ended."
    )


def read_alive(work: Work, name: str, columns: list[str]) -> pa.Table:
    """Read columns, ``status`` among them, of those posts of a shard with rows that are still in.

    Columns that its last stage does not write are left out.

    Raises:
        UserError: where it has none any more: nobody is kept from working in the folder meanwhile.
    """
    latest = latest_rows(work, name)
    if latest is None:
        raise taken_away(work, name)
    path, schema = latest
    table = read_rows(path, schema, [column for column in columns if column in schema.names])
    return table.filter(pc.is_in(table["status"], value_set=pa.array(ALIVE)))


def read_fate_table(work: Work, names: list[str]) -> FateTable:
    """Read what became of the posts of the shards ``names``; those without rows are left out.

    Raises:
        DamagedError: where rows do not read.
    """
    found = {name: latest for name in names if (latest := latest_rows(work, name)) is not None}
    tables = [_read_fates(*latest, index) for index, latest in enumerate(found.values())]
    table = pa.concat_tables([_FATE_TABLE.empty_table(), *tables]).unify_dictionaries()
    return FateTable(list(found), table.combine_chunks())


def _read_fates(path: Path, schema: pa.Schema, index: int) -> pa.Table:
    table = read_rows(path, schema, ["post_id", "family", "split", "status", "reason"])
    fate = fates_of(table).dictionary_encode().cast(_WORD)
    shard = pa.array(np.full(len(table), index, np.int32))
    return pa.table(
        [table["post_id"], table["family"], table["split"], fate, shard], schema=_FATE_TABLE
    )


def build_funnel(status: WorkStatus, planned: dict[str, int], fate_table: FateTable) -> list[Stage]:
    """Return the steps from records to splits; those of which nothing is there are left out.

    What a stage has not met yet is counted as ``waiting``. Where a later stage has not seen what
    an earlier one has changed since, its step does not add up.
    """
    num_planned = sum(planned.values())
    fetched, prepared = status.stages["fetch"], status.stages["prepare"]
    stages = [_stage("select", "record", "read", status.num_records, status.select)]
    if fetched.num_shards:
        waiting = num_planned - fetched.num_expected
        stages.append(_stage("fetch", "post", "planned", num_planned, fetched.fates, waiting))
    if prepared.num_shards:
        if fetched.num_shards:
            what, num_in = ("original", "fetched"), fetched.fates[Status.FETCHED]
            fates = {fate: n for fate, n in prepared.fates.items() if _status(fate) in OF_PREPARE}
            waiting = fate_table.count(Status.FETCHED)
        else:  # samples that came without their originals
            what, num_in, fates = ("post", "planned"), num_planned, prepared.fates
            waiting = num_planned - prepared.num_expected
        stages.append(_stage("prepare", *what, num_in, fates, waiting))
        kept = fate_table.table.filter(pc.equal(fate_table.table["fate"], Status.KEPT))
        found = Counter(
            {v["values"]: v["counts"] for v in kept["split"].value_counts().to_pylist()}
        )
        num_kept = prepared.fates[Status.KEPT]
        bars = [Bar(s, found[s], found[s] / max(num_kept, 1), "in") for s in SPLITS]
        stages.append(Stage("split", f"{noun(num_kept, 'sample')} kept", num_kept, bars))
    return stages


def _stage(
    name: str, one: str, done: str, num_in: int, fates: dict[str, int], waiting: int = 0
) -> Stage:
    counts = {**fates, "waiting": waiting} if waiting else fates
    bars = [
        Bar(fate, count, count / max(num_in, 1), _TONES.get(_status(fate), "out"))
        for fate, count in counts.items()
    ]
    bars.sort(key=lambda bar: (bar.tone != "in", -bar.count, bar.label))
    return Stage(name, f"{noun(num_in, one)} {done}", num_in, bars)


def _status(fate: str) -> str:
    return fate.partition("/")[0]


def count_splits(fate_table: FateTable) -> tuple[list[SplitCount], list[int]]:
    """Return each split's posts and families, and the families that lie in more than one split."""
    alive = fate_table.alive()
    counts, families = [], []
    for split in SPLITS:
        members = alive["family"].filter(pc.equal(alive["split"], split)).to_numpy()
        unique, sizes = np.unique(members, return_counts=True)
        families.append(unique)
        counts.append(SplitCount(split, len(members), len(unique), int(sizes.max(initial=0))))
    found, times = np.unique(np.concatenate(families), return_counts=True)
    return counts, found[times > 1].tolist()


def find_straddling_characters(work: Work, fate_table: FateTable) -> list[str]:
    """Return the characters whose posts, of those still in, lie in more than one split."""
    found = defaultdict[str, set[str]](set)
    for name in fate_table.names:
        split, _ = parse_shard_name(name)
        posts = read_alive(work, name, ["status", "character"])
        for names in posts["character"].unique().to_pylist():
            for character in split_tags(names):
                found[character].add(split)
    return sorted(character for character, splits in found.items() if len(splits) > 1)
