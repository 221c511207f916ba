"""Links that somebody has planted where the program writes: nothing that they lead to changes."""

from pathlib import Path

import pytest
import torch

from model.training.journal import Journal
from pipeline.disk import open_no_link, temporary_path, write_whole
from pipeline.maintenance.verify import verify
from pipeline.shards.shard import ShardWriter, tar_path
from pipeline.share.index import CARD
from pipeline.work import Work
from tests.calls import call
from tests.shares import SHARD, pull_to, refused

SECRET = "keep this"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a folder with files of the names that are used within a work folder."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in (CARD, f"{SHARD}.tar", "bashrc"):
        (folder / name).write_text(SECRET)
    return folder


def assert_untouched(outside: Path) -> None:
    assert {path.read_text() for path in outside.iterdir()} == {SECRET}
    assert len(list(outside.iterdir())) == 3


def plant(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


@pytest.mark.parametrize("name", [CARD, f"{SHARD}.tar"])
def test_a_pull_goes_on_with_no_file_of_another_folder(
    made: Path, tmp_path: Path, outside: Path, name: str
) -> None:
    again = Work(tmp_path / "again")
    plant(again.incoming_dir / name, outside / "bashrc")
    assert f"{name}: cannot be used: " in refused(made / "there", again.root)
    assert_untouched(outside)
    (again.incoming_dir / name).unlink()
    assert verify(pull_to(made / "there", again.root).root) == []


def test_a_pull_brings_nothing_into_a_folder_that_a_link_leads_to(
    made: Path, tmp_path: Path, outside: Path
) -> None:
    again = Work(tmp_path / "again")
    plant(again.incoming_dir, outside)
    assert ".incoming: is a link" in refused(made / "there", again.root)
    assert_untouched(outside)


def test_a_file_is_not_written_through_its_temporary_name(tmp_path: Path, outside: Path) -> None:
    path = tmp_path / "a.txt"
    plant(temporary_path(path), outside / "bashrc")
    write_whole(path, "text")
    assert path.read_text() == "text"
    assert_untouched(outside)


@pytest.mark.parametrize("mode", ["wb", "ab", "r+b"])
def test_no_file_is_made_where_a_link_leads(tmp_path: Path, outside: Path, mode: str) -> None:
    for target in (outside / "new", outside / "bashrc"):
        plant(link := tmp_path / f"to-{target.name}", target)
        with pytest.raises(OSError, match="symbolic links"):
            open(link, mode, opener=open_no_link)  # noqa: SIM115
    assert_untouched(outside)


def test_no_shard_is_begun_through_a_link(tmp_path: Path, outside: Path) -> None:
    directory = tmp_path / "samples"
    plant(temporary_path(tar_path(directory, SHARD)), outside / "new")
    with pytest.raises(OSError, match="symbolic links"), ShardWriter(directory, SHARD):
        pass
    assert_untouched(outside)


def test_no_log_is_written_through_a_link(tmp_path: Path, outside: Path) -> None:
    plant(tmp_path / "run" / "log.jsonl", outside / "new")
    journal = Journal(tmp_path / "run", 0, 1)
    with pytest.raises(OSError, match="symbolic links"):
        journal.record(1, 0, 1, {"l1": torch.tensor(1.0)}, 1, 0.0)
    assert_untouched(outside)


def test_a_report_is_not_written_through_a_strangers_link(
    made: Path, tmp_path: Path, outside: Path
) -> None:
    work = pull_to(made / "there", tmp_path / "again")
    plant(temporary_path(work.report_path), outside / "bashrc")
    assert call("report", work.root).exit_code == 0
    assert work.report_path.is_file()
    assert_untouched(outside)
