"""Duplicates over the whole selection: the later of two posts that show the same picture.

Two pictures are the same when their perceptual hashes differ in a few bits and their 8 x 8
thumbnails agree in colour; the hash alone sees no colours, and would drop every recoloured child.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import DamagedError
from pipeline.planning.families import find_families
from pipeline.schema import DUPLICATES, RAW, SCHEMA_VERSION, among
from pipeline.settings import fingerprint_of
from pipeline.shards.rows import check_seal, read_info, read_rows, read_seal, write_rows
from pipeline.shards.shard import rows_path

HASH_BITS = 64
MAX_THUMBNAIL_DIFFERENCE = 4.0
"""Mean absolute difference, in levels of 256. On 4,056 real pictures re-encoded ones stayed under
2, and different ones (another drawing of one character in one pose) began at 5."""

_MAX_LEADS = 256  # pictures of one hash that are told apart; bounds the work on hostile input

Hashes = NDArray[np.uint64]


def recall_duplicates(
    path: Path, raw_dir: Path, names: Sequence[str], max_bits: int, min_side: int
) -> pa.Table:
    """Return what ``find_duplicates`` does, kept at ``path`` for as long as the rows are the same.

    Each rank, and each later run with other settings, needs the same answer.
    """
    seals = {name: read_seal(rows_path(raw_dir, name)) for name in names}
    fingerprint = fingerprint_of(SCHEMA_VERSION, seals, max_bits, min_side)
    with suppress(DamagedError):  # as if it were not there
        check_seal(path)
        if read_info(path).get("fingerprint") == fingerprint:
            return read_rows(path, DUPLICATES)
    found = find_duplicates(raw_dir, names, max_bits, min_side)
    write_rows(path, [found], {"fingerprint": fingerprint})
    return found


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
        return DUPLICATES.empty_table()
    columns = ["post_id", "family", "split", "perceptual_hash", "pixel_hash"]
    sides = ["content_width", "content_height"]
    tables = [read_rows(rows_path(raw_dir, name), RAW, [*columns, *sides]) for name in names]
    starts = np.cumsum([0, *map(len, tables)])
    posts = pa.concat_tables(tables).unify_dictionaries()
    large = pc.and_(*(pc.greater_equal(posts[side], min_side) for side in sides))
    rows = np.flatnonzero(pc.fill_null(large, False).to_numpy())
    hashes = pc.fill_null(posts["perceptual_hash"], 0).to_numpy()[rows]
    near = neighbours(hashes, max_bits)
    # From here on only pictures that are near another one count: a few in a hundred.
    rows = rows[np.isin(hashes, np.fromiter(near, np.uint64, len(near)))]
    rows = rows[np.argsort(posts["post_id"].to_numpy()[rows])]
    suspects = posts.select(["post_id", "perceptual_hash", "pixel_hash"]).take(pa.array(rows))
    ids, own, pixels = (column.to_pylist() for column in suspects.columns)
    thumbnails = _read_thumbnails(raw_dir, names, starts, rows)
    found: dict[int, tuple[int, str]] = {}
    leads: dict[int, list[int]] = defaultdict(list)
    for place, post in enumerate(ids):
        candidates = sorted(lead for h in near[own[place]] for lead in leads.get(h, ()))
        lead = _find_lead(thumbnails, place, candidates)
        if lead is None:
            if len(leads[own[place]]) < _MAX_LEADS:
                leads[own[place]].append(place)
        else:
            same = pixels[lead] == pixels[place]
            found[post] = (ids[lead], "same_pixels" if same else "near")
    found |= _straddlers(posts, found)
    return pa.Table.from_pylist(
        [dict(zip(DUPLICATES.names, (post, *found[post]), strict=True)) for post in sorted(found)],
        schema=DUPLICATES,
    )


def neighbours(hashes: Hashes, max_bits: int) -> dict[int, list[int]]:
    """Return, for each hash that is near another one or occurs twice, the hashes that are near it.

    Near are those that differ in at most ``max_bits`` bits, the hash itself included. Not all pairs
    are compared: of 64 bits in ``max_bits + 2`` blocks at least two blocks must be equal, so only
    hashes that agree in two blocks are.
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
    raw_dir: Path, names: Sequence[str], starts: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the thumbnails (N x 192) of ``rows`` (N), numbered over all shards from ``starts``."""
    thumbnails = np.empty((len(rows), RAW.field("thumbnail").type.byte_width), np.uint8)
    shards = np.searchsorted(starts, rows, side="right") - 1
    places = np.argsort(shards, kind="stable")
    for some in np.split(places, np.flatnonzero(np.diff(shards[places])) + 1):
        if len(some):
            shard = int(shards[some[0]])
            table = read_rows(rows_path(raw_dir, names[shard]), RAW, ["thumbnail"])
            found = table["thumbnail"].take(pa.array(rows[some] - starts[shard])).to_pylist()
            thumbnails[some] = np.frombuffer(b"".join(found), np.uint8).reshape(len(some), -1)
    return thumbnails


def _find_lead(thumbnails: NDArray[np.uint8], place: int, candidates: Sequence[int]) -> int | None:
    """Return the earliest of some places that looks like ``place``, or None."""
    if not candidates:
        return None
    stack = thumbnails[candidates].astype(np.int16)
    difference = np.abs(stack - thumbnails[place]).mean(axis=1)
    matches = np.flatnonzero(difference <= MAX_THUMBNAIL_DIFFERENCE)
    return candidates[matches[0]] if len(matches) else None


def _straddlers(posts: pa.Table, found: dict[int, tuple[int, str]]) -> dict[int, tuple[int, str]]:
    """Return the posts of families that duplicates tie to an earlier one of another split.

    Ties go on: where a relative of a duplicate has duplicates of its own, those belong to it.
    """
    involved = set(found) | {lead for lead, _ in found.values()}
    some = posts.filter(among(posts, involved))
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
