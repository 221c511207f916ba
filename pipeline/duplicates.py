"""Duplicates over the whole selection: the later of two posts that show the same picture.

Two pictures are the same when their perceptual hashes differ in a few bits and their 8 x 8
thumbnails agree in colour; the hash alone sees no colours, and would drop every recoloured child.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.plan import find_families
from pipeline.rows import read_rows
from pipeline.schema import RAW
from pipeline.shard import rows_path

HASH_BITS = 64
MAX_THUMBNAIL_DIFFERENCE = 4.0
"""Mean absolute difference, in levels of 256. On 4,056 real pictures re-encoded ones stayed under
2, and different ones (another drawing of one character in one pose) began at 5."""

_MAX_LEADS = 256  # pictures of one hash that are told apart; bounds the work on hostile input

Hashes = NDArray[np.uint64]

SCHEMA = pa.schema(
    [
        pa.field("post_id", pa.int64()),
        pa.field("duplicate_of", pa.int64()),
        pa.field("reason", pa.string()),
    ]
)


def find_duplicates(raw_dir: Path, names: Sequence[str], max_bits: int, min_side: int) -> pa.Table:
    """Find the posts of some raw shards that repeat an earlier one (a lower post id).

    Only pictures that will be kept count: one under ``min_side`` never hides a larger copy of
    itself. Where duplicates tie families together that are planned for different splits, those
    not in the split of the earliest are left out as well (``family``): no family straddles two
    splits.

    Args:
        raw_dir: folder of committed raw shards.
        names: the shards to compare, all with all.
        max_bits: bits in which two hashes may differ; negative finds nothing.
        min_side: least width and height, in pixels, of what takes part.

    Returns:
        ``post_id, duplicate_of, reason``, sorted by post id.
    """
    if max_bits < 0 or not names:
        return SCHEMA.empty_table()
    columns = ["post_id", "family", "split", "perceptual_hash", "pixel_hash"]
    sides = ["content_width", "content_height"]
    tables = [read_rows(rows_path(raw_dir, name), RAW, [*columns, *sides]) for name in names]
    posts = pa.concat_tables(tables).unify_dictionaries()
    large = pc.and_(*(pc.greater_equal(posts[side], min_side) for side in sides))
    large = pc.and_(large, pc.is_valid(posts["perceptual_hash"]))
    seen = posts.filter(pc.fill_null(large, False)).sort_by("post_id")
    hashes = seen["perceptual_hash"].to_numpy()
    near = neighbours(hashes, max_bits)
    suspects = np.flatnonzero(np.isin(hashes, list(near)))
    thumbnails = _read_thumbnails(raw_dir, names, seen["post_id"].take(suspects))
    found: dict[int, tuple[int, str]] = {}
    leads: dict[int, list[int]] = defaultdict(list)
    ids, pixels = seen["post_id"].to_pylist(), seen["pixel_hash"].to_pylist()
    for index in suspects.tolist():
        post, own = ids[index], int(hashes[index])
        lead = _find_lead(thumbnails, post, [i for h in near[own] for i in leads.get(h, ())], ids)
        if lead is None:
            if len(leads[own]) < _MAX_LEADS:
                leads[own].append(index)
        else:
            same = pixels[lead] == pixels[index]
            found[post] = (ids[lead], "same_pixels" if same else "near")
    found |= _straddlers(posts, found)
    rows = [(post, *found[post]) for post in sorted(found)]
    return pa.Table.from_pylist(
        [dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA
    )


def neighbours(hashes: Hashes, max_bits: int) -> dict[int, list[int]]:
    """Return, for each hash with company, the hashes within ``max_bits`` of it, itself included.

    A hash has company when it occurs twice or another one is near. Never quadratic: 64 bits in
    ``max_bits + 2`` blocks leave at least two blocks equal, so only hashes that agree in some two
    blocks are compared.
    """
    unique, counts = np.unique(hashes, return_counts=True)
    near: dict[int, set[int]] = {int(h): {int(h)} for h in unique[counts > 1]}
    for a, b in _near_pairs(unique, max_bits):
        for one, other in zip(a.tolist(), b.tolist(), strict=True):
            near.setdefault(one, {one}).add(other)
            near.setdefault(other, {other}).add(one)
    return {h: sorted(others) for h, others in near.items()}


def _near_pairs(unique: Hashes, max_bits: int) -> Iterator[tuple[Hashes, Hashes]]:
    if max_bits == 0:
        return
    edges = np.linspace(0, HASH_BITS, max_bits + 3).round().astype(int)
    masks = [sum(1 << bit for bit in range(a, b)) for a, b in pairwise(edges.tolist())]
    for first, second in combinations(masks, 2):
        keys = unique & np.uint64(first | second)
        order = np.argsort(keys, kind="stable")
        ordered, keys = unique[order], keys[order]
        step = 1
        rows = np.flatnonzero(keys[step:] == keys[:-step])
        while len(rows):
            a, b = ordered[rows], ordered[rows + step]
            close = np.bitwise_count(a ^ b) <= max_bits
            yield a[close], b[close]
            step += 1
            rows = rows[rows + step < len(keys)]
            rows = rows[keys[rows] == keys[rows + step]]


def _read_thumbnails(
    raw_dir: Path, names: Sequence[str], wanted: pa.ChunkedArray
) -> dict[int, NDArray[np.int16]]:
    thumbnails: dict[int, NDArray[np.int16]] = {}
    if not len(wanted):
        return thumbnails
    for name in names:
        table = read_rows(rows_path(raw_dir, name), RAW, ["post_id", "thumbnail"])
        table = table.filter(pc.is_in(table["post_id"], value_set=wanted))
        for post, data in zip(*(column.to_pylist() for column in table.columns), strict=True):
            thumbnails[post] = np.frombuffer(data, np.uint8).astype(np.int16)
    return thumbnails


def _find_lead(
    thumbnails: dict[int, NDArray[np.int16]], post: int, candidates: list[int], ids: list[int]
) -> int | None:
    """Return the earliest candidate that looks like ``post``, or None."""
    if not candidates:
        return None
    candidates = sorted(candidates)
    stack = np.stack([thumbnails[ids[index]] for index in candidates])
    difference = np.abs(stack - thumbnails[post]).mean(axis=1)
    matches = np.flatnonzero(difference <= MAX_THUMBNAIL_DIFFERENCE)
    return candidates[matches[0]] if len(matches) else None


def _straddlers(posts: pa.Table, found: dict[int, tuple[int, str]]) -> dict[int, tuple[int, str]]:
    """Return the posts of families that duplicates tie to an earlier one of another split.

    Ties go on: where a relative of a duplicate has duplicates of its own, those belong to it.
    """
    involved = set(found) | {lead for lead, _ in found.values()}
    mask = pc.is_in(posts["post_id"], value_set=pa.array(sorted(involved), pa.int64()))
    some = posts.filter(mask)
    family = dict(zip(some["post_id"].to_pylist(), some["family"].to_pylist(), strict=True))
    split = dict(zip(some["post_id"].to_pylist(), some["split"].to_pylist(), strict=True))
    pairs = sorted((lead, post) for post, (lead, _) in found.items())
    ties = np.array([(family[post], family[lead]) for lead, post in pairs], np.int64).reshape(-1, 2)
    earliest: dict[int, int] = {}
    moved: dict[int, int] = {}
    for (lead, post), tied in zip(pairs, find_families(*ties.T).tolist(), strict=True):
        first = earliest.setdefault(tied, lead)
        moved |= {family[p]: first for p in (lead, post) if split[p] != split[first]}
    members = posts.filter(pc.is_in(posts["family"], value_set=pa.array(list(moved), pa.int64())))
    relatives = zip(members["post_id"].to_pylist(), members["family"].to_pylist(), strict=True)
    return {post: (moved[group], "family") for post, group in relatives if post not in found}
