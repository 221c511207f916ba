"""Files on this disk: written whole or not at all."""

import errno
from pathlib import Path

import pytest

from pipeline.disk import replacing, sweep_temporaries, telling_unwritable
from pipeline.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


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
