"""The plan: a split and a shard for every wanted post, from a hash of its family.

A family is a post with its parents and children. It is never divided, and since the hash looks at
nothing but the family and the recipe's seed, posts that come later move no earlier one to another
split. One exception: a later post may tie a family to a lower id (a parent's record that names a
parent of its own), and that family may move, as a whole. Shards follow from the same hash, so each
one is a random sample of its split. On request families are widened to characters, so that no
character is in two splits; then a later post can tie two characters together, and move one of them.
"""

import hashlib
import mmap
import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.disk import check_place, reason, telling_out_of_space
from pipeline.errors import DamagedError, UserError
from pipeline.planning.families import find_families, join_characters
from pipeline.planning.plan_check import check_planned, read_about
from pipeline.recipe import Recipe, SplitSettings
from pipeline.records import Post, Status
from pipeline.schema import SELECTION, SPLITS, build_table, is_table_of
from pipeline.settings import convert
from pipeline.shards.pages import check_pages
from pipeline.shards.rows import read_info, write_rows
from pipeline.shards.shard import parse_shard_name, shard_name

_CHUNK = 20_000  # posts that are Python objects at a time
_SLICE = 2**16  # posts of a plan in memory at a time while it is sorted: 30 MB, three times over


def hash_families(families: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each family: splitmix64 of the id and the seed."""
    with np.errstate(over="ignore"):
        h = families.astype(np.uint64) + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h ^= h >> np.uint64(31)
    return np.asarray((h >> np.uint64(11)) * 2.0**-53)


def assign_shards(
    groups: NDArray[np.int64], settings: SplitSettings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return split (index into ``schema.SPLITS``) and shard number of each post.

    The number of shards of a split is a power of two, so that a data set which grows divides its
    shards instead of dealing all posts anew.
    """
    position = hash_families(groups, settings.seed)
    shares = np.array([settings.train, settings.val, settings.test])
    edges = np.concatenate([[0.0], np.cumsum(shares / shares.sum())])
    split = np.minimum(np.searchsorted(edges, position, side="right") - 1, len(SPLITS) - 1)
    within = (position - edges[split]) / np.maximum(np.diff(edges)[split], 1e-300)
    counts = np.bincount(split, minlength=len(SPLITS))
    num_shards = np.array([_num_shards(int(n), settings.shard_size) for n in counts])
    shard = np.floor(within * num_shards[split]).astype(np.int64)
    return split, np.clip(shard, 0, num_shards[split] - 1)


def _num_shards(num_posts: int, shard_size: int) -> int:
    return 1 << ((max(1, num_posts) - 1) // shard_size).bit_length()


def plan_posts(posts: Iterable[Post], settings: SplitSettings) -> pa.Table:
    """Return the plan of all posts, sorted by split, shard and id.

    Its bytes lie in a file without a name, in the folder for temporary files (TMPDIR), until they
    are looked at: in memory are some of the posts at a time, and a few numbers of each.

    Returns:
        A table of ``schema.SELECTION``.

    Raises:
        UserError: where that folder has no room left.
    """
    table = _keep_on_disk(_build_tables(posts)).unify_dictionaries()
    families = find_families(table["post_id"].to_numpy(), table["parent_id"].to_numpy())
    groups = families
    if settings.by == "character":
        groups = join_characters(families, table["character"].to_pylist())
    split, shard = assign_shards(groups, settings)
    order = np.lexsort((table["post_id"].to_numpy(), shard, split))
    planned = {
        "split": pa.DictionaryArray.from_arrays(split.astype(np.int8), list(SPLITS)),
        "family": pa.array(families),
        "shard": pa.array(shard, pa.int32()),
    }
    for name, column in planned.items():
        index = SELECTION.get_field_index(name)
        table = table.set_column(index, SELECTION.field(index), column)
    return _keep_on_disk(
        _take(table, order[start : start + _SLICE])
        for start in range(0, max(1, len(order)), _SLICE)
    )


def _build_tables(posts: Iterable[Post]) -> Iterator[pa.Table]:
    rows = map(_row_of, posts)
    yield build_table(list(islice(rows, _CHUNK)), SELECTION)  # a table even without posts
    while some := list(islice(rows, _CHUNK)):
        yield build_table(some, SELECTION)


def _keep_on_disk(tables: Iterable[pa.Table]) -> pa.Table:
    """Write tables to a nameless file; return them as one, which is read from there when needed."""
    remedy = "make room for the plan there, or let TMPDIR name another folder."
    with (
        telling_out_of_space(Path(tempfile.gettempdir()), remedy),
        tempfile.TemporaryFile() as file,
    ):
        writer = None
        for table in tables:
            writer = writer or pa.ipc.new_stream(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()


def _take(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return some rows of a table of many chunks, in their order.

    ``Table.take`` copies whole columns first, which takes memory and fails on 2 GB of text.
    """
    batches = table.to_batches()
    starts = np.cumsum([0, *map(len, batches)])
    chunks = np.searchsorted(starts, rows, side="right") - 1
    places = np.argsort(chunks, kind="stable")
    edges = np.searchsorted(chunks[places], np.arange(len(batches) + 1))
    parts = [
        batch.take(pa.array(rows[places[a:b]] - start))
        for batch, start, (a, b) in zip(batches, starts, pairwise(edges), strict=False)
        if a < b
    ]
    return pa.Table.from_batches(parts, table.schema).take(pa.array(np.argsort(places)))


def _row_of(post: Post) -> dict[str, Any]:
    return {
        "post_id": post.id,
        "split": SPLITS[0],
        "status": Status.PLANNED,
        "reason": "",
        "md5": post.md5,
        "character": " ".join(post.characters),
        "family": 0,
        "rating": post.rating,
        "ext": post.ext,
        "width": post.width,
        "height": post.height,
        "parent_id": post.parent_id,
        "tags": " ".join(sorted(post.tags)),
        "file_url": post.file_url,
        "shard": 0,
    }


def write_plan(path: Path, table: pa.Table, info: dict[str, Any]) -> None:
    """Write ``selection.parquet``: a row group a shard, so that a worker reads only its own.

    The bytes depend on the table's values, not on how its dictionaries number them.
    """
    groups = {name: _renumber(posts) for name, posts in by_shard(table)}
    sizes = {name: len(group) for name, group in groups.items()}
    info = {**info, "shards": list(sizes.items())}
    write_rows(path, groups.values(), info)


def by_shard(posts: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield the posts of each shard with its name; they lie side by side, in a plan or a lock.

    There is one post at least.
    """
    splits = posts["split"].unify_dictionaries().combine_chunks()
    codes, shards = splits.indices.to_numpy(), posts["shard"].to_numpy()
    changes = (np.diff(codes) != 0) | (np.diff(shards) != 0)
    for start, stop in pairwise([0, *(np.flatnonzero(changes) + 1).tolist(), len(posts)]):
        name = shard_name(splits[start].as_py(), int(shards[start]))
        yield name, posts.slice(start, stop - start)


def _renumber(table: pa.Table) -> pa.Table:
    """Number a table's words in the order in which they come."""
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            words = table[index].cast(pa.string()).combine_chunks().dictionary_encode()
            table = table.set_column(index, field, words.cast(field.type))
    return table


def planned_shards(path: Path) -> dict[str, int]:
    """Return the planned shards' names and numbers of posts, in the plan's order.

    Raises:
        UserError: where there is no plan yet.
        DamagedError: where it plans shards that it does not hold, or under other names.
    """
    check_place(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; `fetch` makes it. Is that the work folder?")
    footer, numbers = _read_footer(path, *_version_of(path))
    return {name: footer.row_group(number).num_rows for name, number in numbers.items()}


def planned_recipe(path: Path) -> Recipe:
    """Return the effective recipe that a work folder's plan records."""
    return convert(read_about(path)["recipe"], Recipe, str(path))


def read_planned(path: Path, name: str) -> pa.Table:
    """Return the planned posts of one shard, sorted by id.

    Raises:
        UserError: where the plan has no such shard.
        DamagedError: where it cannot be read, or says what the program would never have planned.
    """
    footer, numbers = _read_footer(path, *_version_of(path))
    if name not in numbers:
        raise UserError(f"{path}: plans no shard {name}.")
    try:
        with pq.ParquetFile(path, metadata=footer) as file:
            if not is_table_of(file.schema_arrow, SELECTION):
                raise DamagedError(f"{path}: its columns are not those of a plan.")
            check_pages(path, footer, [numbers[name]])
            posts = file.read_row_group(numbers[name]).replace_schema_metadata(None)
        posts.validate(full=True)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DamagedError(f"{path}: cannot be read: {reason(error)}.") from error
    check_planned(path, name, posts)
    return posts


def read_plan(path: Path) -> pa.Table:
    """Return all planned posts, in the plan's order; raises as ``read_planned``."""
    groups = [read_planned(path, name) for name in planned_shards(path)]
    return pa.concat_tables(groups).unify_dictionaries()


def _version_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4)
def _read_footer(path: Path, *version: int) -> tuple[pq.FileMetaData, dict[str, int]]:
    """Return a plan's footer, with the row group of each shard; read once, however many there are.

    The file's version is there to tell plans apart.
    """
    info = read_info(path)
    try:
        shards = msgspec.convert(info.get("shards"), list[tuple[str, int]])
        for name, _ in shards:
            parse_shard_name(name)
    except (msgspec.ValidationError, UserError) as error:
        raise DamagedError(f"{path}: damaged; it does not say which shards it plans.") from error
    footer = pq.read_metadata(path)
    numbers = {name: number for number, (name, _) in enumerate(shards)}
    sizes = (footer.row_group(number).num_rows for number in range(footer.num_row_groups))
    if len(numbers) != len(shards) or [size for _, size in shards] != list(filter(None, sizes)):
        raise DamagedError(f"{path}: damaged; it does not hold the shards that it plans.")
    return footer, numbers


def hash_table(table: pa.Table) -> str:
    """Return a hash of a table's values, the same on every machine and for every chunking."""
    digest = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=_CHUNK):
        for row in batch.to_pylist():
            digest.update(orjson.dumps(row))
    return digest.hexdigest()
