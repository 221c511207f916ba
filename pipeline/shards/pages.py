"""What the pages of a Parquet file take once they are read, by the headers that Arrow obeys.

The footer says it too, but nothing holds it to that: a page of a few bytes may ask for gigabytes in
a file whose footer is modest. A page's header is a Thrift struct (compact protocol), of which the
format's ``parquet.thrift`` names the fields.
"""

import mmap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

_MOST_A_ROW = 2**16  # bytes, and values of a column, on average over a file's rows
_EXPANDING = (6, 7)  # encodings by which a text is longer than its bytes in the page: DELTA_...

_KIND, _SIZE, _COMPRESSED_SIZE = 1, 2, 3
_DICTIONARY = 7
_KINDS = {5: (0, 2), _DICTIONARY: (2, 2), 8: (3, 4)}
"""Fields of which a header has one, for data, a dictionary, or data in version 2, each with its
number as a kind: structs, of which field 1 is how many values there are, and the other one named
here their encoding."""


def check_pages(
    path: Path, metadata: pq.FileMetaData, groups: Collection[int] | None = None
) -> tuple[int, int]:
    """Check that a file's pages, of some row groups or all, take no more memory than rows need.

    Returns:
        The bytes of all pages once they are read, and the most values that a column has in a group.

    Raises:
        ValueError: where they do, or are no pages.
    """
    chosen = [metadata.row_group(i) for i in groups or range(metadata.num_row_groups)]
    sizes = [group.num_rows for group in chosen]
    if min(sizes, default=0) < 0 or sum(sizes) > metadata.num_rows:
        raise ValueError("its row groups hold other numbers of rows than it says")
    most = _MOST_A_ROW * (1 + sum(sizes))
    columns = [group.column(i) for group in chosen for i in range(group.num_columns)]
    num_bytes = most_values = 0
    left = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for column in columns:
            if column.num_values == 0:  # and no page is read
                continue
            if (left := left - column.total_compressed_size) < 0:
                raise ValueError("its columns lie over one another")
            start, num_values, num_found = column.data_page_offset, 0, 0
            if column.has_dictionary_page:
                start = min(start, column.dictionary_page_offset)
            for kind, size, count, encoding in _iterate_pages(
                data, start, start + column.total_compressed_size
            ):
                num_bytes, num_values = num_bytes + size, num_values + count
                num_found += 0 if kind == _DICTIONARY else count
                most_values = max(most_values, num_values)
                if max(num_bytes, num_values) > most:
                    raise ValueError("it holds more than so many rows have")
                if encoding in _EXPANDING:
                    raise ValueError("its texts are in an encoding that no file of ours has")
            if num_found != column.num_values:  # Arrow would look for the others elsewhere
                raise ValueError("a column's pages are not where it says")
    return num_bytes, most_values


def _iterate_pages(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield each page between two places: its kind, bytes once read, values and encoding."""
    while 0 <= start < stop:
        try:
            header, start = _read_struct(data, start)
            kind = next(iter(_KINDS.keys() & header.keys()))
            number, encoding = _KINDS[kind]
            page = kind, header[_SIZE], header[kind][1], header[kind][encoding]
            length = header[_COMPRESSED_SIZE]
            is_sound = len(_KINDS.keys() & header.keys()) == 1 and min(*page, length) >= 0
            is_sound = is_sound and header[_KIND] == number  # Arrow passes over other kinds
        except (IndexError, KeyError, StopIteration, TypeError, RecursionError) as error:
            raise ValueError("a page has no header") from error
        if not is_sound:
            raise ValueError("a page's header is none")
        yield page
        start += length


def _read_struct(data: mmap.mmap, at: int) -> tuple[dict[int, Any], int]:
    """Return a struct's fields by their numbers, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        if step := head >> 4:
            number, at = number + step, at + 1
        else:
            number, at = _read_integer(data, at + 1)
        fields[number], at = _read_value(data, at, head & 15)
    return fields, at + 1


def _read_value(data: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    """Return a field's value, None where no page needs it, and where it ends."""
    match kind:
        case 1 | 2:  # true and false, said by the kind itself
            return None, at
        case 3 | 7:  # a byte, a double
            return None, at + (1 if kind == 3 else 8)
        case 4 | 5 | 6:
            return _read_integer(data, at)
        case 8:
            length, at = read_varint(data, at)
            return None, at + length
        case 12:
            return _read_struct(data, at)
    raise ValueError("a page's header has a field that none has")


def _read_integer(data: mmap.mmap, at: int) -> tuple[int, int]:
    coded, at = read_varint(data, at)
    return (coded >> 1) ^ -(coded & 1), at


def read_varint(data: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, the lowest first, and where it ends.

    Raises:
        IndexError, ValueError: where it does not end.
    """
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number without an end")
