"""Open tars: few at a time, and none once nobody reads it."""

from pathlib import Path

import pytest

from pipeline.shards.shard import Span
from pipeline.shards.tar_pool import TarPool
from tests.share_caches import count_open_files


def test_few_tars_are_open_at_a_time_and_the_last_reader_closes(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in "abcd"]
    for path in paths:
        Path(path).write_bytes(path.encode())
    before = count_open_files()
    pool = TarPool(max_open=2)
    held = pool.open(paths[0])
    for path in paths * 2:
        assert pool.open(path).read([Span(0, 999)]) == [path.encode()]
    assert count_open_files() == before + 3
    Path(paths[0]).unlink()
    pool.drop(paths[0])
    assert held.read([Span(0, 999)]) == [paths[0].encode()]
    with pytest.raises(FileNotFoundError):
        pool.open(paths[0])
    pool.close()
    del held
    assert count_open_files() == before
