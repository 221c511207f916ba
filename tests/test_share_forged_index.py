"""An index that lies of its files, or names another place."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.maintenance.verify import verify
from pipeline.shards.shard import tar_path
from pipeline.share.index import INDEX
from tests.shares import (
    SHARD,
    forge_index,
    pull_to,
    refused,
)

NOT_AS_SAID = "is not what its index says"
IS_LINK = "is a link; a data set holds none"

LIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a sum": (
        lambda t: forge_index(t, lambda i: i["files"][-1].update(sha256="0" * 64)),
        NOT_AS_SAID,
    ),
    "a file that is longer": (lambda t: forge_index(t, shrink), NOT_AS_SAID),
    "a file that is shorter": (lambda t: forge_index(t, grow), NOT_AS_SAID),
    "a file that is not there": (
        lambda t: tar_path(t / "samples", SHARD).unlink(),
        "is not there",
    ),
    "a folder in a file's place": (
        lambda t: to_folder(tar_path(t / "samples", SHARD)),
        "cannot be read: Is a directory",
    ),
    "a link in a file's place": (lambda t: to_link(tar_path(t / "samples", SHARD)), IS_LINK),
    "a link in the folder's place": (lambda t: to_link(t / "samples"), f"samples: {IS_LINK}"),
    "a pipe in a file's place": (
        lambda t: to_pipe(tar_path(t / "samples", SHARD)),
        "is no plain file",
    ),
    "a link in the index's place": (lambda t: to_link(t / INDEX), f"{INDEX}: {IS_LINK}"),
}


def shrink(table: dict[str, Any]) -> None:
    table["files"][-1]["size"] -= 512


def grow(table: dict[str, Any]) -> None:
    table["files"][-1]["size"] += 512


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("what", LIES)
def test_an_index_that_lies_of_its_files_is_refused(there: Path, tmp_path: Path, what: str) -> None:
    lie, why = LIES[what]
    lie(there)
    told = refused(there, tmp_path / "again")
    assert told.startswith(str(there))
    assert why in told


def test_an_index_of_another_place_leads_nowhere(there: Path, tmp_path: Path) -> None:
    forge_index(there, lambda table: table.update(url="http://169.254.169.254/latest"))
    assert verify(pull_to(there, tmp_path / "again").root) == []
