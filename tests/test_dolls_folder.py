"""The folder of dolls: records, files and trouble, and what the pipeline makes of them."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline.dolls.backdrops import BACKDROPS
from pipeline.dolls.data_set import (
    MAX_POSES,
    doll_of,
    make_dolls,
    picture_of,
    true_answer,
    write_dolls,
)
from pipeline.dolls.posts import post_doll
from pipeline.metadata.record import parse_record
from pipeline.pictures.image import decode
from pipeline.pictures.letterbox import Letterbox, crop, find_letterbox, predict_box
from pipeline.planning.make import make_plan
from pipeline.recipe_file import load_recipe
from pipeline.run import fetch, prepare
from pipeline.web.serve import serve_folder
from pipeline.work import Work
from tests.files import files_in


def picture_path(directory: Path, post_id: int) -> Path:
    return directory / "512px" / f"{post_id % 1000:04d}" / f"{post_id}.jpg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dolls")
    write_dolls(directory, 6, 4, seed=5)
    return directory


@pytest.fixture(scope="module")
def records(folder: Path) -> dict[int, dict[str, object]]:
    """Return the records that can be read and have an id, by id."""
    found = {}
    for line in (folder / "metadata" / "posts000000000000.json").read_bytes().splitlines():
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if "id" in record:
            found[record["id"]] = record
    return found


@pytest.fixture(scope="module")
def trouble(folder: Path) -> dict[int, str]:
    return read_trouble(folder)


def read_trouble(folder: Path) -> dict[int, str]:
    with (folder / "trouble.csv").open(encoding="utf-8", newline="") as file:
        return {int(row["id"]): row["fate"] for row in csv.DictReader(file)}


def test_equal_arguments_write_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_dolls(tmp_path / name, 1, 2, seed=9)
    first, second = (files_in(tmp_path / name) for name in ("a", "b"))
    assert first == second
    assert len(first) > 40


def test_records_are_of_the_2021_schema(records: dict[int, dict[str, object]]) -> None:
    for record in records.values():
        post = parse_record(record)
        general = set(str(record["tag_string_general"]).split())
        kinds = ("general", "artist", "copyright", "character")
        tags = [str(record[f"tag_string_{kind}"]) for kind in kinds]
        assert post.tags == set(" ".join(tags).split())
        assert general & {"doll", "doll_joints"}
        assert all(value not in (None, "", False) for value in record.values())
    kept = [post_id for post_id in records if post_id < 9_000_000]
    assert kept != sorted(kept)  # as in the dump, there is no order
    assert len(kept) == 24


def test_tags_name_the_traits(records: dict[int, dict[str, object]]) -> None:
    for doll in make_dolls(6, 4, seed=5):
        tags = parse_record(records[doll.post_id]).tags
        assert {doll.character.hair, doll.character.outfit, doll.pose.framing} <= tags
        assert {doll.character_name, "white_background"} <= tags
        assert ("glasses" in tags) == doll.character.glasses


def test_tags_name_the_backdrop() -> None:
    for doll in make_dolls(1, 13, backdrops=True):
        tags = set(post_doll(doll).record["tag_string_general"].split())
        kind = doll.pose.backdrop.kind
        assert tags & set(BACKDROPS) == {kind}
        assert ("simple_background" in tags) == (kind == "white_background")


def test_the_letterbox_is_where_the_record_predicts_it(folder: Path) -> None:
    seen: Counter[Letterbox] = Counter()
    for doll in make_dolls(6, 4, seed=5):
        picture = decode(picture_path(folder, doll.post_id).read_bytes())
        assert picture.shape == (512, 512, 3)
        box, letterbox = find_letterbox(picture, doll.width, doll.height)
        seen[letterbox] += 1
        assert box == predict_box(512, doll.width, doll.height)
        difference = np.abs(crop(picture, box).astype(int) - picture_of(doll))
        assert difference.mean() < 2
    assert seen[Letterbox.DISAGREES] == 0
    assert seen[Letterbox.CONFIRMED] > 12


def test_every_kind_of_trouble_is_there_a_few_times(
    trouble: dict[int, str], records: dict[int, dict[str, object]], folder: Path
) -> None:
    counts = Counter(trouble.values())
    assert set(counts) == {
        *("filtered/rating", "filtered/deleted", "filtered/banned", "filtered/nsfw_id"),
        *("filtered/not_a_picture", "filtered/tag_missing", "filtered/malformed"),
        *("missing/http_404", "rejected/empty", "rejected/not_an_image", "corrupt/truncated"),
        *("blank/flat", "too_small/after_crop", "duplicate/same_pixels", "duplicate/near", "kept"),
    }
    assert min(counts.values()) >= 3
    malformed = {post_id for post_id, fate in trouble.items() if fate == "filtered/malformed"}
    assert set(trouble) - set(records) == malformed
    names = {doll.character_name for doll in make_dolls(6, 4, seed=5)}
    characters = {i: records[i]["tag_string_character"] for i in trouble if i in records}
    assert names.isdisjoint(characters.values())
    ids = [post_id for post_id, fate in trouble.items() if fate == "filtered/nsfw_id"]
    assert (folder / "nsfw-ids.txt").read_text(encoding="utf-8").split() == [str(i) for i in ids]


@pytest.mark.parametrize("name", ["dolls-64", "dolls-128-varied"])
def test_the_pipeline_gives_every_post_the_fate_that_the_folder_names(
    name: str, folder: Path, tmp_path: Path
) -> None:
    work = Work(tmp_path / "work")
    if name == "dolls-128-varied":
        folder = tmp_path / "dolls"
        write_dolls(folder, 6, 4, seed=5, backdrops=True)
    trouble = read_trouble(folder)
    with serve_folder(folder) as url:
        images = f"source.images={url}/512px/{{bucket}}/{{id}}.jpg"
        recipe = load_recipe(name, [f"source.metadata={folder / 'metadata'}", images])
        filtered = {
            fate: count
            for fate, count in make_plan(recipe, None, folder / "metadata").counts.items()
            if fate.startswith("filtered/") and count
        }
        fetch(recipe, work, Console(quiet=True))
    prepare(recipe, work, Console(quiet=True))
    fates = {
        row["post_id"]: f"{row['status']}/{row['reason']}".rstrip("/")
        for path in work.samples_dir.glob("*.parquet")
        for row in pq.read_table(path, columns=["post_id", "status", "reason"]).to_pylist()
    }
    wanted = {doll.post_id: "kept" for doll in make_dolls(6, 4, seed=5)} | trouble
    assert fates == {i: fate for i, fate in wanted.items() if not fate.startswith("filtered/")}
    expected = Counter(fate for fate in trouble.values() if fate.startswith("filtered/"))
    assert filtered == expected


def test_kept_oddities_keep_their_pixels(
    folder: Path, trouble: dict[int, str], records: dict[int, dict[str, object]]
) -> None:
    kinds = set()
    for post_id in (post_id for post_id, fate in trouble.items() if fate == "kept"):
        post = parse_record(records[post_id])
        picture = decode(picture_path(folder, post_id).read_bytes())
        inside = crop(picture, find_letterbox(picture, post.width, post.height)[0])
        assert inside.shape[1] / inside.shape[0] == pytest.approx(post.width / post.height, 0.01)
        if post.parent_id:
            kinds.add("recoloured")
            parent = doll_of(post.parent_id, seed=5)
            other = doll_of(1_000_000 + MAX_POSES * int(post.characters[0][5:9]), seed=5)
            assert np.abs(inside.astype(int) - true_answer(parent, other)).mean() < 2
            assert np.abs(inside.astype(int) - picture_of(parent)).mean() > 5
        elif (inside[:, :, 0] == inside[:, :, 2]).all():
            kinds.add("grey")
        else:
            kinds.add("dark edges")
            assert inside.shape == (512, 512, 3)
            assert inside[:, :30].max() < 30
    assert kinds == {"recoloured", "grey", "dark edges"}
