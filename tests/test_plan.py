import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.planning import plan
from pipeline.planning.plan import (
    assign_shards,
    hash_families,
    hash_table,
    plan_posts,
    planned_shards,
    read_planned,
    write_plan,
)
from pipeline.recipe import SplitSettings
from pipeline.records import Post
from pipeline.schema import SELECTION, SPLITS
from tests.metadata_records import make_post

POST = replace(make_post(1, "b", "a"), characters=("x",))


def test_no_character_is_in_two_splits_if_so_wished() -> None:
    posts = [
        replace(
            POST, id=i, parent_id=max(0, i - 1) if i % 9 == 0 else 0, characters=(f"c{i % 60}",)
        )
        for i in range(1, 2001)
    ]
    plan = plan_posts(posts, SplitSettings(by="character")).to_pylist()
    splits: dict[str, set[str]] = {}
    for row in plan:
        splits.setdefault(row["character"], set()).add(row["split"])
    assert {len(found) for found in splits.values()} == {1}
    assert {row["split"] for row in plan} == set(SPLITS)
    of_families = plan_posts(posts, SplitSettings()).to_pylist()
    assert {r["post_id"]: r["family"] for r in plan} == {
        r["post_id"]: r["family"] for r in of_families
    }


@given(st.sets(st.integers(1, 10**7), min_size=1, max_size=200), st.integers(0, 5))
def test_later_posts_move_no_earlier_one_to_another_split(ids: set[int], seed: int) -> None:
    settings = SplitSettings(seed=seed, shard_size=10)
    some = np.array(sorted(ids), np.int64)
    more = np.concatenate([some, some.max() + np.arange(1, 500)])
    before, _ = assign_shards(some, settings)
    after, shard = assign_shards(more, settings)
    assert np.array_equal(before, after[: len(some)])
    assert shard.min() >= 0


def test_shares_are_kept_and_shards_are_even() -> None:
    ids = np.arange(1, 200_001, dtype=np.int64)
    split, shard = assign_shards(ids, SplitSettings(shard_size=1000))
    assert np.abs(np.bincount(split) / len(ids) - [0.8, 0.1, 0.1]).max() < 0.005
    sizes = np.bincount(shard[split == 0])
    assert len(sizes) == 256
    assert sizes.max() <= 1000
    assert sizes.min() > 400
    other, _ = assign_shards(ids, SplitSettings(seed=1))
    assert (split != other).mean() > 0.2


@pytest.mark.parametrize(("num_posts", "num_shards"), [(1000, 1), (1001, 2), (2000, 2), (2001, 4)])
def test_a_split_has_the_least_power_of_two_of_shards_that_holds_it(
    num_posts: int, num_shards: int
) -> None:
    ids = np.arange(1, num_posts + 1, dtype=np.int64)
    _, shard = assign_shards(ids, SplitSettings(val=0, test=0, shard_size=1000))
    assert set(shard.tolist()) == set(range(num_shards))


def splitmix64(state: int) -> int:
    """Steele, Lea and Flood's generator, in whole numbers: one step from ``state``."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


@given(st.integers(1, 2**62))
def test_the_hash_never_changes(family: int) -> None:
    # Anything else would move posts of published data sets between splits.
    found = hash_families(np.array([family], np.int64), 0)
    assert found[0] == (splitmix64(family) >> 11) / 2**53
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the published first output


def test_a_split_without_a_share_gets_nothing() -> None:
    split, _ = assign_shards(np.arange(1, 1000, dtype=np.int64), SplitSettings(val=0, test=0))
    assert set(split.tolist()) == {SPLITS.index("train")}


def test_a_plan_comes_back_shard_by_shard(tmp_path: Path) -> None:
    posts = [replace(POST, id=i, parent_id=i - 1 if i % 7 == 0 else 0) for i in range(1, 400)]
    table = plan_posts(iter(posts), SplitSettings(shard_size=50))
    assert table.schema.equals(SELECTION)
    assert table["tags"][0].as_py() == "a b"
    path = tmp_path / "selection.parquet"
    write_plan(path, table, {"counts": {}})
    sizes = planned_shards(path)
    assert sum(sizes.values()) == len(posts)
    seen = []
    for name, size in sizes.items():
        rows = read_planned(path, name).to_pylist()
        assert len(rows) == size
        assert {f"{row['split']}-{row['shard']:06d}" for row in rows} == {name}
        assert [row["post_id"] for row in rows] == sorted(row["post_id"] for row in rows)
        seen += [row["post_id"] for row in rows]
    assert sorted(seen) == list(range(1, 400))
    shard_of = {row["post_id"]: (row["split"], row["shard"]) for row in table.to_pylist()}
    assert all(shard_of[i] == shard_of[i - 1] for i in range(7, 400, 7))


def test_the_order_of_the_metadata_does_not_matter() -> None:
    posts = [replace(POST, id=i) for i in range(1, 300)]
    forward = plan_posts(iter(posts), SplitSettings())
    backward = plan_posts(reversed(posts), SplitSettings())
    assert hash_table(forward) == hash_table(backward)
    assert hash_table(forward) != hash_table(plan_posts(iter(posts[1:]), SplitSettings()))


def test_a_missing_plan_or_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"selection\.parquet.*fetch"):
        planned_shards(tmp_path / "selection.parquet")
    write_plan(tmp_path / "selection.parquet", plan_posts([POST], SplitSettings()), {})
    with pytest.raises(UserError, match="val-000009"):
        read_planned(tmp_path / "selection.parquet", "val-000009")


def test_a_plan_is_the_same_however_little_of_it_is_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    posts = [replace(POST, id=i, rating="sqe"[i % 3], md5=f"{i:032x}") for i in range(300)]
    settings = SplitSettings(shard_size=50)
    write_plan(tmp_path / "whole", plan_posts(posts, settings), {})
    monkeypatch.setattr(plan, "_CHUNK", 7)
    monkeypatch.setattr(plan, "_SLICE", 11)
    in_pieces = plan_posts(posts, settings)
    assert in_pieces["md5"].num_chunks > 20
    write_plan(tmp_path / "pieces", in_pieces, {})
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
    assert plan_posts([], settings).schema.equals(SELECTION)


def test_a_plan_in_the_making_has_no_file_that_a_kill_could_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(plan, "_CHUNK", 1)
    seen: list[list[Path]] = []

    def look() -> Iterator[Post]:
        for post_id in (1, 2, 3):
            yield replace(POST, id=post_id)
            seen.append([*tmp_path.iterdir()])

    assert len(plan_posts(look(), SplitSettings())) == 3
    assert seen == [[], [], []]


def test_a_full_folder_for_temporary_files_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(**_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(UserError, match=f"{tmp_path}: no space left on device; make room.*TMPDIR"):
        plan_posts([POST], SplitSettings())


def test_a_plan_may_hold_more_than_2_gb_of_text() -> None:
    """More than Arrow's own ``take`` can; here one batch many times over, which takes no memory."""
    batch = pa.record_batch({"id": range(20_000), "tags": [f"{i:08d}" * 50 for i in range(20_000)]})
    table = pa.Table.from_batches([batch] * 280)
    assert table["tags"].nbytes > 2**31
    rows = np.array([len(table) - 1, 0, 20_001])
    assert plan._take(table, rows)["id"].to_pylist() == [19_999, 0, 1]
