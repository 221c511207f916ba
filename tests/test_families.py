import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.dolls.data_set import Doll, make_dolls, picture_of
from pipeline.maintenance.verify import verify
from pipeline.planning.families import find_families, join_characters
from pipeline.recipe import PrepareSettings, Recipe, SelectSettings, SourceSettings, SplitSettings
from pipeline.run import fetch, prepare
from pipeline.schema import RAW, SAMPLES
from pipeline.shards.shard import list_shards, read_shard
from pipeline.stages.duplicates import find_duplicates
from pipeline.work import Work
from tests.pictures import encoded, letterboxed

QUIET = Console(quiet=True)
NUM_PARENTS = 24
CHILD, COPY = 100, 200  # added to a parent's id


def families(posts: dict[int, int]) -> dict[int, int]:
    ids = np.array(list(posts), np.int64)
    found = find_families(ids, np.array(list(posts.values()), np.int64))
    return dict(zip(ids.tolist(), found.tolist(), strict=True))


def test_parents_children_and_siblings_are_one_family() -> None:
    posts = {5: 0, 9: 5, 7: 9, 3: 0, 20: 100, 30: 100, 40: 40}
    assert families(posts) == {5: 5, 9: 5, 7: 5, 3: 3, 20: 20, 30: 20, 40: 40}


def test_a_circle_of_parents_ends() -> None:
    assert families({1: 2, 2: 3, 3: 1}) == {1: 1, 2: 1, 3: 1}


@given(st.dictionaries(st.integers(1, 40), st.integers(0, 40), min_size=1, max_size=40))
def test_families_are_the_connected_components(posts: dict[int, int]) -> None:
    found = families(posts)
    component = {post: {post, parent} - {0} for post, parent in posts.items()}
    for _ in posts:
        for post in posts:
            for other in posts:
                if component[post] & component[other]:
                    component[post] = component[other] = component[post] | component[other]
    assert found == {post: min(component[post]) for post in posts}


def test_families_with_a_character_in_common_are_joined() -> None:
    found = join_characters(
        np.array([7, 7, 3, 9, 12, 20, 21], np.int64), ["a", "b", "c b", "d", "", "e d", ""]
    )
    assert found.tolist() == [3, 3, 3, 9, 12, 9, 21]


def test_only_a_space_ends_the_name_of_a_character() -> None:
    names = ["佐藤\u3000花子", "佐藤\u3000次郎", "", " b  佐藤\u3000花子"]
    found = join_characters(np.array([1, 2, 3, 4], np.int64), names)
    assert found.tolist() == [1, 2, 3, 1]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Prepare dolls, a child of each in another's colours, and a copy of each by another post."""
    root = tmp_path_factory.mktemp("families")
    dolls = make_dolls(NUM_PARENTS, 1)
    posts: dict[int, tuple[Doll, int]] = {}
    for number, doll in enumerate(dolls, 1):
        other = replace(doll, palette=dolls[number % NUM_PARENTS].palette)
        posts |= {number: (doll, 0), CHILD + number: (other, number), COPY + number: (doll, 0)}
    lines = []
    for post_id, (doll, parent) in posts.items():
        path = root / "512px" / f"{post_id:04d}" / f"{post_id}.jpg"
        path.parent.mkdir(parents=True)
        picture = picture_of(doll)
        height, width = picture.shape[:2]
        quality = 95 if post_id < COPY else 80
        path.write_bytes(encoded(letterboxed(picture), quality=quality))
        size = {"image_width": width, "image_height": height}
        record = {"id": post_id, "rating": "s", "file_ext": "jpg", "tag_string": "doll", **size}
        lines.append(json.dumps(record | ({"parent_id": parent} if parent else {})))
    (root / "posts.json").write_text("\n".join(lines))
    recipe = Recipe(
        name="families",
        select=SelectSettings(tags=("doll",)),
        source=SourceSettings(
            metadata=str(root / "posts.json"),
            images=f"{root}/512px/{{bucket}}/{{id}}.jpg",
            rate=0,
        ),
        prepare=PrepareSettings(size=64, min_side=64),
        split=SplitSettings(train=1, val=1, test=1, shard_size=20),
    )
    work = Work(root / "work")
    fetch(recipe, work, QUIET)
    prepare(recipe, work, QUIET)
    return work


def rows(work: Work) -> dict[int, dict[str, Any]]:
    tables = [read_shard(work.samples_dir, n, SAMPLES)[0] for n in list_shards(work.samples_dir)]
    return {row["post_id"]: row for table in tables for row in table.to_pylist()}


def test_a_recoloured_child_stays_in_its_parents_split(work: Work) -> None:
    found = rows(work)
    for number in range(1, NUM_PARENTS + 1):
        parent, child = found[number], found[CHILD + number]
        assert child["status"] == "kept", child
        assert (child["split"], child["family"]) == (parent["split"], number)
    assert len({found[number]["split"] for number in range(1, NUM_PARENTS + 1)}) == 3


def test_the_hash_alone_would_take_some_of_them_for_copies(work: Work) -> None:
    """The test above must rest on the colours: some children are near their parents by hash."""
    tables = [read_shard(work.raw_dir, n, RAW)[0] for n in list_shards(work.raw_dir)]
    hashes = {r["post_id"]: r["perceptual_hash"] for t in tables for r in t.to_pylist()}
    bits = [(hashes[n] ^ hashes[CHILD + n]).bit_count() for n in range(1, NUM_PARENTS + 1)]
    assert min(bits) <= 4


def test_a_copy_is_left_out_wherever_it_was_planned(work: Work) -> None:
    found = rows(work)
    copies = [found[COPY + number] for number in range(1, NUM_PARENTS + 1)]
    assert {row["status"] for row in copies} == {"duplicate"}
    assert [row["duplicate_of"] for row in copies] == list(range(1, NUM_PARENTS + 1))
    assert any(row["split"] != found[row["duplicate_of"]]["split"] for row in copies)
    assert verify(work.root) == []
    again = find_duplicates(work.raw_dir, list_shards(work.raw_dir), 4, 64)
    assert len(again) == NUM_PARENTS
