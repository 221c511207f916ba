import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pytest_httpserver import HTTPServer

from pipeline.errors import UserError
from pipeline.planning.plan import hash_table, plan_posts, planned_shards, read_planned, write_plan
from pipeline.recipe import SourceSettings
from pipeline.recipe_shared import content_settings
from pipeline.removals import clear_posts
from pipeline.schema import LEDGER, RAW, build_table
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import Span, read_shard, read_span, rows_path, tar_path
from pipeline.stages import fetch
from pipeline.stages.reuse import count_unfetched, find_earlier, recall_ledger
from pipeline.web.shared import close_shared_clients
from pipeline.work import Work
from tests.files import flip
from tests.pictures import draw_picture, encoded, letterboxed
from tests.works import POST, draw_original, fetch_all, make_work, plan_work


def contents(work: Work) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(work.raw_dir.iterdir())}


def ledger_of(work: Work) -> dict[int, dict[str, Any]]:
    ledger: dict[int, dict[str, Any]] = {}
    for name in planned_shards(work.plan_path):
        rows = read_rows(rows_path(work.ledger_dir, name), LEDGER).to_pylist()
        ledger |= {row["post_id"]: row for row in rows}
    return ledger


def odd_original(post_id: int) -> bytes | None:
    odd = {3: None, 5: b"", 7: b"<html>"}
    return odd[post_id] if post_id in odd else draw_original(post_id)


def test_every_planned_post_has_one_row_and_its_bytes(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 30, odd_original)
    fates = fetch_all(work, recipe)
    assert fates == {
        "fetched": 27,
        "missing/no_file": 1,
        "rejected/empty": 1,
        "rejected/not_an_image": 1,
    }
    seen = []
    for name in planned_shards(work.plan_path):
        rows, _ = read_shard(work.raw_dir, name, RAW)
        with tar_path(work.raw_dir, name).open("rb") as tar:
            for row in rows.to_pylist():
                seen.append(row["post_id"])
                if row["status"] == "fetched":
                    data = read_span(tar, Span(row["offset"], row["size"]))
                    assert data == odd_original(row["post_id"])
                else:
                    assert row["offset"] is None
    assert sorted(seen) == list(range(1, 31))


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 30, odd_original)
    first = fetch_all(work, recipe)
    before = contents(work)
    shutil.rmtree(tmp_path / "512px")  # nothing may be asked for again
    assert fetch_all(work, recipe) == first
    assert contents(work) == before


def test_a_retry_asks_for_files_that_have_come_since(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 30, odd_original)
    first = fetch_all(work, recipe)
    before = contents(work)
    assert fetch_all(work, recipe, retry_failed=True) == first
    assert contents(work) == before
    for other in (tmp_path / "512px").glob("*/*.jpg"):
        other.unlink()  # nothing else may be asked for again
    path = tmp_path / "512px" / "0003" / "3.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(draw_original(3))
    assert fetch_all(work, recipe) == first  # only when asked
    assert fetch_all(work, recipe, rebuild=True) == first
    mended = first - Counter({"missing/no_file": 1}) + Counter(fetched=1)
    assert fetch_all(work, recipe, retry_failed=True) == mended


def test_a_retry_mends_what_failed_and_leaves_the_rest(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 30)
    broken = tmp_path / "512px" / "0004" / "4.jpg"
    broken.unlink()
    broken.mkdir()  # reading it fails, as on a bad disk
    assert fetch_all(work, recipe) == {"fetched": 29, "failed/io": 1}
    before = contents(work)
    broken.rmdir()
    broken.write_bytes(draw_original(4))
    assert fetch_all(work, recipe) == {"fetched": 29, "failed/io": 1}  # only when asked
    assert contents(work) == before
    for other in (tmp_path / "512px").glob("*/*.jpg"):
        if other != broken:
            other.unlink()
    assert fetch_all(work, recipe, retry_failed=True) == {"fetched": 30}
    changed = {path for path, data in contents(work).items() if before[path] != data}
    assert len(changed) == 2  # one tar and its rows
    undisturbed, other_recipe = make_work(tmp_path / "again", 30)
    same = replace(other_recipe, source=replace(other_recipe.source, images=recipe.source.images))
    for post_id in range(1, 31):
        path = tmp_path / "512px" / f"{post_id:04d}" / f"{post_id}.jpg"
        path.write_bytes(draw_original(post_id))
    fetch_all(undisturbed, same)
    assert list(contents(undisturbed).values()) == list(contents(work).values())


def test_a_mistyped_source_replaces_nothing(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 30, odd_original)
    fetch_all(work, recipe)
    before, ledger = contents(work), ledger_of(work)
    (empty := tmp_path / "512").mkdir()
    wrong = replace(recipe, source=replace(recipe.source, images=f"{empty}/{{id}}.jpg"))
    with pytest.raises(UserError, match=r"512/\{id\}\.jpg: has not one .* stay\. Is it mistyped"):
        fetch_all(work, wrong)
    assert (contents(work), ledger_of(work)) == (before, ledger)
    (empty / "1.jpg").write_bytes(draw_original(1))
    for name in planned_shards(work.plan_path):  # what the sentence says to do, where it is right
        rows_path(work.raw_dir, name).unlink()
    assert fetch_all(work, wrong) == {"fetched": 1, "missing/no_file": 29}


def test_the_ledger_counts_attempts_over_runs(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 5)
    broken = tmp_path / "512px" / "0004" / "4.jpg"
    broken.unlink()
    broken.mkdir()
    for _ in range(3):
        fetch_all(work, recipe, retry_failed=True)
    attempts = {post_id: row["attempts"] for post_id, row in ledger_of(work).items()}
    assert attempts == {1: 1, 2: 1, 3: 1, 4: 3, 5: 1}


def test_a_damaged_shard_is_fetched_again(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 10)
    fetch_all(work, recipe)
    before = contents(work)
    name = next(iter(planned_shards(work.plan_path)))
    tar = tar_path(work.raw_dir, name)
    tar.write_bytes(tar.read_bytes()[:-512])
    fetch_all(work, recipe)
    assert contents(work) == before


def test_what_no_retry_mends_is_never_asked_for_again(
    tmp_path: Path, httpserver: HTTPServer
) -> None:
    statuses = {1: 404, 2: 410, 3: 451, 4: 403, 5: 500, 6: 200}
    for post_id, status in statuses.items():
        answer = httpserver.expect_request(f"/{post_id}.jpg")
        answer.respond_with_data(draw_original(post_id), status=status)
    work, recipe = make_work(tmp_path, 6)
    source = replace(recipe.source, images=httpserver.url_for("/{id}.jpg"), attempts=1)
    for _ in range(3):
        fetch_all(work, replace(recipe, source=source), retry_failed=True)
        close_shared_clients()
    asked = Counter(request.path for request, _ in httpserver.log)
    assert asked == {f"/{post_id}.jpg": 3 if post_id == 5 else 1 for post_id in statuses}
    ledger = ledger_of(work)
    assert {post_id: row["http_status"] for post_id, row in ledger.items()} == statuses
    assert {post_id: row["attempts"] for post_id, row in ledger.items()} == {
        post_id: 3 if post_id == 5 else 1 for post_id in statuses
    }
    assert ledger[6]["num_bytes"] == len(draw_original(6))
    assert all(row["seconds"] > 0 and row["asked_at"] for row in ledger.values())


@pytest.mark.parametrize("num_posts", [10, 80])
def test_another_plan_takes_over_what_is_fetched(tmp_path: Path, num_posts: int) -> None:
    work, recipe = make_work(tmp_path, 40)
    fetch_all(work, recipe)
    for post_id in range(1, 41):
        (tmp_path / "512px" / f"{post_id:04d}" / f"{post_id}.jpg").unlink()
    earlier = work.reuse_dir / "1"
    earlier.mkdir(parents=True)
    for directory in (work.raw_dir, work.ledger_dir):
        directory.rename(earlier / directory.name)
    work.plan_path.unlink()
    plan_work(work, recipe, num_posts)
    fates = fetch_all(work, recipe)
    assert fates["fetched"] == min(num_posts, 40)
    assert fates.total() == num_posts
    ledger = ledger_of(work)
    assert sorted(ledger) == list(range(1, num_posts + 1))
    assert {row["attempts"] for row in ledger.values()} == {1}


@pytest.mark.parametrize("column", ["thumbnail", "key", "format"])
def test_rows_that_were_tampered_with_are_not_carried_on(tmp_path: Path, column: str) -> None:
    """Neither a damaged value nor a hostile name gets into a shard that is sealed anew."""
    work, recipe = make_work(tmp_path, 10)
    fetch_all(work, recipe)
    before = contents(work)
    name = next(iter(planned_shards(work.plan_path)))
    path = rows_path(work.raw_dir, name)
    table, info = read_shard(work.raw_dir, name, RAW)
    index = RAW.get_field_index(column)
    value = b"evilevil" * 24 if column == "thumbnail" else "../../evil"
    odd = pa.array([value] * len(table), RAW.field(index).type)
    table = table.set_column(index, RAW.field(index), odd)
    write_rows(path, [table], info)
    if column == "thumbnail":  # carried on as it is: the seal is the only thing that can tell
        data = path.read_bytes()
        assert b"evilevil" in data
        path.write_bytes(data.replace(b"evilevil", b"evilEvil"))
    fetch_all(work, recipe, rebuild=True)
    assert contents(work) == before


def test_bytes_that_were_damaged_are_not_carried_on(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 10)
    fetch_all(work, recipe)
    before = contents(work)
    path = tar_path(work.raw_dir, next(iter(planned_shards(work.plan_path))))
    flip(path, 3000)
    fetch_all(work, recipe, rebuild=True)
    assert contents(work) == before


def test_what_was_got_under_other_settings_is_not_carried_on(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 10)
    fetch_all(work, recipe)
    tight = replace(recipe, source=replace(recipe.source, max_pixels=10))
    assert fetch_all(work, tight) == {"rejected/too_many_pixels": 10}


def test_the_picture_of_a_post_that_has_another_now_is_not_carried_on(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 6)
    fetch_all(work, recipe)
    posts = [replace(POST, id=post_id, md5=f"{post_id:032x}") for post_id in range(1, 7)]
    table = plan_posts(posts, recipe.split)
    info = {"counts": {"planned": 6}, "num_records": 6, "content": hash_table(table)}
    write_plan(work.plan_path, table, info)
    for path in (tmp_path / "512px").glob("*/*.jpg"):
        path.unlink()
    assert fetch_all(work, recipe) == {"missing/no_file": 6}


def test_what_was_got_is_looked_at_again_where_its_record_has_another_size(tmp_path: Path) -> None:
    def draw_dark_edges(post_id: int) -> bytes:
        picture = draw_picture(post_id, 400, 300)
        picture[:, :20] = picture[:, -20:] = 5  # which only a record tells from black bars
        return encoded(letterboxed(picture))

    work, recipe = make_work(tmp_path, 6, draw_dark_edges)
    sized = work.plan_path.read_bytes()
    unsized = plan_posts([replace(POST, id=i, width=0) for i in range(1, 7)], recipe.split)
    info = {"counts": {"planned": 6}, "num_records": 6, "content": hash_table(unsized)}
    write_plan(work.plan_path, unsized, info)
    fetch_all(work, recipe)
    work.plan_path.write_bytes(sized)
    fetch_all(work, recipe)
    found = contents(work)
    shutil.rmtree(work.raw_dir)
    fetch_all(work, recipe)
    assert found == contents(work)


def test_the_same_bytes_with_any_number_of_connections(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 20)
    fetch_all(work, recipe)
    before = contents(work)
    shutil.rmtree(work.raw_dir)
    fetch_all(work, replace(recipe, source=replace(recipe.source, connections=1)))
    assert contents(work) == before


@pytest.mark.parametrize(("num_workers", "num_threads"), [(1, 8), (3, 2), (7, 1), (40, 1)])
def test_workers_have_no_more_connections_together_than_the_source_allows(
    num_workers: int, num_threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[int] = []

    def make_pool(num_threads: int) -> ThreadPoolExecutor:
        pools.append(num_threads)
        return ThreadPoolExecutor(num_threads)

    monkeypatch.setattr(fetch, "ThreadPoolExecutor", make_pool)
    work, recipe = make_work(tmp_path, 1)
    fetch_all(work, recipe, num_workers=num_workers)
    assert recipe.source.connections == 8
    assert pools == [num_threads]


def test_what_failed_is_asked_for_again_where_a_shard_is_made_anew(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 6)
    path = tmp_path / "512px" / "0003" / "3.jpg"
    data = path.read_bytes()
    path.unlink()
    path.mkdir()
    assert fetch_all(work, recipe) == {"fetched": 5, "failed/io": 1}
    path.rmdir()
    path.write_bytes(data)
    assert fetch_all(work, recipe) == {"fetched": 5, "failed/io": 1}
    assert fetch_all(work, recipe, rebuild=True) == {"fetched": 6}


def test_of_two_ledgers_the_later_runs_has_the_last_word(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 6)
    fetch_all(work, recipe)
    name = next(iter(planned_shards(work.plan_path)))
    aside = work.reuse_dir / "1"
    shutil.copytree(work.raw_dir, aside / "raw")
    path = rows_path(work.ledger_dir, name)
    rows = read_rows(path, LEDGER)
    older = [row | {"attempts": 7} for row in rows.to_pylist()]
    write_rows(rows_path(aside / "ledger", name), [build_table(older, LEDGER)], read_info(path))
    shards = find_earlier(work, name, older)
    assert list(recall_ledger(shards).values()) == rows.to_pylist()
    path.unlink()
    assert list(recall_ledger(shards).values()) == older


def test_what_was_set_aside_for_another_plan_counts_as_settled(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 6)
    fetch_all(work, recipe)
    posts = pa.concat_tables(
        [read_planned(work.plan_path, name) for name in planned_shards(work.plan_path)]
    )
    aside = Work(work.reuse_dir / "1")
    aside.root.mkdir(parents=True)
    work.raw_dir.rename(aside.raw_dir)
    assert count_unfetched(work, posts, recipe.source) == 0
    taken_down = clear_posts(posts, posts["post_id"].to_pylist())
    assert count_unfetched(work, taken_down, recipe.source) == 0
    rows = next(work.reuse_dir.glob("1/raw/*.parquet"))
    num_damaged = len(read_rows(rows, RAW))
    rows.write_bytes(b"damaged")
    assert count_unfetched(work, posts, recipe.source) == num_damaged
    shutil.rmtree(work.reuse_dir)
    assert count_unfetched(work, posts, recipe.source) == 6


def test_what_decides_an_original_is_neither_its_host_nor_how_politely_it_is_asked_for() -> None:
    source = SourceSettings(images="https://a.org/x/{id}.{ext}")
    other = replace(source, images="http://b.org:8000/x/{id}.{ext}", rate=9.0, hosts=("c.org",))
    assert content_settings(other) == content_settings(source)
    local = replace(source, images="/data/x/{id}.{ext}")
    for one, change in (
        (source, {"images": "https://a.org/y/{id}.{ext}"}),
        (local, {"images": "/data/y/{id}.{ext}"}),
        (source, {"layout": "original"}),
        (source, {"max_bytes": 99}),
        (source, {"max_pixels": 99}),
        (source, {"check_md5": True}),
    ):
        assert content_settings(replace(one, **change)) != content_settings(one)
