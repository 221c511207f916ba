"""The command line itself: how a command ends, and what of its words it refuses."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli import _COMMANDS
from pipeline.errors import UserError
from pipeline.work import Work
from tests.calls import call
from tests.crashing import make_source, make_work

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return make_work(tmp_path)


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


@pytest.mark.parametrize("command", sorted(_COMMANDS))
def test_help_says_what_a_word_stands_for_not_its_type(command: str) -> None:
    shown = call(command, "--help").output
    usage = shown.splitlines()[0]
    assert "  --help " in shown.partition("\nOptions:\n")[2]
    assert re.findall(r"<.+?>", shown) == re.findall(r"\{.+?\}", usage) == []
    named = [word.strip("[]") for word in usage.partition(" [OPTIONS]")[2].split()]
    assert re.findall(r"^  ([A-Z.]+)  ", shown, re.MULTILINE) == named


def test_an_argument_that_may_be_left_out_is_seen_to_be() -> None:
    shown = call("takedown", "--help").output
    assert shown.startswith("Usage: nurie takedown [OPTIONS] WORK [ID...]\n")


def test_debug_shows_where_an_error_arose_and_changes_no_exit_code() -> None:
    command = [sys.executable, str(ROOT / "cli.py"), "--debug", "status", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback ")
    assert done.stderr.splitlines()[-1].startswith("error: nowhere/selection.parquet: no such")


@pytest.mark.parametrize("module", ["hashlib", "typer", "pipeline.words"])
def test_ctrl_c_while_the_program_is_imported_is_no_traceback(module: str) -> None:
    program = f"""
import runpy, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.modules.pop({module!r}, None)
sys.meta_path.insert(0, Interrupt())
runpy.run_path({str(ROOT / "cli.py")!r}, run_name="__main__")
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-", "2>&1 | true"])
def test_who_cannot_be_told_of_an_error_has_its_exit_code(redirection: str) -> None:
    code, _, pipe = redirection.partition(" |")
    command = f"('{sys.executable}' cli.py status nowhere {code}; echo $? >&3) 3>&2 {pipe and '|'}"
    done = subprocess.run(
        f"{command}{pipe}", shell=True, stderr=subprocess.PIPE, cwd=ROOT, check=False
    )
    assert done.stderr == b"2\n"


def test_who_no_longer_reads_advice_ends_the_command(work: Work, tmp_path: Path) -> None:
    words = f"prepare {tmp_path}/recipe.toml --work {work.root} --workers 1 --set prepare.size=64"
    command = f"('{sys.executable}' cli.py {words} 2>&1; echo $? >&3) 3>&2 | true"
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        command, shell=True, stderr=subprocess.PIPE, cwd=ROOT, env=environment, check=True
    )
    assert done.stderr == b"1\n"


def test_without_a_folder_for_temporary_files_one_is_asked_for() -> None:
    program = """
import cli

def gettempdir():
    raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

cli.app = gettempdir
cli.main()
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (
        2,
        "error: No usable temporary directory found in ['/tmp']. Let TMPDIR name a folder that can "
        "be written and has room.\n",
    )


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
        *(
            "status|",
            "verify|",
            "fetch|",
            "train|",
            "pull|x|",
            "takedown||1",
            "runs|",
            "prepare|dolls-64|--work|",
        ),
        *("train|dolls-64|--work=", "eval|run|--work|", "app|run|--work|"),
        *("train|dolls-64|--init|", "train|dolls-64|--shards|x|--cache|", "eval|", "app|"),
        *("eval|run|--out|", "report|work|--out|", "lock|dolls-64|--out|", "export||--out|x"),
        *("export|run|--out|", "export|run|--out|x|--lock|", "export|run|--out|x|--metrics|"),
        *("colorize|run|--sketch|", "colorize|run|--sketch|a|--reference|"),
        *("colorize|run|--sketch|a|--reference|b|--out|", "colorize||--sketch|a"),
    ],
)
def test_an_empty_name_is_not_taken_for_the_current_folder(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = call(*words.split("|")).exception
    assert isinstance(error, UserError)
    assert "names no file and no folder; the current one is `.`" in str(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["fetch|dolls-64", "prepare|dolls-64", "takedown|w|1"])
def test_an_empty_store_is_not_taken_for_none(words: str) -> None:
    error = call(*words.split("|"), "--store", "").exception
    assert str(error) == "--store '': names no store. Is a variable not set?"


@pytest.mark.parametrize("place", ["~", "~/x", "./~", "~root"])
def test_a_home_folder_that_the_shell_left_is_neither_made_nor_written(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source(tmp_path)
    (home := tmp_path / "home" / "x").mkdir(parents=True)
    (here := tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(home.parent))
    monkeypatch.chdir(here)
    error = call("fetch", tmp_path / "recipe.toml", "--workers", 1, f"--work={place}").exception
    assert isinstance(error, UserError)
    assert str(error).startswith(f"{place}: the shell makes ~ a home folder only without quotes")
    assert [*home.parent.rglob("*"), *here.rglob("*")] == [home]


@pytest.mark.parametrize(
    "words",
    [
        *(
            "fetch|~/r.toml",
            "lock|~/r.toml",
            "lock|dolls-64|--out=~/x",
            "fetch|recipe.toml|--store=~/x",
        ),
        *("push|work|~/x", "pull|~/x|work", "train|dolls-64|--shards=~/x"),
    ],
)
def test_a_home_folder_that_the_shell_left_is_none_in_any_option(
    words: str, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    shutil.copy(tmp_path / "recipe.toml", tmp_path / "~" / "r.toml")
    error = call(*words.split("|"))
    assert ": the shell makes ~ a home folder only without quotes" in str(error.exception)


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


def test_a_command_leaves_pandas_out(work: Work) -> None:
    """Its import would take longer than the command, and pyarrow drops a Ctrl-C in its midst."""
    code = (
        "import sys, cli\n"
        "try:\n    cli.main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "assert 'pyarrow' in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, "verify", work.root], cwd=ROOT, check=True)


@pytest.mark.parametrize("has_data", [False, True])
@pytest.mark.parametrize("command", ["status", "prepare"])
def test_a_name_that_is_too_long_is_said_in_a_sentence(
    command: str, has_data: bool, tmp_path: Path
) -> None:
    name = "a" * 256
    if has_data:  # as after a command with the usual folder
        (tmp_path / "data").mkdir()
    done = subprocess.run(
        [sys.executable, ROOT / "cli.py", command, name],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(rf"error: .*{name}(/\S+)?: File name too long\.\n", done.stderr)


def test_what_was_written_is_said_whatever_it_is_called(work: Work) -> None:
    path = work.root / os.fsdecode(b"\x82\xa0.html")
    command = [sys.executable, str(ROOT / "cli.py"), "report", str(work.root), "--out", str(path)]
    env = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}  # as in most locales
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert done.stdout.endswith("/\\udc82\\udca0.html\n")
    assert path.is_file()


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
