"""takedown: nothing is left of a post but its id and fate, everything of the others."""

import csv
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import run
from pipeline.errors import UserError
from pipeline.hold import Part
from pipeline.lockfile.differences import compare
from pipeline.lockfile.lock import read_lock, write_lock
from pipeline.maintenance.status import read_status
from pipeline.maintenance.takedown import take_down
from pipeline.maintenance.verify import verify
from pipeline.planning.make import make_plan
from pipeline.planning.plan import planned_recipe
from pipeline.recipe_file import load_recipe
from pipeline.records import key_of
from pipeline.removals import Removals, read_removals
from pipeline.report.page import render_report, write_report
from pipeline.schema import LEDGER, RAW, SAMPLES, SELECTION
from pipeline.shards.rows import read_rows
from pipeline.shards.shard import list_shards, remove_shard, rows_path, tar_path
from pipeline.share.index import CARD, CROISSANT, LOCK
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.share.sidecars import describe, path_of
from pipeline.stages.reuse import count_unfetched
from pipeline.work import Work
from tests.calls import call
from tests.files import files_in, flip
from tests.shares import NUM_POSTS, NUM_SAMPLES, QUIET, load_index, make_prepared
from tests.takedowns import cut_short, holding, members, readable, secrets_of

GONE = (3, 18)  # both in one shard, and one family with nobody else


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    work = make_prepared(root)
    push(work, str(root / "there"), QUIET)
    write_report(work, work.report_path)
    return root


def test_a_report_that_a_takedown_overtakes_is_not_left(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(shown: Work) -> str:
        made = render_report(shown)
        take_down(work, GONE)
        return made

    work.report_path.unlink()
    monkeypatch.setattr("pipeline.report.page.render_report", render)
    with pytest.raises(UserError, match="posts were taken down meanwhile; run `report` again"):
        write_report(work, work.report_path)
    assert not work.report_path.exists()


def test_nothing_is_left_but_the_id_and_the_fate(work: Work) -> None:
    secrets = [secret for post_id in GONE for secret in secrets_of(work, post_id)]
    assert len(secrets) >= 2 * 11
    before = readable(work.root).values()
    assert all(any(secret in data for data in before) for secret in secrets)
    assert len(holding(work.root, secrets)) == 6  # plan, lock, and twice rows and tar
    done = take_down(work, GONE)
    assert (done.post_ids, done.also, done.left) == (sorted(GONE), [], [])
    assert holding(work.root, secrets) == []
    for directory, schema in (
        (work.raw_dir, RAW),
        (work.samples_dir, SAMPLES),
        (work.ledger_dir, LEDGER),
    ):
        rows = read_rows(rows_path(directory, "train-000000"), schema).to_pylist()
        for row in rows:
            if row["post_id"] in GONE:
                assert (row["status"], row["reason"]) == ("removed", "takedown")
                left = {k for k, v in row.items() if v not in (None, "", 0)}
                assert left <= {"post_id", "split", "status", "reason", "family", "rating"}
    plan = read_rows(work.plan_path, SELECTION).to_pylist()
    assert {row["post_id"] for row in plan if row["status"] == "removed"} == set(GONE)
    assert not any(row["tags"] for row in plan if row["post_id"] in GONE)


def test_the_others_stay_byte_for_byte_and_everything_adds_up(work: Work) -> None:
    before, raw = members(work), members(work, "raw")
    untouched = {p.name: p.read_bytes() for p in work.samples_dir.glob("train-000002.*")}
    taken = call("takedown", work.root, *GONE)
    assert taken.exit_code == 0, taken.output
    assert "2 posts taken down, 1 shard written anew" in taken.output
    keys = tuple(map(key_of, GONE))
    assert members(work) == {n: d for n, d in before.items() if not n.startswith(keys)}
    assert members(work, "raw") == {n: d for n, d in raw.items() if not n.startswith(keys)}
    assert {p.name: p.read_bytes() for p in work.samples_dir.glob("train-000002.*")} == untouched
    assert verify(work.root) == []
    status = read_status(work)
    assert status.adds_up
    assert status.select["removed/takedown"] == 2
    for stage in status.stages.values():
        assert stage.fates["removed/takedown"] == 2
    assert status.stages["prepare"].fates["kept"] == NUM_SAMPLES - 2
    page = work.report_path.read_text()
    assert "removed/takedown" in page
    assert call("report", work.root).exit_code == 0
    assert work.report_path.read_text() == page


@pytest.mark.slow
def test_no_later_command_brings_it_back(work: Work) -> None:
    take_down(work, GONE)
    after, recipe = files_in(work.root), planned_recipe(work.plan_path)
    run.fetch(recipe, work, QUIET)
    run.prepare(recipe, work, QUIET)
    assert files_in(work.root) == after  # nothing was even written anew
    run.fetch(recipe, work, QUIET, retry_failed=True)  # one post has no file: it is looked for
    run.prepare(recipe, work, QUIET)
    changed = {name for name, data in files_in(work.root).items() if after[name] != data}
    assert {Path(name).parent.name for name in changed} == {"ledger"}
    after = files_in(work.root)
    again = call("takedown", work.root, *GONE)
    assert again.exit_code == 0
    assert "0 posts taken down, 0 shards written anew" in again.output
    assert {**files_in(work.root), "x": b""} == {**after, "x": b""}

    for path in (work.raw_dir, work.samples_dir, work.ledger_dir):
        shutil.rmtree(path)
    work.plan_path.unlink()
    run.fetch(recipe, work, QUIET)
    run.prepare(recipe, work, QUIET)
    assert verify(work.root) == []
    kept = {name[:9] for name in members(work)}
    assert len(kept) == NUM_SAMPLES - 2
    assert not kept & set(map(key_of, GONE))
    assert not {name[:9] for name in members(work, "raw")} & set(map(key_of, GONE))


@pytest.mark.slow
def test_a_lock_keeps_the_gap_and_no_old_lock_fills_it(work: Work, tmp_path: Path) -> None:
    recipe = planned_recipe(work.plan_path)
    old = write_lock(work, tmp_path / "old.parquet")
    run.fetch(recipe, work, QUIET, lock=old)
    assert work.lock_path.is_file()
    (work.root / "differences.csv").write_text("post_id,shard\n3,train-000000\n33,train-000000\n")
    take_down(work, GONE)
    with work.differences_path.open() as file:
        assert [line[0] for line in csv.reader(file)] == ["post_id", "33"]
    for path in (work.lock_path, work.share_dir / LOCK):
        lock = read_lock(path)
        assert lock.info.fates["removed/takedown"] == 2
        row = next(r for r in lock.posts.to_pylist() if r["post_id"] == 3)
        gone = (row["md5"], row["sha256"], row["sample_sha256"], row["tags"])
        assert gone == (None, None, None, [""])
        words = pq.read_table(path)["tags"].combine_chunks().values.dictionary.to_pylist()
        assert sorted(words) == ["", "miku", "smile", "solo"]
    with pytest.raises(UserError, match="were taken down in this folder"):
        run.fetch(recipe, work, QUIET, lock=old)
    with pytest.raises(UserError, match="were taken down in this folder"):
        make_plan(recipe, None, old, read_removals(work.removals_path).post_ids)
    new = write_lock(work, tmp_path / "new.parquet")
    run.fetch(recipe, work, QUIET, lock=new)
    assert compare(new, work, recipe).num_different == 0
    assert verify(work.root) == []
    again = Work(tmp_path / "again")
    run.fetch(recipe, again, QUIET, lock=new)
    run.prepare(recipe, again, QUIET)
    assert members(again) == members(work)
    compared = run.fetch(recipe, again, QUIET, lock=new)
    assert compared.fates["removed/takedown"] == 2


@pytest.mark.slow
def test_what_was_shared_follows(work: Work, tmp_path: Path) -> None:
    there = tmp_path / "there"
    push(work, str(there), QUIET)
    again = Work(tmp_path / "again")
    pull(str(there), again, QUIET)
    write_report(again, again.report_path)
    again.style_dir.mkdir()
    again.differences_path.touch()
    secrets = [secret for post_id in GONE for secret in secrets_of(work, post_id)]
    take_down(work, GONE)
    index = load_index(there)
    files = load_index(work.share_dir).files
    assert [describe(path_of(work, file.name), file.name) for file in files] == [*files]
    card = (work.share_dir / CARD).read_text()
    assert "| removed/takedown | 2 |" in card
    assert f"{NUM_SAMPLES - 2} samples" in card
    moved = push(work, str(there), QUIET)
    assert moved.num_moved == 2 + len({CARD, CROISSANT, LOCK})
    assert load_index(there).fingerprint != index.fingerprint
    assert pull(str(there), again, QUIET).num_moved == moved.num_moved
    assert members(again) == members(work)
    assert verify(again.root) == []
    assert holding(there, secrets) == holding(again.root, secrets) == []
    derived = (again.report_path, again.style_dir, again.differences_path)
    assert not any(map(Path.exists, derived))  # they may show what is gone


def test_a_pulled_folder_takes_down_as_well(made: Path, tmp_path: Path) -> None:
    work = Work(tmp_path / "pulled")
    pull(str(made / "there"), work, QUIET)
    before = members(work)
    secrets = secrets_of(work, 3)
    work.incoming_dir.mkdir()  # of a pull that was cut short
    shutil.copy(tar_path(work.samples_dir, "train-000000"), work.incoming_dir)
    work.duplicates_path.touch()
    take_down(work, [3])
    assert members(work) == {n: d for n, d in before.items() if not n.startswith(key_of(3))}
    assert verify(work.root) == []
    assert holding(work.root, secrets) == []
    assert not work.incoming_dir.exists()
    assert not work.duplicates_path.exists()
    push(work, str(tmp_path / "onwards"), QUIET)
    again = Work(tmp_path / "again")
    pull(str(tmp_path / "onwards"), again, QUIET)
    assert members(again) == members(work)
    with pytest.raises(UserError, match="were taken down in this folder"):
        pull(str(made / "there"), work, QUIET)


def duplicate_of(work: Work) -> tuple[int, int]:
    """Return a post that repeats another's picture, and that one."""
    for name in list_shards(work.samples_dir):
        for row in read_rows(rows_path(work.samples_dir, name), SAMPLES).to_pylist():
            if row["duplicate_of"] is not None:
                return row["post_id"], row["duplicate_of"]
    raise AssertionError("no duplicates")


@pytest.mark.parametrize("is_prepared", [True, False])
def test_no_copy_of_the_picture_takes_its_place(work: Work, is_prepared: bool) -> None:
    copy, lead = duplicate_of(work)
    if not is_prepared:
        shutil.rmtree(work.samples_dir)
    told = call("takedown", work.root, lead)
    assert f"among them, for they show the same picture: {copy}" in told.output
    before = members(work)
    run.prepare(planned_recipe(work.plan_path), work, QUIET)
    assert members(work) == before or not is_prepared
    assert not any(name.startswith(key_of(copy)) for name in members(work))
    assert not any(name.startswith(key_of(copy)) for name in members(work, "raw"))


def test_of_a_copy_it_says_what_stays(work: Work) -> None:
    copy, lead = duplicate_of(work)
    told = call("takedown", work.root, copy)
    assert f"left, though they show the same picture: {lead}" in told.output
    assert any(name.startswith(key_of(lead)) for name in members(work))
    assert verify(work.root) == []


@pytest.mark.parametrize("step", ["clear_plan", "clear_stage"])
def test_a_takedown_that_is_cut_short_is_finished_before_anything_else(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    whole = Work(tmp_path / "whole")
    shutil.copytree(work.root, whole.root)
    take_down(whole, GONE)
    cut_short(work, GONE, step, monkeypatch)
    recipe = planned_recipe(work.plan_path)
    for command in (
        lambda: run.fetch(recipe, work, QUIET),
        lambda: run.prepare(recipe, work, QUIET),
        lambda: push(work, str(tmp_path / "there"), QUIET),
    ):
        with pytest.raises(UserError, match="a takedown was cut short"):
            command()
    for words in (("report", work.root), ("lock", work.share_dir, "--work", work.root)):
        assert "a takedown was cut short" in str(call(*words).exception)
    assert any("was cut short" in str(problem) for problem in verify(work.root))
    with pytest.raises(UserError, match="finish the last takedown first"):
        take_down(work, [1])
    finished = call("takedown", work.root)
    assert finished.exit_code == 0, finished.output
    assert f"{work.root}: the takedown is finished, 1 shard written anew." in finished.output
    assert files_in(work.root) == files_in(whole.root)
    assert verify(work.root) == []
    assert read_removals(work.removals_path) == Removals(GONE)


def keep_aside(work: Work) -> Work:
    """Leave what a folder has as an earlier plan's as well, and that plan, as was usual once."""
    aside = Work(work.reuse_dir / "1")
    shutil.copytree(work.raw_dir, aside.raw_dir)
    shutil.copytree(work.ledger_dir, aside.ledger_dir)
    shutil.copy(work.plan_path, aside.plan_path)
    return aside


def test_what_an_earlier_plan_left_is_cleared_too(work: Work, tmp_path: Path) -> None:
    secrets = secrets_of(work, 3)
    keep_aside(work)
    (work.root / "style").mkdir()
    (work.root / "style" / "features.bin").write_bytes(b"x")
    take_down(work, [3])
    assert not (work.root / "style").exists()
    assert holding(work.root, secrets) == []


def test_a_post_of_an_earlier_plan_alone_is_known(work: Work) -> None:
    """Ranks leave the originals of that plan for a whole run to clear away."""
    secrets = secrets_of(work, 18)
    recipe = planned_recipe(work.plan_path)
    for rank in range(2):
        run.fetch(recipe, work, QUIET, limit=10, replan=True, part=Part(rank, 2))
    assert any(work.reuse_dir.name in name for name in holding(work.root, secrets))
    take_down(work, [18])
    assert holding(work.root, secrets) == []
    assert verify(work.root) == []
    fates = run.fetch(recipe, work, QUIET, replan=True).fates
    assert fates["removed/takedown"] == 1
    assert holding(work.root, secrets) == []


def test_a_damaged_shard_of_an_earlier_plan_keeps_no_takedown_from_its_end(work: Work) -> None:
    secrets = secrets_of(work, 3)
    aside = keep_aside(work)
    names = list_shards(aside.raw_dir)
    flip(rows_path(aside.raw_dir, "train-000000"), 300)
    take_down(work, [3])
    assert holding(work.root, secrets) == []
    assert list_shards(aside.raw_dir) == [name for name in names if name != "train-000000"]
    run.fetch(planned_recipe(work.plan_path), work, QUIET)
    assert verify(work.root) == []


def test_an_earlier_plan_that_is_damaged_keeps_no_takedown_from_its_end(work: Work) -> None:
    secrets = secrets_of(work, 3)
    aside = keep_aside(work)
    flip(aside.plan_path, 300)
    names = list_shards(aside.raw_dir)
    take_down(work, [3])
    assert holding(work.root, secrets) == []
    assert list_shards(aside.raw_dir) == names
    remove_shard(work.raw_dir, "train-000000")
    plan = read_rows(work.plan_path, SELECTION)  # --dry-run counts what `fetch` will ask for
    assert count_unfetched(work, plan, planned_recipe(work.plan_path).source) == 0
    run.fetch(planned_recipe(work.plan_path), work, QUIET)
    assert verify(work.root) == []


def test_wrong_use_changes_nothing(work: Work, tmp_path: Path) -> None:
    before = files_in(work.root)
    for ids, what in (((NUM_POSTS + 7,), "plans no post 37"), ((), "name the posts")):
        with pytest.raises(UserError, match=what):
            take_down(work, ids)
    with pytest.raises(UserError, match="`fetch` makes it"):
        take_down(Work(tmp_path / "x"), [1])
    assert files_in(work.root) == before
    flip(tar_path(work.samples_dir, "train-000000"), 700)
    with pytest.raises(UserError, match="Run `repair` first"):
        take_down(work, [1, 3])


def test_a_damaged_list_is_a_sentence(work: Work) -> None:
    no_text = b'{"unfinished": {"shards": ["\xff"], "raw": [], "samples": []}}'
    for data in (b"", b"[]", b'{"post_ids": ["x"]}', b'{"x": ' + b"[" * 10**6, no_text):
        work.removals_path.write_bytes(data)
        with pytest.raises(UserError, match=r"takedown\.json"):
            run.prepare(load_recipe(str(work.share_dir)), work, QUIET)
        assert any(problem.path == work.removals_path for problem in verify(work.root))
    work.removals_path.write_text(json.dumps({"post_ids": []}))
    assert verify(work.root) == []
