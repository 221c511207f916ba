from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pictures.image import Picture, perceptual_hash
from pipeline.schema import DUPLICATES, RAW, build_table
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import ShardWriter, list_shards
from pipeline.stages import duplicates as module
from pipeline.stages.duplicates import find_duplicates, neighbours
from tests.pictures import draw_picture

HASHES = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=60)


@settings(deadline=None)
@given(HASHES, st.lists(st.tuples(st.integers(0, 59), st.integers(0, 63)), max_size=60))
@pytest.mark.parametrize("max_bits", [0, 1, 4, 7])
def test_neighbours_are_those_of_a_full_comparison(
    max_bits: int, hashes: list[int], flips: list[tuple[int, int]]
) -> None:
    hashes = hashes + [hashes[i % len(hashes)] ^ (1 << bit) for i, bit in flips]
    expected = {}
    for one in hashes:
        near = sorted({other for other in hashes if (one ^ other).bit_count() <= max_bits})
        if len(near) > 1 or hashes.count(one) > 1:
            expected[one] = near
    assert neighbours(np.array(hashes, np.uint64), max_bits) == expected


def row(post_id: int, picture: Picture, split: str = "train", family: int = 0) -> dict[str, object]:
    small = cv2.resize(picture, (8, 8), interpolation=cv2.INTER_AREA)
    return {
        "post_id": post_id,
        "split": split,
        "status": "fetched",
        "reason": "",
        "md5": "",
        "character": "",
        "family": family or post_id,
        "rating": "s",
        "ext": "jpg",
        "width": 0,
        "height": 0,
        "parent_id": 0,
        "tags": "",
        "http_status": 200,
        "content_width": picture.shape[1],
        "content_height": picture.shape[0],
        "perceptual_hash": perceptual_hash(picture),
        "pixel_hash": hash(picture.tobytes()) % 2**64,
        "thumbnail": small.tobytes(),
    }


def duplicates(
    directory: Path, rows: list[dict[str, object]], max_bits: int = 4
) -> dict[int, tuple[int, str]]:
    shards: dict[str, list[dict[str, object]]] = {}
    for r in rows:
        shards.setdefault(f"{r['split']}-{int(str(r['post_id'])) % 2:06d}", []).append(r)
    for name, some in shards.items():
        with ShardWriter(directory, name) as shard:
            shard.commit(build_table(some, RAW), {"fingerprint": ""})
    found = find_duplicates(directory, sorted(shards), max_bits, 64).to_pylist()
    return {r["post_id"]: (r["duplicate_of"], r["reason"]) for r in found}


def test_what_was_found_is_recalled_for_the_same_originals_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = draw_picture(1, 300, 300), draw_picture(2, 300, 300)
    raw_dir, path = tmp_path / "raw", tmp_path / "duplicates.parquet"
    duplicates(raw_dir, [row(5, a), row(6, b), row(9, a)])
    searches: list[int] = []

    def find(raw_dir: Path, names: Sequence[str], max_bits: int, min_side: int) -> pa.Table:
        searches.append(max_bits)
        return find_duplicates(raw_dir, names, max_bits, min_side)

    def recall(max_bits: int = 4, min_side: int = 64) -> list[int]:
        found = module.recall_duplicates(path, raw_dir, list_shards(raw_dir), max_bits, min_side)
        return list(found["post_id"].to_pylist())

    monkeypatch.setattr(module, "find_duplicates", find)
    assert recall() == recall() == [9]
    assert searches == [4]
    assert recall(-1) == []
    assert recall() == [9]
    assert searches == [4, -1, 4]
    assert recall(min_side=301) == []
    assert recall() == [9]
    searches.clear()
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    assert recall() == [9]
    assert path.read_bytes() == data
    write_rows(path, [read_rows(path, DUPLICATES).slice(1)], read_info(path))
    forged = bytearray(path.read_bytes())
    seal = forged.index(b"sha256:")
    forged[seal + 9] ^= 1  # it reads as before, and is not what was sealed
    path.write_bytes(forged)
    assert recall() == [9]
    duplicates(raw_dir, [row(5, b), row(7, b), row(9, a)])  # rewrites one of two shards
    assert recall() == [6, 7]
    assert searches == [4, 4, 4]


def shrunk(picture: Picture) -> Picture:
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", half)[1], cv2.IMREAD_COLOR), np.uint8)


def test_the_later_of_two_pictures_repeats_the_earlier(tmp_path: Path) -> None:
    a, b = draw_picture(1, 300, 300), draw_picture(2, 300, 300)
    rows = [row(5, a), row(6, b), row(9, a), row(12, shrunk(a)), row(11, shrunk(b))]
    expected = {9: (5, "same_pixels"), 12: (5, "near"), 11: (6, "near")}
    assert duplicates(tmp_path / "near", rows) == expected
    assert duplicates(tmp_path / "off", rows, -1) == {}


def test_a_recoloured_picture_stays(tmp_path: Path) -> None:
    a = draw_picture(3, 300, 300)
    recoloured = np.ascontiguousarray(a[..., ::-1])
    assert (perceptual_hash(a) ^ perceptual_hash(recoloured)).bit_count() <= 12
    rows = [row(5, a), row(6, recoloured) | {"perceptual_hash": perceptual_hash(a)}]
    assert duplicates(tmp_path, rows) == {}


@pytest.mark.parametrize(("levels", "is_near"), [(4, True), (5, False)])
def test_colours_may_differ_by_four_levels(tmp_path: Path, levels: int, is_near: bool) -> None:
    a = draw_picture(1, 300, 300)
    one = row(5, a)
    small = np.frombuffer(one["thumbnail"], np.uint8)  # type: ignore[call-overload]
    other = np.where(small < 128, small + levels, small - levels).astype(np.uint8)
    again = row(6, a) | {"thumbnail": other.tobytes(), "pixel_hash": 1}
    assert duplicates(tmp_path, [one, again]) == ({6: (5, "near")} if is_near else {})


def test_the_same_pixels_are_found_behind_one_that_only_looks_alike(tmp_path: Path) -> None:
    a = draw_picture(1, 300, 300)
    b = np.ascontiguousarray(a[..., ::-1])
    same = {"perceptual_hash": perceptual_hash(a)}
    rows = [row(5, a), row(6, b) | same, row(9, b) | same]
    assert duplicates(tmp_path, rows) == {9: (6, "same_pixels")}


def test_what_repeats_two_pictures_is_the_earlier_ones(tmp_path: Path) -> None:
    a = draw_picture(1, 300, 300)
    own = perceptual_hash(a) & ~1 & ~(1 << 63)
    rows = [row(post_id, a) | {"pixel_hash": post_id} for post_id in (5, 6, 9)]
    for post, bit in zip(rows, (63, 0, 64), strict=True):  # the earliest has the largest hash
        post["perceptual_hash"] = (own | 1 << bit) % 2**64
    assert duplicates(tmp_path, rows, max_bits=1) == {9: (5, "near")}


@pytest.mark.parametrize(("most", "found"), [(2, {4: 1}), (3, {4: 1, 5: 3})])
def test_of_one_hash_so_many_pictures_are_told_apart_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, found: dict[int, int]
) -> None:
    """A thousand that a stranger made alike are not all compared with each other."""
    monkeypatch.setattr(module, "_MAX_LEADS", most)
    pictures = [draw_picture(seed, 300, 300) for seed in (1, 2, 3, 1, 3)]
    rows = [row(i, picture) | {"perceptual_hash": 7} for i, picture in enumerate(pictures, 1)]
    assert duplicates(tmp_path, rows) == {post: (of, "same_pixels") for post, of in found.items()}


def test_no_shards_hold_no_duplicates(tmp_path: Path) -> None:
    assert duplicates(tmp_path, []) == {}


def test_one_that_is_too_small_hides_no_larger_one(tmp_path: Path) -> None:
    a = draw_picture(4, 120, 120)
    small = cv2.resize(a, (60, 60), interpolation=cv2.INTER_AREA)
    rows = [row(5, np.asarray(small, np.uint8)), row(7, a), row(8, a) | {"thumbnail": None}]
    rows[2] |= {"content_width": None, "content_height": None, "perceptual_hash": None}
    assert duplicates(tmp_path, rows) == {}


def test_no_family_straddles_two_splits(tmp_path: Path) -> None:
    a = draw_picture(5, 300, 300)
    rows = [
        row(1, a, "train"),
        row(20, a, "test", family=20),
        row(21, draw_picture(6, 300, 300), "test", family=20),
        row(30, a, "train", family=30),
        row(31, draw_picture(7, 300, 300), "train", family=30),
    ]
    assert duplicates(tmp_path, rows) == {
        20: (1, "same_pixels"),
        21: (1, "family"),  # its relative repeats a picture of another split
        30: (1, "same_pixels"),
    }


def test_ties_of_families_go_on(tmp_path: Path) -> None:
    a, b, other = (draw_picture(seed, 300, 300) for seed in (8, 9, 10))
    rows = [
        row(1, a, "train"),
        row(20, a, "test", family=20),
        row(21, b, "test", family=20),
        row(40, b, "val", family=40),
        row(41, other, "val", family=40),
        row(50, b, "train", family=50),
        row(51, draw_picture(11, 300, 300), "train", family=50),
    ]
    assert duplicates(tmp_path, rows) == {
        20: (1, "same_pixels"),
        21: (1, "family"),
        40: (21, "same_pixels"),
        41: (1, "family"),
        50: (21, "same_pixels"),
    }


def test_the_earliest_of_tied_families_stays(tmp_path: Path) -> None:
    a, b = draw_picture(8, 300, 300), draw_picture(9, 300, 300)
    rows = [row(1, a), row(2, b, "test"), row(3, b, family=3), row(4, a, family=3)]
    assert duplicates(tmp_path, rows) == {
        2: (1, "family"),
        3: (2, "same_pixels"),  # is met first, and leads to a later one
        4: (1, "same_pixels"),
    }
