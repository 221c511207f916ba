"""Files on this disk: written whole or not at all."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from pipeline.disk import (
    check_writable,
    replace_together,
    replacing,
    sweep_temporaries,
    telling_unwritable,
)
from pipeline.errors import UserError
from tests.files import files_in, fill_disk


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_no_folder_that_was_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError), replacing(tmp_path / "a" / "b" / "c" / "d"):
        (tmp_path / "a" / "b" / "another").touch()
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "another"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_of_several_files_all_are_replaced_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    old, new = ({name: f"{age} {name}".encode() for name in "abc"} for age in ("old", "new"))
    replace_together(tmp_path / "there", old)
    with monkeypatch.context() as patched:
        fill_disk(patched, number)
        for folder in ("there", "new/folder"):
            with pytest.raises(OSError, match="No space left"):
                replace_together(tmp_path / folder, new)
    assert files_in(tmp_path) == {f"there/{name}": content for name, content in old.items()}
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    replace_together(tmp_path / "there", new)
    assert files_in(tmp_path / "there") == new


def test_what_cannot_be_written_is_found_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loose").symlink_to(tmp_path / "gone")
    for path, why in (
        (tmp_path / "folder", "folder: is a folder; give the path of a file."),
        (tmp_path / "file" / "new" / "x", "file: cannot be written: Not a directory."),
        (tmp_path / "loose" / "x", "loose: cannot be written: No such file or directory."),
        (Path("/proc/new/x"), "/proc: cannot be written: No such file or directory."),
        (tmp_path / ("x" * 300), "x: cannot be written: File name too long."),
    ):
        with pytest.raises(UserError) as error:
            check_writable(tmp_path / "file", path)
        assert str(error.value).endswith(why)
    check_writable(tmp_path / "file", tmp_path / "new" / "folder" / "x")
    assert len(list(tmp_path.rglob("*"))) == 3


def test_what_arrow_says_of_a_full_disk_is_said_as_everybody_does(tmp_path: Path) -> None:
    words = "Error writing bytes to file. Detail: [errno 28] No space left on device"
    with (
        pytest.raises(UserError, match=r": cannot be written: No space left on device\.$"),
        telling_unwritable(tmp_path),
    ):
        raise OSError(errno.ENOSPC, words)


def test_sweeping_removes_only_temporaries(tmp_path: Path) -> None:
    (tmp_path / ".a.tar.tmp").touch()
    (tmp_path / "b.tar").touch()
    sweep_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["b.tar"]


def test_two_who_replace_a_file_at_once_do_so_one_after_the_other(tmp_path: Path) -> None:
    path, entered = tmp_path / "a", threading.Event()

    def replace_too() -> None:
        with replacing(path) as temporary:
            entered.set()
            temporary.write_text("second")

    second = threading.Thread(target=replace_too)
    with replacing(path) as temporary:
        temporary.write_text("first")
        second.start()
        time.sleep(0.3)
        assert not entered.is_set()
    assert path.read_text() == "first"
    second.join(120)
    assert files_in(tmp_path) == {"a": b"second"}


def test_sweeping_leaves_what_another_command_is_writing(tmp_path: Path) -> None:
    (tmp_path / ".left.csv.tmp").symlink_to("nowhere")
    os.mkfifo(tmp_path / ".pipe.csv.tmp")
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("whole")
        sweep_temporaries(tmp_path)
        assert list(tmp_path.iterdir()) == [temporary]
    assert files_in(tmp_path) == {"a": b"whole"}
