"""What the pages of a Parquet file take is known before any is read, whatever its footer says."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DamagedError
from pipeline.shards.pages import check_pages
from pipeline.shards.rows import read_rows, write_rows

HONEST = pa.table(
    {
        "number": pa.array(range(3000), pa.int64()),
        "text": [f"text {i % 7}" for i in range(3000)],
        "words": pa.array([["a", "b"] * (i % 3) for i in range(3000)]),
        "gaps": pa.array([None if i % 2 else 1.5 for i in range(3000)]),
    }
)
NUM_WORDS = sum(max(1, len(words)) for words in HONEST["words"].to_pylist())


def varint(value: int) -> bytes:
    """Return a number as Thrift's compact protocol writes one that is not negative."""
    coded, parts = value << 1, []
    while True:
        parts.append((coded & 127) | (128 if coded > 127 else 0))
        coded >>= 7
        if not coded:
            return bytes(parts)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_pages_of_an_honest_file_take_what_its_footer_says(
    tmp_path: Path, version: str
) -> None:
    pq.write_table(
        HONEST,
        path := tmp_path / "a.parquet",
        row_group_size=1000,
        data_page_size=2000,
        data_page_version=version,
        use_dictionary=["text"],
        column_encoding={"number": "DELTA_BINARY_PACKED"},
    )
    footer = pq.read_metadata(path)
    said = [footer.row_group(i).total_byte_size for i in range(3)]
    num_bytes, num_values = check_pages(path, footer)
    assert 0.6 * sum(said) < num_bytes <= sum(said)  # it counts the headers as well
    assert NUM_WORDS / 3 - 3 <= num_values <= NUM_WORDS / 3 + 3 + 7  # and the dictionary's
    assert said[0] > check_pages(path, footer, [0])[0] > 0.6 * said[0]


def test_a_page_that_asks_for_more_than_its_footer_says_is_refused_unread(tmp_path: Path) -> None:
    bomb = pa.table({"text": ["x" * 2**22]})
    write_rows(path := tmp_path / "a.parquet", [bomb], {}, use_dictionary=False)
    size = pq.read_metadata(path).row_group(0).total_byte_size
    content = path.read_bytes()
    assert content.count(varint(size)) > 0
    assert len(varint(2**22 // 2)) == len(varint(size))
    path.write_bytes(content.replace(varint(size), varint(2**21)))
    assert pq.read_metadata(path).row_group(0).total_byte_size == 2**21
    assert pq.read_table(path) == bomb  # Arrow does as the page says
    with pytest.raises(DamagedError, match="more than so many rows have"):
        read_rows(path, bomb.schema)


def forge(path: Path, *changes: tuple[bytes, bytes]) -> pq.FileMetaData:
    """Replace the last places in a file, which are its footer's; return the footer."""
    content = path.read_bytes()
    for old, new in changes:
        before, found, after = content.rpartition(old)
        assert found
        content = before + new + after
    path.write_bytes(content)
    return pq.read_metadata(path)


def test_pages_that_only_arrow_finds_are_refused(tmp_path: Path) -> None:
    pq.write_table(table := pa.table({"a": [7] * 50}), path := tmp_path / "a.parquet")
    column = pq.read_metadata(path).row_group(0).column(0)
    first, then = column.dictionary_page_offset, column.data_page_offset
    before_the_file = b"\x09"  # -5
    places = b"\x26" + varint(then) + b"\x26" + varint(first)
    footer = forge(path, (places, b"\x26" + varint(first) + b"\x26" + before_the_file))
    assert pq.read_table(path) == table
    with pytest.raises(ValueError, match="not where it says"):
        check_pages(path, footer)


def test_pages_of_a_kind_that_arrow_passes_over_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [7] * 50}), path := tmp_path / "a.parquet", use_dictionary=False)
    index_page = b"\x15\x02"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"PAR1\x15\x00", b"PAR1" + index_page, 1))
    with pytest.raises(ValueError, match="a page's header is none"):
        check_pages(path, pq.read_metadata(path))


def test_row_groups_of_more_rows_than_the_file_says_are_refused(tmp_path: Path) -> None:
    """What a caller allows is compared with what the file says."""
    pq.write_table(HONEST, path := tmp_path / "a.parquet")
    said = b"\x16" + varint(3000) + b"\x19"  # and a list follows: the row groups
    footer = forge(path, (said, b"\x16" + varint(100) + b"\x19"))
    assert (footer.num_rows, footer.row_group(0).num_rows) == (100, 3000)
    with pytest.raises(ValueError, match="other numbers of rows"):
        check_pages(path, footer)


def test_columns_over_one_another_are_refused(tmp_path: Path) -> None:
    """A thousand of them over the same pages would take a thousand times as long to look at."""
    pq.write_table(HONEST, path := tmp_path / "a.parquet", use_dictionary=False)
    footer = pq.read_metadata(path)
    check_pages(path, footer)
    footer.append_row_groups(pq.read_metadata(path))
    with pytest.raises(ValueError, match="over one another"):
        check_pages(path, footer)


def test_a_group_of_no_rows_has_no_pages(tmp_path: Path) -> None:
    with pq.ParquetWriter(path := tmp_path / "a.parquet", HONEST.schema) as writer:
        writer.write_table(HONEST[:0])
    assert check_pages(path, pq.read_metadata(path)) == (0, 0)


def test_an_encoding_that_makes_texts_longer_than_their_bytes_is_refused(tmp_path: Path) -> None:
    table = pa.table({"text": ["x" * 1000] * 50})
    how = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    pq.write_table(table, path := tmp_path / "a.parquet", **how)
    with pytest.raises(ValueError, match="encoding"):
        check_pages(path, pq.read_metadata(path))


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pq.write_table(HONEST[:50], path := tmp_path_factory.mktemp("pages") / "a.parquet")
    return path


@given(at=st.integers(4, 400), rubbish=st.binary(min_size=1, max_size=40))
def test_headers_of_rubbish_are_refused_or_harmless(
    small_file: Path, at: int, rubbish: bytes
) -> None:
    footer = pq.read_metadata(small_file)
    content = bytearray(small_file.read_bytes())
    content[at : at + len(rubbish)] = rubbish
    (copy := small_file.with_name("b.parquet")).write_bytes(content)
    try:
        num_bytes, num_values = check_pages(copy, footer)
    except ValueError:
        return
    assert max(num_bytes, num_values) <= 2**16 * 51
