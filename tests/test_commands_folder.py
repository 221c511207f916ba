"""status, verify, repair, report and lock, as the command line calls them."""

import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline.errors import DamagedError, UserError
from pipeline.schema import RAW
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import list_shards, rows_path, tar_path
from pipeline.work import Work
from tests.calls import call
from tests.crashing import (
    NUM_POSTS,
    contents,
    make_source,
    make_work,
    original_path,
    prepare,
)
from tests.files import flip


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return make_work(tmp_path)


def test_verify_points_to_repair_and_repair_mends(work: Work) -> None:
    before = contents(work)
    flip(tar_path(work.raw_dir, "train-000000"), 5000)
    flip(rows_path(work.samples_dir, "val-000000"), 300)
    found = call("verify", work.root)
    assert found.exit_code == 1
    assert f"`repair {work.root}`" in found.output
    damaged = contents(work)
    foreseen = call("repair", work.root, "--dry-run")
    assert foreseen.exit_code == 0
    assert "would make anew: raw/train-000000, samples/val-000000." in foreseen.output
    assert "original/{id}.jpg" in foreseen.output
    assert contents(work) == damaged
    mended = call("repair", work.root, "--workers", 1)
    assert mended.exit_code == 0, mended.output
    assert mended.output.endswith("every promise holds.\n")
    assert contents(work) == before


@pytest.mark.parametrize("place", ["samples", "raw", "plan", "a page of samples"])
def test_what_finds_damage_says_in_a_line_who_knows_what_mends_it(
    work: Work, tmp_path: Path, place: str
) -> None:
    common = (tmp_path / "recipe.toml", "--work", work.root)
    kept = ("--out", tmp_path / "posts.parquet")
    assert call("lock", *common, *kept).exit_code == 0
    path = rows_path(work.samples_dir, "val-000000")
    commands: list[tuple[object, ...]] = [
        *(("report", work.root), ("push", work.root, tmp_path / "there")),
        *(("lock", *common), ("lock", *common, "--check", *kept)),
    ]
    if place == "a page of samples":  # what they come to can be read
        flip(path, 300)
    else:
        commands.append(("status", work.root))
        if place != "samples":  # these `prepare` makes anew
            commands = [*commands[-1:], ("prepare", *common, "--workers", 1)]
            path = rows_path(work.raw_dir, "val-000000") if place == "raw" else work.plan_path
        path.write_bytes(path.read_bytes()[:90])
    for words in commands:
        error = call(*words).exception
        assert isinstance(error, DamagedError), (words, error)
        assert str(error).startswith(f"{path}: ")
        assert str(error).endswith(f". `verify {work.root}` says what mends it.")
        assert "\n" not in str(error)


def test_what_a_run_makes_anew_is_not_called_damaged_for_good(work: Work) -> None:
    rows_path(work.samples_dir, "val-000000").write_bytes(b"")
    with work.lock():
        said = str(call("status", work.root).exception)
    assert said.endswith(f". A run is using {work.root}: look again when it has ended.")


def test_verify_names_what_mends_a_folder_that_is_no_work_folder(
    work: Work, tmp_path: Path
) -> None:
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    assert call("push", work.root, shared).exit_code == 0
    flip(tar_path(work.raw_dir, "train-000000"), 5000)
    shutil.copytree(work.raw_dir, alone)
    flip(tar_path(shared / "samples", "train-000000"), 700)
    remedies = {
        work.raw_dir: f"`repair {work.root}` makes anew",
        alone: "bring these shards anew",
        shared: "remove what `verify` names there",
        shared / "samples": "remove what `verify` names there",
    }
    for place, remedy in remedies.items():
        names = sorted(path.name for path in place.iterdir())
        assert f"; {remedy}" in call("verify", place).stderr
        for options in ([], ["--dry-run"]):
            refused = str(call("repair", place, *options).exception)
            assert refused.startswith(f"{place}: is no work folder; {remedy}")
        assert sorted(path.name for path in place.iterdir()) == names
    assert call("repair", work.root, "--workers", 1).exit_code == 0
    assert call("verify", work.root).exit_code == 0


@pytest.mark.slow
def test_what_is_said_to_mend_what_is_shared_does(work: Work, tmp_path: Path) -> None:
    shared, pulled = tmp_path / "shared", Work(tmp_path / "pulled")
    call("push", work.root, shared)
    call("pull", shared, pulled.root)
    for tar in (
        tar_path(shared / "samples", "train-000000"),
        tar_path(pulled.samples_dir, "val-000000"),
    ):
        for path in (tar, tar.with_suffix(".parquet")):
            flip(path, -700)
            place = tar.parent.parent
            assert call("verify", place).exit_code == 1
            if place == pulled.root:
                left = call("repair", pulled.root, "--workers", 1)
                assert (
                    "only you can mend: remove these files, and `pull` brings them" in left.output
                )
            path.unlink()
            call("push", work.root, shared)
            call("pull", shared, pulled.root)
            assert call("verify", place).exit_code == 0


def test_without_a_plan_no_repair_is_advised(work: Work) -> None:
    work.plan_path.unlink()
    remedy = "; run the same `fetch` command as before, or `pull` into another folder."
    assert call("verify", work.root).stderr == f"1 problem{remedy}\n"
    assert str(call("repair", work.root).exception).endswith(f"is not there{remedy}")


def test_repair_names_what_it_leaves(work: Work) -> None:
    (work.raw_dir / "notes.txt").write_text("mine")
    left = call("repair", work.root, "--workers", 1)
    assert left.exit_code == 1
    assert "notes.txt: does not belong here" in left.output
    assert left.output.endswith("\n1 problem is left, which only you can mend.\n")


def test_no_fate_that_a_stranger_counts_moves_the_terminals_cursor(work: Work) -> None:
    path = rows_path(work.raw_dir, list_shards(work.raw_dir)[0])
    info = read_info(path)
    info["fates"] = {f"\x1b[2J{fate}": count for fate, count in info["fates"].items()}
    write_rows(path, [read_rows(path, RAW)], info)
    told = call("status", work.root).output
    assert "\ufffd[2Jfetched" in told
    assert "\x1b" not in told


def test_repair_makes_no_folder(tmp_path: Path) -> None:
    assert isinstance(call("repair", tmp_path / "nowhere").exception, UserError)
    assert list(tmp_path.iterdir()) == []


def test_status_shows_the_ledger(work: Work) -> None:
    shown = call("status", work.root)
    took = shown.output.index(f"  {NUM_POSTS} requests for {NUM_POSTS} posts")
    assert shown.output.index("fetch: ") < took < shown.output.index("prepare: ")
    assert "HTTP" not in shown.output  # they lie on disk
    assert "waiting" not in shown.output
    table = json.loads(call("status", work.root, "--json").output)
    assert table["ledger"]["num_attempts"] == NUM_POSTS
    assert table["ledger"]["num_bytes"] > 0
    assert table["fetch"]["num_retryable"] == 0


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_status_fails_where_a_post_has_vanished(work: Work, options: list[str]) -> None:
    path = rows_path(work.raw_dir, "train-000000")
    info = read_info(path)
    info["fates"]["fetched"] -= 1
    write_rows(path, [read_rows(path, RAW)], info)
    told = call("status", work.root, *options)
    assert told.exit_code == 1
    assert told.stderr == f"{work.root}: the fates do not add up; run `verify {work.root}`.\n"


def test_samples_of_originals_that_are_lost_are_for_prepare(work: Work, tmp_path: Path) -> None:
    post_id, offset = first_original(work)
    flip(tar_path(work.raw_dir, "train-000000"), offset)
    picture = original_path(tmp_path, post_id)
    picture.unlink()
    foreseen = call("repair", work.root, "--dry-run").stdout
    assert f"would ask {tmp_path}/original/{{id}}.jpg for originals that are lost.\n" in foreseen
    mended = call("repair", work.root, "--workers", 1)
    assert mended.exit_code == 1
    stale = "samples of train-000000 are missing or out of date; run `prepare` again.\n"
    assert mended.stderr.endswith(stale)
    assert call("verify", work.root).stderr.endswith("; `prepare` makes samples anew.\n")
    foreseen = call("repair", work.root, "--dry-run").stdout
    assert foreseen.endswith("anew: nothing.\nout of date, for `prepare`: train-000000.\n")
    prepare(tmp_path, work)
    assert call("verify", work.root).exit_code == 0


def test_originals_that_did_not_come_are_for_a_retry(work: Work, tmp_path: Path) -> None:
    post_id, offset = first_original(work)
    flip(tar_path(work.raw_dir, "train-000000"), offset)
    picture = original_path(tmp_path, post_id)
    picture.unlink()
    picture.mkdir()  # which cannot be read
    mended = call("repair", work.root, "--workers", 1)
    assert mended.exit_code == 1
    assert mended.stderr.endswith("1 original did not come; run `fetch --retry-failed`.\n")
    assert "  `fetch --retry-failed` asks again for 1\n" in call("status", work.root).stdout


def test_status_counts_all_that_a_retry_asks_for(work: Work) -> None:
    path = rows_path(work.raw_dir, "train-000000")
    info = read_info(path)
    fates = info["fates"]
    fates["fetched"] -= 4
    fates |= {"failed/io": 1, "missing/no_file": 1, "refused/host_not_allowed": 1}
    fates["missing/http_404"] = 1  # which is settled
    write_rows(path, [read_rows(path, RAW)], info)
    assert "  `fetch --retry-failed` asks again for 3\n" in call("status", work.root).stdout
    table = json.loads(call("status", work.root, "--json").stdout)
    assert table["fetch"]["num_retryable"] == 3


def first_original(work: Work) -> tuple[int, int]:
    """Return the post whose original comes first in a tar, and where a byte of it lies."""
    row = read_rows(rows_path(work.raw_dir, "train-000000"), RAW).to_pylist()[0]
    return row["post_id"], row["offset"] + 7


def test_what_there_is_one_of_is_said_so(tmp_path: Path) -> None:
    make_source(tmp_path)
    recipe, work = tmp_path / "recipe.toml", tmp_path / "w"
    common = [recipe, "--work", work]
    foreseen = call("fetch", *common, "--limit", 1, "--dry-run")
    assert foreseen.output.endswith("\n1 original would be fetched.\n")
    odd = tmp_path / "original" / "1.jpg"
    odd.rename(tmp_path / "1.jpg")
    odd.mkdir()  # which cannot be read
    failed = call("fetch", *common, "--limit", 1, "--workers", 1)
    assert failed.stderr == "1 post failed; `fetch --retry-failed` asks again.\n"
    assert "  1 request for 1 post, " in call("status", work).output
    odd.rmdir()
    (tmp_path / "1.jpg").rename(odd)
    for command in (["fetch", *common, "--limit", 1, "--retry-failed"], ["prepare", *common]):
        assert call(*command, "--workers", 1).exit_code == 0
    shown = call("status", work).output
    assert "  2 requests for 1 post, " in shown
    assert "  in 1 of 1 shard, " in shown
    locked = call("lock", *common, "--out", tmp_path / "posts.parquet").output
    assert f"{tmp_path}/posts.parquet: 1 post, 1 sample, " in locked
    (shard,) = (work / "samples").glob("*.tar")
    shard.unlink()
    assert call("verify", work).stderr.startswith("1 problem; `repair ")


def test_report_is_a_page_in_the_folder_or_elsewhere(work: Work, tmp_path: Path) -> None:
    assert call("report", work.root).output.strip() == str(work.root / "report.html")
    assert call("report", work.root, "--out", tmp_path / "a.html").exit_code == 0
    page = (tmp_path / "a.html").read_bytes()
    assert page.lstrip().startswith(b"<!doctype html>")
    assert page == (work.root / "report.html").read_bytes()


@pytest.mark.parametrize("command", ["lock", "report"])
def test_a_folder_is_no_file_to_write(command: str, work: Work, tmp_path: Path) -> None:
    named = tmp_path / "recipe.toml" if command == "lock" else work.root
    options = ["--work", work.root] if command == "lock" else []
    error = call(command, named, *options, "--out", tmp_path).exception
    assert str(error) == f"{tmp_path}: is a folder; give the path of a file."


def test_a_pipe_or_device_is_not_replaced_by_a_file(work: Work, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    error = call("report", work.root, "--out", pipe).exception
    assert str(error) == f"{pipe}: is no plain file; give the path of a file."
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    "command", ["status", "verify", "repair", "report", "runs", "push {} there", "takedown {} 1"]
)
def test_a_recipe_where_a_folder_is_wanted_is_answered_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *rest = command.replace("{} ", "").split()
    before = call(name, "dolls-64", *rest).exception
    assert isinstance(before, UserError)
    assert "the recipe's" not in str(before)
    Path("data/dolls-64").mkdir(parents=True)
    said = str(call(name, "dolls-64", *rest).exception)
    assert said == "dolls-64: no such folder; the recipe's is data/dolls-64."
    Path("dolls-64").mkdir()
    assert "the recipe's" not in str(call(name, "dolls-64", *rest).exception)
