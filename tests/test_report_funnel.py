from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.planning.plan import planned_shards
from pipeline.report.funnel import (
    FateTable,
    count_splits,
    find_straddling_characters,
    read_alive,
    read_fate_table,
)
from pipeline.report.pictures import show_posts
from pipeline.shards.shard import remove_shards
from tests.works import POST, draw_original, fetch_all, make_work


def test_the_choice_looks_at_nothing_but_ids(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 40, lambda i: draw_original(i) if i % 4 else None)
    fetch_all(work, recipe)
    names = list(planned_shards(work.plan_path))
    fate_table = read_fate_table(work, names)
    chosen = fate_table.choose("fetched", 5)
    assert chosen == read_fate_table(work, names[::-1]).choose("fetched", 5)
    everything = fate_table.choose("fetched", 40)
    assert chosen == everything[:5]
    assert len(everything) == fate_table.count("fetched") == 30
    assert {p.post_id for p in everything} == {i for i in range(1, 41) if i % 4}
    assert everything != sorted(everything, key=lambda place: place.post_id)
    of_splits = [fate_table.choose("fetched", 40, split) for split in ("train", "val", "test")]
    assert sorted(map(len, of_splits)) == sorted(c.num_posts for c in count_splits(fate_table)[0])
    assert {p.shard.partition("-")[0] for p in of_splits[0]} == {"train"}
    assert {place.post_id for place in fate_table.find([1, 4, 999])} == {1, 4}


def test_families_in_two_splits_are_found() -> None:
    table = {
        "family": [1, 1, 2, 3, 3, 4],
        "split": ["train", "train", "val", "train", "test", "test"],
        "fate": ["kept", "kept", "kept", "kept", "kept", "blank/flat"],
    }
    counts, straddling = count_splits(FateTable([], pa.table(table)))
    assert straddling == [3]
    assert [(c.num_posts, c.num_families, c.largest_family) for c in counts] == [
        (3, 2, 2),
        (1, 1, 1),
        (1, 1, 1),
    ]


def test_only_a_space_ends_the_name_of_a_character(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.works.POST", replace(POST, characters=("佐藤\u3000花子",)))
    work, recipe = make_work(tmp_path, 30)
    fetch_all(work, recipe)
    fate_table = read_fate_table(work, list(planned_shards(work.plan_path)))
    assert find_straddling_characters(work, fate_table) == ["佐藤\u3000花子"]


def test_a_shard_that_another_run_takes_away_meanwhile_is_told(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path)
    fetch_all(work, recipe)
    fate_table = read_fate_table(work, list(planned_shards(work.plan_path)))
    remove_shards(work.raw_dir)
    with pytest.raises(UserError, match="was there a moment ago, so another run is using this"):
        show_posts(work, fate_table.find([1]))
    with pytest.raises(UserError, match="was there a moment ago, so another run is using this"):
        read_alive(work, fate_table.names[0], ["status"])
