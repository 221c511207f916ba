"""A takedown in a folder where something is damaged: refused before it begins, or finished."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import run
from pipeline.errors import DamagedError
from pipeline.lockfile.lock import write_lock
from pipeline.maintenance.takedown import take_down
from pipeline.maintenance.verify import verify
from pipeline.planning.plan import planned_recipe
from pipeline.recipe import SplitSettings
from pipeline.records import key_of
from pipeline.report.page import write_report
from pipeline.shards.shard import rows_path, tar_path
from pipeline.share.index import INDEX, LOCK
from pipeline.share.push import push
from pipeline.work import Work
from tests.calls import call
from tests.files import files_in, flip
from tests.shares import QUIET, SHARD
from tests.takedowns import cut_short, holding, members, secrets_of
from tests.works import draw_original, make_source


@pytest.mark.parametrize("name", [LOCK, INDEX])
@pytest.mark.parametrize("is_gone", [True, False])
def test_damaged_papers_of_a_push_keep_no_takedown_from_its_end(
    work: Work, tmp_path: Path, name: str, is_gone: bool
) -> None:
    secrets = secrets_of(work, 3)
    path = work.share_dir / name
    path.unlink() if is_gone else path.write_bytes(path.read_bytes()[:99])
    assert call("takedown", work.root, 3).exit_code == 0
    assert holding(work.root, secrets) == []
    assert verify(work.root) == []
    push(work, str(tmp_path / "there"), QUIET)
    assert verify(tmp_path / "there") == []


def test_damaged_derived_files_keep_no_takedown_from_its_end(work: Work) -> None:
    secrets = secrets_of(work, 3)
    write_report(work, work.report_path)
    work.differences_path.write_bytes(b"post_id,shard\n\n3,\xff\n33,\xff\n")
    tar_path(work.samples_dir, "train-000002").unlink()  # no page can be made without it
    assert call("takedown", work.root, 3).exit_code == 0
    assert work.differences_path.read_bytes() == b"post_id,shard\n\n33,\xff\n"
    assert holding(work.root, secrets) == []
    assert not work.report_path.exists()


@pytest.mark.parametrize("place", ["ledger", "lock"])
def test_what_is_damaged_is_mended_before_it_begins(work: Work, place: str) -> None:
    recipe = planned_recipe(work.plan_path)
    lock = write_lock(work, work.root.with_name("lock.parquet"))
    run.fetch(recipe, work, QUIET, lock=lock)
    path, remedy = rows_path(work.ledger_dir, SHARD), "Run `repair` first"
    if place == "lock":
        path, remedy = work.lock_path, "Run the `fetch --locked` that brought it first"
    flip(path)
    before = files_in(work.root)
    with pytest.raises(DamagedError, match=f"{path}: .*{remedy}"):
        take_down(work, [3])
    assert files_in(work.root) == before
    call("repair", work.root, "--workers", 1)
    run.fetch(recipe, work, QUIET, lock=lock)
    take_down(work, [3])
    assert verify(work.root) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    ["raw rows", "raw", "other raw rows", "ledger", "samples rows", "samples", "lock", "plan"],
)
@pytest.mark.parametrize("step", ["clear_plan", "clear_stage"])
def test_damage_since_it_has_begun_keeps_it_from_no_end(
    work: Work, monkeypatch: pytest.MonkeyPatch, step: str, place: str
) -> None:
    recipe, secrets = planned_recipe(work.plan_path), secrets_of(work, 3)
    run.fetch(recipe, work, QUIET, lock=write_lock(work, work.root.with_name("lock.parquet")))
    whole = members(work)
    cut_short(work, [3], step, monkeypatch)
    harmed = {
        "raw rows": rows_path(work.raw_dir, SHARD),
        "raw": tar_path(work.raw_dir, SHARD),
        "other raw rows": rows_path(work.raw_dir, "train-000002"),
        "ledger": rows_path(work.ledger_dir, SHARD),
        "samples rows": rows_path(work.samples_dir, SHARD),
        "samples": tar_path(work.samples_dir, SHARD),
        "lock": work.lock_path,
        "plan": work.plan_path,
    }
    flip(harmed[place])
    assert call("takedown", work.root).exit_code == 0
    if place != "other raw rows":  # which nobody can read yet
        assert holding(work.root, secrets) == []
    call("repair", work.root, "--workers", 1)
    run.fetch(recipe, work, QUIET)
    run.prepare(recipe, work, QUIET)
    assert verify(work.root) == []
    assert holding(work.root, secrets) == []
    assert members(work) == {n: d for n, d in whole.items() if not n.startswith(key_of(3))}


@pytest.mark.parametrize("step", ["", "clear_plan", "clear_stage"])
def test_of_a_damaged_list_it_says_what_mends_it(
    work: Work, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    recipe, secrets, whole = planned_recipe(work.plan_path), secrets_of(work, 3), members(work)
    if step:
        cut_short(work, [3], step, monkeypatch)
    else:
        take_down(work, [3])
    flip(work.removals_path)
    with pytest.raises(DamagedError, match="Remove it, and run `takedown` with the ids of all"):
        run.fetch(recipe, work, QUIET)
    work.removals_path.unlink()  # as it says
    take_down(work, [3])
    run.fetch(recipe, work, QUIET, replan=True)
    run.prepare(recipe, work, QUIET)
    assert verify(work.root) == []
    assert holding(work.root, secrets) == []
    assert members(work) == {n: d for n, d in whole.items() if not n.startswith(key_of(3))}


@pytest.mark.parametrize("post_id", [0, 2**63])
def test_a_list_of_what_is_no_post_is_damaged(work: Work, post_id: int) -> None:
    work.removals_path.write_text(json.dumps({"post_ids": [post_id]}))
    with pytest.raises(DamagedError, match="Remove it, and run `takedown` with the ids of all"):
        run.fetch(planned_recipe(work.plan_path), work, QUIET, replan=True)


def test_a_tar_without_rows_is_no_hiding_place(work: Work) -> None:
    secrets = secrets_of(work, 3)
    for directory in (work.raw_dir, work.samples_dir):
        rows_path(directory, SHARD).unlink()
    take_down(work, [3])
    assert holding(work.root, secrets) == []


def test_what_was_left_out_for_its_sake_comes_back(tmp_path: Path) -> None:
    """14 shows the picture of 5, which is in another split; 13 is its parent, and left out too."""
    recipe = make_source(tmp_path, 16, lambda n: draw_original(5 if n == 14 else n))
    recipe = replace(recipe, split=SplitSettings(train=0.5, val=0.5, test=0, shard_size=10))
    work, fresh = Work(tmp_path / "work"), Work(tmp_path / "fresh")
    run.fetch(recipe, work, QUIET)
    assert run.prepare(recipe, work, QUIET).fates["duplicate/family"] == 1
    before = members(work)
    shutil.copytree(work.root, tmp_path / "both")
    done = take_down(Work(tmp_path / "both"), [5, 14])
    assert (done.post_ids, done.also) == ([5, 14], [])
    assert take_down(work, [5]).also == [14]
    after = members(work)
    assert after == {name: data for name, data in before.items() if not name.startswith(key_of(5))}
    run.prepare(recipe, work, QUIET)
    fresh.root.mkdir()
    fresh.removals_path.write_bytes(work.removals_path.read_bytes())
    run.fetch(recipe, fresh, QUIET)
    run.prepare(recipe, fresh, QUIET)
    assert members(work) == members(fresh)
    assert len(members(work)) == len(after) + 3
