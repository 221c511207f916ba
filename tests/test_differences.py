import csv
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from pipeline.errors import UserError
from pipeline.lockfile.differences import Comparison, compare
from pipeline.lockfile.lock import Lock, read_lock, write_lock
from pipeline.maintenance.verify import verify
from pipeline.planning.make import make_plan
from pipeline.recipe import Recipe, SketchSettings
from pipeline.run import fetch, prepare
from pipeline.settings import name_differences
from pipeline.shards.rows import read_info, write_rows
from pipeline.shards.shard import list_shards, rows_path
from pipeline.work import Work
from tests.crashing import contents
from tests.works import EXPECTED, build, draw_original, make_source, odd_original

QUIET = Console(quiet=True)


@pytest.fixture
def source(tmp_path: Path) -> tuple[Recipe, Work, Lock]:
    """Return a recipe, a folder made by it, and the folder's lock; the metadata is gone."""
    work, recipe = build(tmp_path)
    lock = write_lock(work, tmp_path / "posts.parquet")
    shutil.rmtree(tmp_path / "metadata")
    return recipe, work, lock


def lines(work: Work) -> dict[int, list[str]]:
    with work.differences_path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["post_id", "shard", "what", "locked", "found"]
    return {int(row[0]): row[2:] for row in rows[1:]}


def rebuild(
    recipe: Recipe, lock: Lock, work: Work, *, num_workers: int = 1
) -> tuple[Comparison, Comparison]:
    fetch(recipe, work, QUIET, num_workers=num_workers, lock=lock)
    fetched = compare(lock, work, recipe)
    prepare(recipe, work, QUIET, num_workers=num_workers)
    return fetched, compare(lock, work, recipe)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_lock_gives_the_same_bytes_without_metadata(
    source: tuple[Recipe, Work, Lock], tmp_path: Path, num_workers: int
) -> None:
    recipe, work, lock = source
    again = Work(tmp_path / "again")
    fetched, prepared = rebuild(recipe, lock, again, num_workers=num_workers)
    assert contents(again) == contents(work)
    for found in (fetched, prepared):
        assert found == Comparison(Counter(same=30), [])
    assert not again.differences_path.exists()
    assert read_lock(again.lock_path).seal == lock.seal
    assert verify(again.root) == []
    assert write_lock(again, tmp_path / "again.parquet").posts.equals(lock.posts)
    copy = bytearray(again.lock_path.read_bytes())
    copy[500] ^= 1
    again.lock_path.write_bytes(copy)
    assert [problem.path for problem in verify(again.root)] == [again.lock_path]


def test_what_has_changed_since_is_told_post_by_post(
    source: tuple[Recipe, Work, Lock], tmp_path: Path
) -> None:
    recipe, _, lock = source
    pictures = {int(p.stem): p for p in (tmp_path / "512px").glob("*/*.jpg")}
    pictures[10].unlink()
    pictures[11].write_bytes(draw_original(111))
    pictures[12].unlink()
    pictures[12].mkdir()  # reading it fails, as on a bad disk
    pictures[13].write_bytes(b"<html>")
    for post_id, data in {2: draw_original(2), 1: None}.items():
        path = tmp_path / "512px" / f"{post_id:04d}" / f"{post_id}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        if data:
            path.write_bytes(data)
    again = Work(tmp_path / "again")
    fetched, prepared = rebuild(recipe, lock, again)
    expected = {
        1: ["gone", "fetched", "missing/no_file"],
        2: ["new", "missing/no_file", "fetched"],
        10: ["gone", "fetched", "missing/no_file"],
        12: ["failed", "fetched", "failed/io"],
        13: ["gone", "fetched", "rejected/not_an_image"],
    }
    assert fetched.counts == {"same": 24, "gone": 3, "failed": 1, "changed": 1, "new": 1}
    # Post 8 shows the same picture as post 1, and is left out no more.
    assert prepared.counts == fetched.counts | {"same": 23, "fate": 1}
    found = lines(again)
    sums = {row["post_id"]: (row["sha256"] or b"").hex() for row in lock.posts.to_pylist()}
    what, then, now = found.pop(11)
    assert (what, then) == ("changed", sums[11])
    assert len(now) == 64
    assert now != then
    assert found == expected | {8: ["fate", "duplicate/same_pixels", "kept"]}
    assert verify(again.root) == []

    pictures[12].rmdir()
    pictures[12].write_bytes(draw_original(12))
    fetch(recipe, again, QUIET, retry_failed=True, lock=lock)
    assert compare(lock, again, recipe).counts["failed"] == 0


def test_samples_made_otherwise_are_told(source: tuple[Recipe, Work, Lock], tmp_path: Path) -> None:
    recipe, work, lock = source
    info = read_info(lock.path)
    info["versions"] |= {"numpy": "1.0", "simplejpeg": "0.1", "paint": "2.0"}
    here = info["versions"].pop("pillow")
    write_rows(lock.path, [lock.posts], info)
    assert compare(read_lock(lock.path), work, recipe).notes == []
    info["recipe"]["prepare"]["jpeg_quality"] = 80
    write_rows(lock.path, [lock.posts], info)  # as another version's encoder would have it
    other = read_lock(lock.path)
    recipe = replace(recipe, prepare=replace(recipe.prepare, jpeg_quality=80))
    _, prepared = rebuild(recipe, other, Work(tmp_path / "again"))
    assert prepared.counts == {"same": 30 - EXPECTED["kept"], "sample": EXPECTED["kept"]}
    assert "the lock's: 1.0" in prepared.notes[0]
    assert "0.1" in prepared.notes[0]
    assert "paint none (the lock's: 2.0)" in prepared.notes[0]
    assert f"pillow {here} (the lock's: none)" in prepared.notes[0]
    assert compare(lock, work, replace(recipe, prepare=lock.info.recipe.prepare)).notes == []


def test_settings_are_named_that_one_side_lacks_and_no_network_for_its_place() -> None:
    one = {"a": {"x": 1}, "b": {"y": 2}, "onnx": {"model": "here", "sha256": "12", "size": 3}}
    assert name_differences(one, {"a": None, "b": {}, "onnx": one["onnx"]}, path="p.") == [
        'p.a is null, the lock\'s {"x": 1}',
        "p.b.y is null, the lock's 2",
    ]
    assert name_differences({"a": "ü"}, {"a": "絵/"}) == ['a is "絵/", the lock\'s "ü"']
    for sha256, num_different in (("", 0), ("12", 0), ("34", 1)):
        other = one | {"onnx": {"model": "there", "sha256": sha256, "size": 3}}
        assert len(name_differences(one, other)) == num_different


def test_what_a_server_lacked_a_disk_may_lack(source: tuple[Recipe, Work, Lock]) -> None:
    recipe, work, lock = source
    words = ["http_404" if r == "no_file" else r for r in lock.posts["reason"].to_pylist()]
    place = lock.posts.schema.get_field_index("reason")
    field = lock.posts.schema.field(place)
    reasons = pa.array(words, pa.string()).cast(field.type)
    info = read_info(lock.path)
    info["fates"] = {fate.replace("no_file", "http_404"): n for fate, n in info["fates"].items()}
    write_rows(lock.path, [lock.posts.set_column(place, field, reasons)], info)
    from_a_server = read_lock(lock.path)
    assert "http_404" in from_a_server.posts["reason"].to_pylist()
    assert compare(from_a_server, work, recipe).counts == {"same": 30}


def test_samples_of_other_settings_are_not_compared(source: tuple[Recipe, Work, Lock]) -> None:
    recipe, work, lock = source
    sketches = {"ink": SketchSettings("xdog")}
    other = replace(recipe, prepare=replace(recipe.prepare, size=32, sketches=sketches))
    prepare(other, work, QUIET)
    found = compare(lock, work, other)
    assert found.counts == {"same": 30}
    assert "prepare.size is 32, the lock's 64" in found.notes[0]
    assert "prepare.sketches.ink" in found.notes[0]


def test_what_is_not_done_yet_is_waiting(source: tuple[Recipe, Work, Lock]) -> None:
    recipe, work, lock = source
    name = list_shards(work.raw_dir)[0]
    num_posts = read_info(work.plan_path)["shards"]
    rows_path(work.raw_dir, name).unlink()
    assert compare(lock, work, recipe).counts == {"same": 30}  # by the samples alone
    rows_path(work.samples_dir, name).unlink()
    assert compare(lock, work, recipe).counts["waiting"] == dict(num_posts)[name]
    with pytest.raises(UserError, match="no such folder"):
        compare(lock, Work(work.root / "nowhere"), recipe)


def test_posts_that_the_lock_lacks_are_told(
    source: tuple[Recipe, Work, Lock], tmp_path: Path
) -> None:
    recipe, _, _ = source
    metadata = make_source(tmp_path / "again", 30, odd_original).source.metadata
    split = replace(recipe.split, shard_size=100)  # however many there are, the shards are the same
    wider = replace(recipe, source=replace(recipe.source, metadata=metadata), split=split)
    work = Work(tmp_path / "again" / "work")
    fetch(wider, work, QUIET, limit=20)
    prepare(wider, work, QUIET)
    lock = write_lock(work, tmp_path / "fewer.parquet")
    assert compare(lock, work, wider).counts == {"same": 20}
    fetch(wider, work, QUIET, replan=True)
    prepare(wider, work, QUIET)
    found = compare(lock, work, wider)
    assert (found.counts["extra"], found.num_different) == (10, 10)
    extra = {post for post, line in lines(work).items() if line == ["extra", "", "planned"]}
    assert len(extra) == 10
    assert not extra & {*lock.posts["post_id"].to_pylist()}


def test_posts_that_are_planned_elsewhere_wait_for_nothing(
    source: tuple[Recipe, Work, Lock], tmp_path: Path
) -> None:
    recipe, _, lock = source
    metadata = make_source(tmp_path / "again", 30, odd_original).source.metadata
    recipe = replace(recipe, source=replace(recipe.source, metadata=metadata))
    narrow = replace(recipe, split=replace(recipe.split, shard_size=3))
    work = Work(tmp_path / "again" / "work")
    fetch(narrow, work, QUIET)
    found = compare(lock, work, recipe)
    assert set(found.counts) == {"unplanned", "same"}
    now, then = narrow.split.shard_size, recipe.split.shard_size
    other = f"The folder was made by other settings: split.shard_size is {now}, the lock's {then}."
    assert found.notes == [other]
    fetch(recipe, work, QUIET, limit=20, replan=True)
    found = compare(lock, work, recipe)
    assert found.counts["unplanned"] >= 10
    assert found.notes == []


def test_samples_of_other_settings_than_asked_for_are_explained(
    source: tuple[Recipe, Work, Lock],
) -> None:
    recipe, work, lock = source
    prepare(replace(recipe, prepare=replace(recipe.prepare, size=32)), work, QUIET)
    found = compare(lock, work, recipe)
    assert found.counts["sample"] == EXPECTED["kept"]
    assert found.notes[0] == (
        "The folder was made by other settings: prepare.size is 32, the lock's 64."
    )


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("select", {"tags": ("smile",)}, r'select\.tags is \["smile"\], the lock.s \["solo"\]'),
        ("split", {"seed": 5}, r"split\.seed is 5, the lock's 0"),
        ("source", {"layout": "original"}, r"source\.layout"),
        ("source", {"max_bytes": 100}, r"source\.max_bytes"),
    ],
)
def test_a_lock_of_another_recipe_is_refused(
    source: tuple[Recipe, Work, Lock], section: str, change: dict[str, object], message: str
) -> None:
    recipe, work, lock = source
    settings = replace(getattr(recipe, section), **change)
    other = replace(recipe, **{section: settings})
    for use in (
        lambda: make_plan(other, None, lock),
        lambda: fetch(other, work, QUIET, lock=lock),
    ):
        with pytest.raises(UserError, match=message):
            use()
    polite = replace(recipe, source=replace(recipe.source, rate=5.0, hosts=("a.example",)))
    assert len(make_plan(polite, None, lock).posts) == 30


def test_a_plan_from_metadata_drops_the_lock(
    source: tuple[Recipe, Work, Lock], tmp_path: Path
) -> None:
    recipe, _, lock = source
    again = Work(tmp_path / "again")
    fetch(recipe, again, QUIET, lock=lock)
    again.differences_path.write_text("of another day")
    shutil.rmtree(tmp_path / "512px")
    fresh = make_source(tmp_path / "fresh", 30, odd_original)
    images = replace(fresh.source, images=recipe.source.images)
    fetch(replace(fresh, source=images), again, QUIET)
    assert not again.lock_path.exists()
    assert not again.differences_path.exists()
    assert verify(again.root) == []
