"""The commands that look after a work folder, as the command line calls them."""

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from pipeline.errors import UserError
from pipeline.schema import RAW
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import list_shards, rows_path, tar_path
from pipeline.work import Work
from tests.calls import call
from tests.crashing import NUM_POSTS, contents, fetch, make_source, prepare
from tests.files import flip
from tests.metadata_records import make_post, new_record

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def work(tmp_path: Path) -> Work:
    make_source(tmp_path)
    work = Work(tmp_path / "work")
    fetch(tmp_path, work)
    prepare(tmp_path, work)
    return work


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
    assert "would make anew: train-000000, val-000000." in foreseen.output
    assert "original/{id}.jpg" in foreseen.output
    assert contents(work) == damaged
    mended = call("repair", work.root, "--workers", 1)
    assert mended.exit_code == 0, mended.output
    assert mended.output.endswith("every promise holds.\n")
    assert contents(work) == before


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
        shared: "`push` to there from the work folder",
        shared / "samples": "`push` to there from the work folder",
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


def test_demo_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    error = call("demo", "--work", tmp_path / "file").exception
    assert str(error) == f"{tmp_path}/file/mirror: cannot be written: Not a directory."


def test_a_demo_draws_nothing_into_a_folder_with_a_data_set(work: Work) -> None:
    error = call("demo", "--work", work.root).exception
    assert str(error).startswith(f"{work.root}: holds a data set, but no demo's drawings.")
    assert not (work.root / "mirror").exists()


def test_another_demo_takes_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise UserError("stopped here")

    monkeypatch.setattr("pipeline.dolls.data_set.write_dolls", stop)
    first = ("demo", "--work", tmp_path, "--characters", 24)
    assert str(call(*first).exception) == "stopped here"
    for options in ((), ("--characters", 24, "--epochs", 1)):
        error = call("demo", "--work", tmp_path, *options).exception
        assert isinstance(error, UserError)
        assert re.fullmatch(
            rf"{tmp_path}: holds a demo with --characters 24 --epochs \d+\. Give these options, or "
            r"another --work\.",
            str(error),
        )
    assert str(call(*first).exception) == "stopped here"


def test_no_name_moves_the_terminals_cursor(work: Work) -> None:
    (work.raw_dir / "\x1b[2Jx").write_text("theirs")
    told = call("verify", work.root)
    assert "\ufffd[2Jx: does not belong here" in told.output
    told = call("repair", work.root, "--dry-run")
    assert "\ufffd[2Jx: does not belong here" in told.output
    for options in ([], ["--debug"]):
        command = [sys.executable, str(ROOT / "cli.py"), *options, "status", "\x1b[2Jnowhere"]
        error = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "error: \ufffd[2Jnowhere/selection.parquet: no such file" in error.stderr
        assert "\x1b" not in error.stderr


def test_no_fate_that_a_stranger_counts_moves_it_either(work: Work) -> None:
    path = rows_path(work.raw_dir, list_shards(work.raw_dir)[0])
    info = read_info(path)
    info["fates"] = {f"\x1b[2J{fate}": count for fate, count in info["fates"].items()}
    write_rows(path, [read_rows(path, RAW)], info)
    told = call("status", work.root).output
    assert "\ufffd[2Jfetched" in told
    assert "\x1b" not in told


def test_debug_shows_where_an_error_arose_and_changes_no_exit_code() -> None:
    command = [sys.executable, str(ROOT / "cli.py"), "--debug", "status", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback ")
    assert done.stderr.splitlines()[-1].startswith("error: nowhere/selection.parquet: no such")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["status --help", "status WORK", "status nowhere"])
def test_a_full_standard_output_is_said_in_a_sentence(
    words: str, unbuffered: str, work: Work
) -> None:
    command = [sys.executable, "cli.py", *words.replace("WORK", str(work.root)).split()]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
            check=False,
        )
    assert done.returncode == 2
    sentence = "error: standard output: cannot be written: No space left on device.\n"
    if "nowhere" in words:
        sentence = "error: nowhere/selection.parquet: no such file; `fetch` makes it. "
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", ["status WORK", "verify WORK"])
def test_a_reader_that_has_seen_enough_is_no_error(words: str, work: Work) -> None:
    words = words.replace("WORK", shlex.quote(str(work.root)))
    command = f'("{sys.executable}" cli.py {words}; echo $? >&2) | true'
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        command, shell=True, stderr=subprocess.PIPE, cwd=ROOT, env=environment, check=True
    )
    assert done.stderr == b"0\n"


@pytest.mark.parametrize(
    "words",
    [
        *("status|", "verify|", "pull|x|", "takedown||1", "runs|", "prepare|dolls-64|--work|"),
        *("train|dolls-64|--work=", "eval|run|--work|", "app|run|--work|"),
    ],
)
def test_an_empty_name_is_not_taken_for_the_current_folder(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = call(*words.split("|")).exception
    assert isinstance(error, UserError)
    assert "names no folder; the current one is `.`" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_said_where_there_is_no_standard_output() -> None:
    command = f'exec "{sys.executable}" cli.py status nowhere >&-'
    done = subprocess.run(
        command, shell=True, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere/selection.parquet: no such file")
    assert done.stderr.count("\n") == 1


def test_what_a_shell_makes_of_an_asterisk_is_explained() -> None:
    words = ("--sketch", "a.png", "b.png", "c.png", "--reference", "d.png", "--out", "e")
    told = call("colorize", "run", *words)
    assert told.exit_code == 2
    assert (
        "unexpected extra argument 'b.png' and 1 more. Repeat --sketch and --refer" in told.output
    )
    assert told.output.endswith("before each value, or give a folder where one is taken.\n")
    assert call("status", "a", "b").output.endswith("Got unexpected extra argument 'b'\n")


@pytest.mark.parametrize("option", ["--limit", "--rank", "--world-size", "--workers"])
def test_numbers_that_no_file_can_hold_are_refused(option: str, tmp_path: Path) -> None:
    number, most = "9223372036854775808", "9223372036854775807"
    error = call("fetch", "dolls-64", option, number, "--work", tmp_path / "w").exception
    assert str(error) == f"{option} {number}: is too large a number."
    error = call("fetch", "dolls-64", option, most, "--work", tmp_path / "w").exception
    assert "too large" not in str(error)


@pytest.mark.parametrize("name", ["a [/b] [bold]c :x:", "long" * 25])
def test_advice_names_paths_as_they_are_in_one_line(name: str, tmp_path: Path) -> None:
    make_source(tmp_path)
    work = Work(tmp_path / name)
    fetch(tmp_path, work)
    prepare(tmp_path, work)
    command = ["prepare", tmp_path / "recipe.toml", "--work", work.root, "--workers", 1]
    said = call(*command, "--set", "prepare.size=48").stderr
    assert said.startswith(f"{work.samples_dir}: 2 shards have other settings and will be made ")
    assert said.count("\n") == 1


def test_what_may_not_be_read_is_said_in_a_sentence(work: Work) -> None:
    code = (
        "import sys; from pathlib import Path; import cli\n"
        "def refuse(path): raise PermissionError(13, 'Permission denied', str(path))\n"
        "Path.iterdir = refuse  # as root may read all\n"
        "cli.main()"
    )
    command = [sys.executable, "-c", code, "verify", str(work.root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(rf"error: {work.root}/\w+: Permission denied\.\n", done.stderr)


def test_what_was_written_is_said_whatever_it_is_called(work: Work) -> None:
    path = work.root / os.fsdecode(b"\x82\xa0.html")
    command = [sys.executable, str(ROOT / "cli.py"), "report", str(work.root), "--out", str(path)]
    env = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}  # as in most locales
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert done.stdout.endswith("/\\udc82\\udca0.html\n")
    assert path.is_file()


def test_repair_makes_no_folder(tmp_path: Path) -> None:
    assert isinstance(call("repair", tmp_path / "nowhere").exception, UserError)
    assert list(tmp_path.iterdir()) == []


def test_status_shows_the_ledger(work: Work) -> None:
    shown = call("status", work.root)
    assert f"{NUM_POSTS} requests for {NUM_POSTS} posts" in shown.output
    assert f"  HTTP none: {NUM_POSTS}\n" in shown.output  # they lie on disk
    table = json.loads(call("status", work.root, "--json").output)
    assert table["ledger"]["num_attempts"] == NUM_POSTS
    assert table["ledger"]["num_bytes"] > 0
    assert table["fetch"]["num_retryable"] == 0


def test_a_file_that_is_no_metadata_is_told_from_a_recipe_that_wants_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "512px").mkdir()
    images = ["--images", f"{tmp_path}/512px/{{id}}.jpg", "--work", tmp_path / "work"]
    (tmp_path / "a.png").write_bytes(bytes(range(256)) * 9)
    error = call("fetch", "dolls-64", "--metadata", tmp_path / "a.png", *images).exception
    assert str(error).startswith(f"{tmp_path}/a.png: holds no record of a post; the first that it")
    assert str(error).endswith("Is it Danbooru's metadata?")
    (tmp_path / "posts.json").write_text(json.dumps(new_record(make_post(1, "solo"))))
    error = call("fetch", "dolls-64", "--metadata", tmp_path / "posts.json", *images).exception
    assert "no post is left after selection" in str(error)


def test_pictures_in_no_bucket_are_refused_before_any_work(tmp_path: Path) -> None:
    make_source(tmp_path)
    command = ["fetch", tmp_path / "recipe.toml", "--work", tmp_path / "w"]
    refused = call(*command, "--images", "s3:///{id}.jpg", "--workers", 1)
    assert isinstance(refused.exception, UserError)
    assert "give one, as in s3://BUCKET/{id}.jpg." in str(refused.exception)
    assert not (tmp_path / "w").exists()


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


def test_metadata_that_is_cut_off_is_said_each_time(tmp_path: Path) -> None:
    make_source(tmp_path)
    packed = gzip.compress((tmp_path / "posts.json").read_bytes() + Random(0).randbytes(20000))
    metadata = tmp_path / "posts.json.gz"
    metadata.write_bytes(packed[:-2000])
    command = ["fetch", tmp_path / "recipe.toml", "--metadata", metadata, "--work", tmp_path / "w"]
    for options in (["--dry-run"], [], []):
        done = call(*command, *options)
        assert done.exit_code == 0, done.output
        said = done.stderr
        assert f"{metadata}:0: unreadable from here on: " in said
        assert "is the file whole?\n" in said  # on a slow machine, progress comes after it


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


def test_names_that_are_not_utf8_are_refused_before_any_work(tmp_path: Path) -> None:
    odd = os.fsdecode(b"m\x82\xa0")
    make_source(tmp_path)
    recipe = tmp_path / "recipe.toml"
    for command in (
        ("fetch", recipe, "--work", odd),
        ("fetch", recipe, "--metadata", odd),
        ("fetch", recipe, "--images", odd),
        ("lock", recipe, "--out", odd),
        ("status", odd),
        ("pull", tmp_path, odd),
    ):
        error = call(*command).exception
        assert isinstance(error, UserError)
        assert "'m\\udc82\\udca0': is not UTF-8" in str(error)
    stored = call("fetch", recipe, "--work", tmp_path / "w", "--store", odd).exception
    assert "m\\udc82\\udca0': holds what cannot be printed" in str(stored)
    assert not (tmp_path / "data").exists()


def test_a_name_in_another_encoding_than_arrows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source(tmp_path)
    monkeypatch.setattr(os, "fsencode", lambda path: path.encode("latin-1"))  # as its locales have
    for name in ("\u00e9", "\u7d75"):
        for option in ("--work", "--metadata"):
            error = call("fetch", tmp_path / "recipe.toml", option, tmp_path / name).exception
            assert isinstance(error, UserError)
            assert "is not UTF-8" in str(error)
            assert str(error).endswith("must be; so must the locale.")


def test_originals_are_not_cropped_as_another_layout(work: Work, tmp_path: Path) -> None:
    before = contents(work)
    recipe = tmp_path / "recipe.toml"
    other = ["--set", "source.layout=512px"]
    refused = call("prepare", recipe, "--work", work.root, *other).exception
    assert isinstance(refused, UserError)
    assert "was fetched with source.layout 'original'" in str(refused)
    assert "--set source.layout=original" in str(refused)
    assert contents(work) == before


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("fetch charcters-64", "characters-64"),
        ("fetch dolls-64 --metadata . --images a/{bukcet}/{id}.jpg", "{bucket}"),
        ("fetch dolls-64 --set select.rating=['saef']", "safe"),
        ("train dolls-64 --model referenc", "reference"),
        ("train dolls-64 --gan pacth", "patch"),
        ("pull THERE WORK --split tets", "test"),
        ("eval WORK --split tran", "train"),
    ],
)
def test_of_a_mistyped_word_it_says_what_was_meant(
    made: Path, tmp_path: Path, words: str, meant: str
) -> None:
    words = words.replace("THERE", str(made / "there")).replace("WORK", str(tmp_path / "work"))
    error = call(*words.split()).exception
    assert isinstance(error, UserError)
    assert f"(did you mean '{meant}'?)" in str(error)
    assert list(tmp_path.iterdir()) == []
