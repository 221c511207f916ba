"""The whole data chain on real pictures, against what each troublesome post's text calls for."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.lockfile.differences import compare
from pipeline.lockfile.lock import write_lock
from pipeline.maintenance.status import read_status
from pipeline.maintenance.verify import verify
from pipeline.metadata.files import read_posts
from pipeline.planning.make import make_plan
from pipeline.planning.plan import planned_shards, read_planned
from pipeline.planning.selection import judge, load_nsfw_ids
from pipeline.recipe import Recipe
from pipeline.recipe_file import load_recipe
from pipeline.records import Post
from pipeline.run import fetch, prepare
from pipeline.schema import RAW, SAMPLES
from pipeline.shards.shard import read_shard
from pipeline.work import Work

pytestmark = pytest.mark.mirror
QUIET = Console(quiet=True)

EXPECTED = {
    "missing: no file": {"missing/no_file"},
    "empty: zero bytes": {"rejected/empty"},
    "truncated: last half cut off": {"corrupt/truncated"},
    "html: an error page with a .jpg name": {"rejected/not_an_image"},
    "all black": {"blank/flat"},
    "thin: under 256 after the crop": {"too_small/after_crop"},
    "dark edges that belong to the picture": {"kept"},
    "exact duplicate": {"duplicate/same_pixels"},
    "near duplicate": {"duplicate/near"},
    "recoloured child": {"kept"},
    "grey jpeg": {"kept"},
    # These four are further encodings of pictures that the selection holds already.
    "cmyk jpeg": {"duplicate/near"},
    "progressive jpeg": {"duplicate/near"},
    "filtered: deleted": {"filtered/deleted"},
    "filtered: banned": {"filtered/banned"},
    "filtered: listed in nsfw-ids.txt": {"filtered/nsfw_id"},
    "filtered: rating q": {"filtered/rating"},
    "filtered: rating e": {"filtered/rating"},
    "filtered: not a still picture": {"filtered/not_a_picture"},
    "filtered: tag only looks alike": {"filtered/tag_missing"},
}
"""What becomes of a post, by the text that ``trouble.csv`` gives for it."""


def recipe_for(mirror: Path, metadata: str, *overrides: str) -> Recipe:
    recipe = load_recipe("white-background-256", ["source.rate=0", *overrides])
    images = f"{mirror}/512px/{{bucket}}/{{id}}.jpg"
    source = replace(recipe.source, metadata=str(mirror / metadata), images=images)
    return replace(recipe, source=source)


@pytest.fixture(scope="module")
def work(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    recipe = recipe_for(mirror, "metadata")
    work = Work(tmp_path_factory.mktemp("mirror"))
    fetch(recipe, work, QUIET)
    prepare(recipe, work, QUIET)
    return work


def sample_rows(work: Work) -> dict[int, dict[str, Any]]:
    tables = [read_shard(work.samples_dir, n, SAMPLES)[0] for n in planned_shards(work.plan_path)]
    return {row["post_id"]: row for table in tables for row in table.to_pylist()}


def trouble(mirror: Path) -> dict[int, str]:
    with (mirror / "trouble.csv").open() as file:
        return {int(row["id"]): row["what"] for row in csv.DictReader(file)}


def test_both_schemas_give_the_same_selection(mirror: Path) -> None:
    names = ("metadata", "metadata.json.tar.xz")
    new, old = (make_plan(recipe_for(mirror, name), None, mirror / name) for name in names)
    assert new.posts.equals(old.posts)
    assert new.counts == old.counts
    assert len(new.posts) == 562  # 569 pass the filter, of which nsfw-ids.txt names 7


def test_every_troublesome_post_has_the_fate_that_its_text_calls_for(
    mirror: Path, work: Work
) -> None:
    rows = sample_rows(work)
    recipe = recipe_for(mirror, "metadata")
    nsfw_ids = load_nsfw_ids(recipe.select, mirror / "metadata")
    posts = {p.id: p for p in read_posts(mirror / "metadata") if isinstance(p, Post)}
    checked = 0
    for post_id, what in trouble(mirror).items():
        if what.startswith("original:"):
            continue
        row = rows.get(post_id)
        fate = judge(posts[post_id], recipe.select, nsfw_ids) if row is None else None
        found = str(fate) if row is None else f"{row['status']}/{row['reason']}".strip("/")
        assert found in EXPECTED[what.split(" of ")[0] if " of " in what else what], what
        repeats = re.search(r"duplicate of (\d+)", what)
        if repeats:
            assert row is not None
            assert row["duplicate_of"] == int(repeats[1])
        checked += 1
    assert checked > 130


def test_a_recoloured_child_lies_in_its_parents_split(mirror: Path, work: Work) -> None:
    rows = sample_rows(work)
    for post_id, what in trouble(mirror).items():
        if what.startswith("recoloured child of "):
            parent = rows[int(what.rsplit(" ", 1)[1])]
            assert (rows[post_id]["split"], rows[post_id]["family"]) == (
                parent["split"],
                parent["family"],
            )


def test_every_encoding_of_a_picture_decodes(mirror: Path, tmp_path: Path, work: Work) -> None:
    recipe = recipe_for(mirror, "metadata", "prepare.near_duplicates=-1")
    other = Work(tmp_path / "all")
    fetch(recipe, other, QUIET)
    prepare(recipe, other, QUIET)
    rows = sample_rows(other)
    for post_id, what in trouble(mirror).items():
        if what in ("cmyk jpeg", "progressive jpeg", "grey jpeg"):
            assert rows[post_id]["status"] == "kept", what


def test_everything_adds_up_and_every_promise_holds(work: Work) -> None:
    status = read_status(work)
    assert status.adds_up
    assert status.num_records == 34217
    assert status.stages["prepare"].fates["kept"] == 508
    assert verify(work.root) == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_second_run_does_nothing_and_workers_change_no_byte(
    mirror: Path, work: Work, tmp_path: Path, num_workers: int
) -> None:
    recipe = recipe_for(mirror, "metadata")
    stamps = {path: path.stat().st_mtime_ns for path in work.root.glob("*/*")}
    fetch(recipe, work, QUIET, num_workers=num_workers)
    prepare(recipe, work, QUIET, num_workers=num_workers)
    assert {path: path.stat().st_mtime_ns for path in work.root.glob("*/*")} == stamps
    again = Work(tmp_path / "again")
    fetch(recipe, again, QUIET, num_workers=num_workers)
    prepare(recipe, again, QUIET, num_workers=num_workers)
    for folder in ("raw", "samples"):
        paths = sorted((work.root / folder).iterdir())
        assert [path.name for path in paths] == sorted(
            path.name for path in (again.root / folder).iterdir()
        )
        for path in paths:
            assert path.read_bytes() == (again.root / folder / path.name).read_bytes(), path


def test_a_lock_rebuilds_it_without_the_metadata(mirror: Path, work: Work, tmp_path: Path) -> None:
    recipe = recipe_for(mirror, "metadata")
    lock = write_lock(work, tmp_path / "posts.parquet")
    assert lock.path.stat().st_size < 120_000  # a third of it words that more posts would share
    again = Work(tmp_path / "again")
    fetch(recipe, again, QUIET, lock=lock)
    assert compare(lock, again, recipe).counts == {"same": 562}
    for path in sorted((work.root / "raw").iterdir()):
        assert path.read_bytes() == (again.root / "raw" / path.name).read_bytes(), path


def test_odd_originals_decode_or_have_a_fate(mirror: Path, tmp_path: Path) -> None:
    recipe = recipe_for(
        mirror,
        "metadata",
        'select.tags=["original_layout"]',
        "prepare.min_side=1",
        "prepare.near_duplicates=-1",
    )
    images = f"{mirror}/original/{{bucket}}/{{id}}.{{ext}}"
    source = replace(recipe.source, images=images, layout="original")
    recipe = replace(recipe, source=source)
    work = Work(tmp_path / "work")
    fetch(recipe, work, QUIET)
    prepare(recipe, work, QUIET)
    rows = sample_rows(work)
    names = {i: w.split(": ")[1] for i, w in trouble(mirror).items() if w.startswith("original:")}
    fates = {names[i]: rows[i]["status"] for i in names if i in rows}
    assert not any(name.endswith(".gif") for name in fates)  # a moving picture is none
    damaged = {name for name, status in fates.items() if status in ("corrupt", "rejected")}
    assert damaged == {"test-corrupt.jpg", "test-corrupt.png", "test-exif-small.jpg"}
    assert {status for name, status in fates.items() if name not in damaged} == {"kept"}
    assert len(fates) == 18
    planned = [read_planned(work.plan_path, name) for name in planned_shards(work.plan_path)]
    raw = [read_shard(work.raw_dir, name, RAW)[0] for name in planned_shards(work.plan_path)]
    assert sum(map(len, raw)) == sum(map(len, planned))
