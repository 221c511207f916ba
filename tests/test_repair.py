"""repair: whatever breaks, the folder is afterwards what it was, and little is asked for again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from pipeline.errors import UserError
from pipeline.executor import Summary
from pipeline.maintenance.repair import Repaired, repair
from pipeline.maintenance.verify import verify
from pipeline.planning.plan import planned_shards, read_planned, write_plan
from pipeline.schema import LEDGER, RAW, SAMPLES
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import read_shard, rows_path, tar_path
from pipeline.stages.fetch import FetchStage
from pipeline.work import Work
from tests.crashing import contents, make_source
from tests.crashing import fetch as run_fetch
from tests.crashing import prepare as run_prepare
from tests.files import append, flip
from tests.shares import make_prepared

QUIET = Console(quiet=True)
FIRST = "train-000000"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    make_source(root)
    run_fetch(root, Work(root / "work"))
    run_prepare(root, Work(root / "work"))
    shutil.copytree(root / "original", root / "safe")
    return root


@pytest.fixture
def scene(made: Path, tmp_path: Path) -> "Scene":
    """A copy of the folder, and of the originals where the plan says that they are."""
    shutil.copytree(made / "work", tmp_path / "work")
    shutil.copytree(made / "safe", made / "original", dirs_exist_ok=True)
    return Scene(made, Work(tmp_path / "work"))


class Scene:
    def __init__(self, root: Path, work: Work) -> None:
        self.root = root
        self.work = work
        self.expected = contents(work) | {"plan": work.plan_path.read_bytes()}

    def keep_originals(self, *post_ids: int) -> None:
        for path in (self.root / "original").iterdir():
            if int(path.stem) not in post_ids:
                path.unlink()

    def repair(self, images: str = "") -> Repaired:
        return repair(self.work, QUIET, images=images)

    def assert_as_before(self) -> None:
        assert verify(self.work.root) == []
        assert contents(self.work) | {"plan": self.work.plan_path.read_bytes()} == self.expected


def posts_of(work: Work, name: str) -> list[int]:
    return [int(post) for post in read_planned(work.plan_path, name)["post_id"].to_pylist()]


def other_rows(directory: Path) -> None:
    for path in (tar_path, rows_path):
        shutil.copy(path(directory, "val-000000"), path(directory, FIRST))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flip in tar": lambda d: flip(tar_path(d, FIRST), 5000),
    "flip in padding": lambda d: flip(tar_path(d, FIRST), -1),
    "flip in rows": lambda d: flip(rows_path(d, FIRST), 300),
    "tar cut": lambda d: os.truncate(tar_path(d, FIRST), 1000),
    "tar too long": lambda d: append(tar_path(d, FIRST)),
    "tar missing": lambda d: tar_path(d, FIRST).unlink(),
    "rows missing": lambda d: rows_path(d, FIRST).unlink(),
    "rows empty": lambda d: os.truncate(rows_path(d, FIRST), 0),
    "another shard's files": other_rows,
    "half-written file": lambda d: (d / ".train-000000.tar.tmp").write_text("?"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_samples_are_made_anew_without_asking_for_anything(scene: Scene, damage: str) -> None:
    DAMAGE[damage](scene.work.samples_dir)
    scene.keep_originals()
    others = {path: path.stat().st_mtime_ns for path in scene.work.raw_dir.iterdir()}
    assert scene.repair() == Repaired()
    scene.assert_as_before()
    assert {path: path.stat().st_mtime_ns for path in scene.work.raw_dir.iterdir()} == others


@pytest.mark.parametrize("damage", DAMAGE)
def test_originals_are_fetched_anew(scene: Scene, damage: str) -> None:
    DAMAGE[damage](scene.work.raw_dir)
    scene.keep_originals(*posts_of(scene.work, FIRST))
    assert scene.repair() == Repaired()
    scene.assert_as_before()


def test_a_server_is_asked_by_no_more_workers_than_a_fetch_would_have(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(tar_path(scene.work.raw_dir, FIRST))
    asked: list[tuple[int, int]] = []

    def take_down(stage: FetchStage, sizes: object, num_workers: int, *_: object) -> Summary:
        asked.append((stage.num_workers, num_workers))
        return Summary()

    monkeypatch.setattr("pipeline.maintenance.repair.run_stage", take_down)
    images = f"http://127.0.0.1:9/{scene.root}/original/{{id}}.jpg"
    repair(scene.work, QUIET, images=images, num_workers=40)
    assert asked == [(8, 8)]  # `source.connections`


def test_both_stages_are_mended_at_once(scene: Scene) -> None:
    DAMAGE["flip in rows"](scene.work.raw_dir)
    DAMAGE["tar cut"](scene.work.samples_dir)
    flip(tar_path(scene.work.samples_dir, "val-000000"), 700)
    assert scene.repair() == Repaired()
    scene.assert_as_before()


def test_only_originals_whose_bytes_are_lost_are_asked_for(scene: Scene) -> None:
    row = read_shard(scene.work.raw_dir, FIRST, RAW)[0].to_pylist()[1]
    flip(tar_path(scene.work.raw_dir, FIRST), row["offset"] + 7)
    scene.keep_originals(row["post_id"])
    assert scene.repair() == Repaired()
    scene.assert_as_before()


def test_a_lost_ledger_is_written_anew_and_says_that_it_was_lost(scene: Scene) -> None:
    path = rows_path(scene.work.ledger_dir, FIRST)
    flip(path, 200)
    scene.keep_originals()
    assert scene.repair() == Repaired()
    scene.assert_as_before()
    rows = read_rows(path, LEDGER).to_pylist()
    assert [row["post_id"] for row in rows] == posts_of(scene.work, FIRST)
    assert {(row["attempts"], row["asked_at"]) for row in rows} == {(0, None)}
    assert all(row["num_bytes"] > 0 for row in rows)


def test_foreign_files_are_named_and_left(scene: Scene) -> None:
    foreign = [scene.work.raw_dir / "notes.txt", scene.work.samples_dir / "train-000999.tar"]
    for path in foreign:
        path.write_text("mine")
    DAMAGE["flip in tar"](scene.work.samples_dir)
    repaired = scene.repair()
    assert [problem.path for problem in repaired.problems] == foreign
    for path in foreign:
        assert path.read_text() == "mine"
        path.unlink()
    scene.assert_as_before()


def test_a_damaged_plan_is_planned_anew(scene: Scene) -> None:
    flip(scene.work.plan_path, 300)
    DAMAGE["flip in tar"](scene.work.raw_dir)
    assert scene.repair() == Repaired()
    scene.assert_as_before()


@pytest.mark.parametrize("size", [0, 1000])
def test_a_plan_that_is_gone_is_left_to_fetch(scene: Scene, size: int) -> None:
    os.truncate(scene.work.plan_path, size)
    with pytest.raises(UserError, match="delete it and run the same `fetch` command"):
        scene.repair()
    scene.work.plan_path.unlink()
    with pytest.raises(UserError, match="is not there; run the same `fetch` command"):
        scene.repair()
    scene.keep_originals()
    run_fetch(scene.root, scene.work)
    scene.assert_as_before()


def test_another_plan_is_never_put_in_place(scene: Scene) -> None:
    plan, info = scene.work.plan_path, read_info(scene.work.plan_path)
    names = list(planned_shards(plan))
    posts = pa.concat_tables([read_planned(plan, name) for name in names])
    write_plan(plan, posts, info | {"limit": 3})
    flip(plan, 300)
    with pytest.raises(UserError, match="no longer gives this plan"):
        scene.repair()
    assert [path.name for path in scene.work.root.glob(".*.tmp")] == []


def test_a_plan_of_metadata_that_has_grown_is_left_to_replan(tmp_path: Path) -> None:
    make_source(tmp_path)
    metadata, work = tmp_path / "posts.json", Work(tmp_path / "work")
    whole = metadata.read_text()
    metadata.write_text("\n".join(whole.splitlines()[:4]))
    run_fetch(tmp_path, work)
    metadata.write_text(whole)
    flip(work.plan_path, 300)
    with pytest.raises(UserError, match="with --replan: what is fetched is used again"):
        repair(work, QUIET)
    for post_id in range(1, 5):
        (tmp_path / "original" / f"{post_id}.jpg").unlink()
    assert run_fetch(tmp_path, work, replan=True).fates == {"fetched": 6}
    assert verify(work.root) == []


def test_a_source_that_is_another_one_is_refused(scene: Scene) -> None:
    DAMAGE["flip in tar"](scene.work.raw_dir)
    with pytest.raises(UserError, match="give the --images that they came from"):
        scene.repair(images=f"{scene.root}/elsewhere/{{id}}.jpg")


def test_what_the_source_has_lost_is_a_fate_and_is_said(scene: Scene) -> None:
    row = read_shard(scene.work.raw_dir, FIRST, RAW)[0].to_pylist()[1]
    flip(tar_path(scene.work.raw_dir, FIRST), row["offset"] + 7)
    scene.keep_originals()
    repaired = scene.repair()
    assert repaired == Repaired(stale=[FIRST])
    found = {
        row["post_id"]: row["status"]
        for row in read_shard(scene.work.raw_dir, FIRST, RAW)[0].to_pylist()
    }
    assert found.pop(row["post_id"]) == "missing"
    assert set(found.values()) == {"fetched"}


def test_samples_of_unknown_settings_are_removed_and_named(scene: Scene) -> None:
    for name in planned_shards(scene.work.plan_path):
        flip(rows_path(scene.work.samples_dir, name), 300)
    repaired = scene.repair()
    assert sorted(repaired.removed) == sorted(planned_shards(scene.work.plan_path))
    assert repaired.problems == []
    run_prepare(scene.root, scene.work)
    scene.assert_as_before()


def test_samples_among_others_of_different_settings_are_removed_and_named(tmp_path: Path) -> None:
    work = make_prepared(tmp_path)
    broken, other, *_ = (
        rows_path(work.samples_dir, name) for name in planned_shards(work.plan_path)
    )
    info = read_info(other)
    info["recipe"]["prepare"]["jpeg_quality"] = 50
    write_rows(other, [read_rows(other, SAMPLES)], info)
    flip(broken, 300)
    assert repair(work, QUIET).removed == [broken.stem]


@pytest.mark.parametrize("images", ["", "elsewhere/{id}.jpg"])
def test_no_file_is_opened_that_only_rows_or_a_pulled_plan_name(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], images: str
) -> None:
    path = rows_path(scene.work.samples_dir, FIRST)
    (tmp_path / "bait").write_text("private")
    info = read_info(path)
    bait = {"model": str(tmp_path / "bait"), "sha256": "0" * 64}
    info["recipe"]["prepare"]["sketch"] |= {"method": "onnx", "onnx": bait}
    write_rows(path, [read_rows(path, SAMPLES)], info)
    flip(tar_path(scene.work.samples_dir, FIRST), 700)
    damaged = contents(scene.work)
    if not images:  # as `pull` leaves a plan
        plan = scene.work.plan_path
        told = read_info(plan)
        told["recipe"]["prepare"] = info["recipe"]["prepare"]
        told["recipe"]["source"] |= {"images": images}
        groups = [read_planned(plan, name) for name in planned_shards(plan)]
        write_rows(plan, groups, told)
    repaired = repair(scene.work, Console())
    assert "was drawn by bait, which the recipe" in " ".join(capsys.readouterr().out.split())
    assert {problem.shard for problem in repaired.problems} == {FIRST}
    assert contents(scene.work) == damaged


def test_samples_without_originals_stay_as_they_are(scene: Scene) -> None:
    shutil.rmtree(scene.work.raw_dir)
    shutil.rmtree(scene.work.ledger_dir)
    DAMAGE["flip in tar"](scene.work.samples_dir)
    damaged = contents(scene.work)
    repaired = scene.repair()
    assert {problem.shard for problem in repaired.problems} == {FIRST}
    assert contents(scene.work) == damaged


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a work folder nor a folder of shards"):
        repair(Work(tmp_path), QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_whole_folder_is_left_alone(scene: Scene) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in scene.work.root.rglob("*.*")}
    scene.keep_originals()
    assert scene.repair() == Repaired()
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
