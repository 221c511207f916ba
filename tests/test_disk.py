"""Files on this disk: written whole or not at all."""

from pathlib import Path

import pytest

from pipeline.disk import replacing, sweep_temporaries


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_sweeping_removes_only_temporaries(tmp_path: Path) -> None:
    (tmp_path / ".a.tar.tmp").touch()
    (tmp_path / "b.tar").touch()
    sweep_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["b.tar"]
