import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DamagedError, UserError
from pipeline.shards.rows import check_seal, peek_info, read_info, read_rows, read_seal, write_rows

TABLE = pa.table({"x": pa.array([3, 1, 2], pa.int64()), "word": pa.array(["a", "b", "a"])})


def test_rows_and_info_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_rows(path, [TABLE, TABLE], {"fingerprint": "f", "n": 2})
    check_seal(path)
    assert read_info(path) == {"fingerprint": "f", "n": 2}
    assert read_rows(path, TABLE.schema).equals(pa.concat_tables([TABLE, TABLE]))
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    write_rows(first, [TABLE], {"a": 1, "b": 2})
    write_rows(second, [TABLE], {"b": 2, "a": 1})
    assert first.read_bytes() == second.read_bytes()
    assert read_seal(first) == read_seal(second)


def test_every_flipped_bit_and_every_lost_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_rows(path, [TABLE], {"fingerprint": "f"})
    whole = path.read_bytes()
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedError):
            check_seal(path)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedError):
            check_seal(path)


def test_a_parquet_file_of_other_programs_carries_no_seal(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path)
    for read in (read_seal, check_seal):
        with pytest.raises(DamagedError, match=r"a\.parquet: carries no seal"):
            read(path)


def test_other_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_rows(path, [TABLE], {})
    with pytest.raises(DamagedError, match="columns"):
        read_rows(path, pa.schema([pa.field("x", pa.string())]))


def test_words_that_are_no_text_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    ends = pa.array([0, 1], pa.int32()).buffers()[1]
    words = pa.Array.from_buffers(pa.string(), 1, [None, ends, pa.py_buffer(b"\xff")])
    for column in (words, pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), words)):
        table = pa.table({"word": column})
        write_rows(path, [table], {})
        with pytest.raises(DamagedError, match=r"a\.parquet: cannot be read: .*UTF8"):
            read_rows(path, table.schema)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\0" * 64, b"PAR1" + b"\xff" * 40 + b"PAR1"])
def test_foreign_files_are_damaged_not_a_crash(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    for read in (check_seal, read_info, lambda p: read_rows(p, TABLE.schema)):
        with pytest.raises(DamagedError, match="a.parquet"):
            read(path)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), st.integers(-(2**53), 2**53) | st.text() | st.lists(st.text())))
def test_a_peek_sees_the_info_that_parquet_reads(info: dict[str, object]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        odd = pa.table({"nurie": ["nurie", "\x18\x05nurie\x18\x02{}"]})
        write_rows(path, [odd], info)
        assert peek_info(path) == read_info(path) == info


def test_a_peek_leaves_a_large_footer_and_damage_to_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_rows(path, [pa.table({"a": [1]})], {"long": "x" * 2**17})
    assert len(peek_info(path)["long"]) == 2**17
    for data in (path.read_bytes()[:-1], b"", b"PAR1"):
        path.write_bytes(data)
        with pytest.raises(DamagedError, match="damaged, or not written by this program"):
            peek_info(path)


@pytest.mark.parametrize(
    "read", [read_seal, read_info, peek_info, lambda path: read_rows(path, pa.schema([]))]
)
def test_a_pipe_in_the_place_of_rows_is_not_waited_for(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: is no plain file, where a file goes; move it away"):
        read(tmp_path / "pipe")
