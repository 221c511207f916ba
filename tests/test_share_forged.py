"""What a stranger may have forged, and pull, verify, report and train then."""

from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.maintenance.verify import verify
from pipeline.schema import SAMPLES
from pipeline.shards.rows import read_info, read_rows, write_rows
from pipeline.shards.shard import rows_path
from pipeline.share.index import CARD, INDEX, LOCK
from pipeline.share.stream import RemoteShards
from pipeline.work import Work
from tests.calls import call
from tests.forgeries import IN_SHARDS, ROWS, TARS
from tests.shares import (
    SHARD,
    forge_files,
    forge_tar,
    pull_to,
    refused,
)


@pytest.mark.parametrize("what", TARS)
def test_a_forged_tar_is_refused(there: Path, tmp_path: Path, what: str) -> None:
    forge, why = TARS[what]
    forge_tar(there / "samples", SHARD, forge)
    forge_files(there)
    assert f"{SHARD} is refused: {why}" in refused(there, tmp_path / "again")
    assert not rows_path(tmp_path / "again" / "samples", SHARD).exists()
    found = [str(problem) for problem in verify(there / "samples")]
    assert any(f"{SHARD}.tar: " in problem for problem in found), found


@pytest.mark.parametrize("what", ROWS)
def test_forged_rows_and_papers_are_refused(there: Path, tmp_path: Path, what: str) -> None:
    forge, why = ROWS[what]
    forge(there)
    forge_files(there)
    again = Work(tmp_path / "again")
    told = refused(there, again.root)
    assert why in told
    assert not rows_path(again.samples_dir, SHARD).exists()
    if f"{SHARD} is refused" in told:
        assert not list(again.incoming_dir.glob(f"{SHARD}.*"))


@pytest.mark.slow
@pytest.mark.parametrize("what", [*TARS, *IN_SHARDS])
def test_verify_and_report_hold_against_a_forged_folder(
    made: Path, tmp_path: Path, what: str
) -> None:
    """It may have come by other ways than ``pull``."""
    work = pull_to(made / "there", tmp_path / "again")
    if what in TARS:
        forge_tar(work.samples_dir, SHARD, TARS[what][0])
    else:
        ROWS[what][0](work.root)
    assert any(SHARD in str(problem) for problem in verify(work.root)), what
    reported = call("report", work.root)
    assert reported.exception is None or isinstance(reported.exception, UserError), what
    if work.report_path.exists():
        page = work.report_path.read_text()
        assert "root:" not in page
        assert "../" not in page


def test_streamed_rows_of_another_tar_are_refused(there: Path, tmp_path: Path) -> None:
    path = rows_path(there / "samples", SHARD)
    info = read_info(path) | {"tar_sha256": "0" * 64}
    write_rows(path, [read_rows(path, SAMPLES)], info)
    forge_files(there)
    with closing(RemoteShards(str(there), tmp_path, 10**9)) as shards:
        assert SHARD in shards.names("train")
        with pytest.raises(UserError, match=f"{SHARD} is refused: its rows are of another tar"):
            shards.rows(SHARD)


def test_streamed_rows_of_more_posts_than_bytes_are_refused(there: Path, tmp_path: Path) -> None:
    """They have no lock to be compared with."""
    path = rows_path(there / "samples", SHARD)
    post = read_rows(path, SAMPLES)[:1]
    num_posts = 2**16
    write_rows(path, [post.take(pa.array([0] * num_posts))], read_info(path))
    assert path.stat().st_size < num_posts
    forge_files(there)
    with closing(RemoteShards(str(there), tmp_path, 10**9)) as shards:
        shards.names("train")
        with pytest.raises(UserError, match=f"{SHARD} is refused: .* too large"):
            shards.rows(SHARD)


def test_verify_checks_what_was_pushed(there: Path) -> None:
    assert verify(there) == []
    assert verify(there, quick=True) == []
    path = there / CARD
    path.write_text(path.read_text().replace("tiny", "TINY"))
    assert [problem.path for problem in verify(there)] == [path]
    (there / LOCK).unlink()
    rows_path(there / "samples", SHARD).write_bytes(b"cut")
    (there / "samples" / "x.pkl").write_bytes(b"x")
    found = {problem.path.name for problem in verify(there)}
    assert found == {CARD, LOCK, f"{SHARD}.parquet", "x.pkl"}
    (there / INDEX).write_text("{}")
    assert [problem.path for problem in verify(there)] == [there / INDEX]
