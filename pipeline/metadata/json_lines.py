"""JSON lines and JSON lists -> posts, in bounded memory.

In JSON lines a required tag is searched as bytes first: most records lack it, and never have to
be parsed.
"""

import codecs
import io
import re
from collections.abc import Collection, Iterable, Iterator

import ijson
import numpy as np
import orjson
from numpy.typing import NDArray

from pipeline.metadata.record import UNREADABLE, Counted, Item, Malformed, Unparsed, read_record
from pipeline.records import Post

MAX_RECORD_BYTES = 16 * 2**20
"""A longer JSON record is malformed; it never has to fit in memory."""

MAX_DEPTH = 64
"""A list that nests deeper is malformed: ijson takes memory by the square of the depth."""

_TOO_LONG = f"a record longer than {MAX_RECORD_BYTES} bytes"
_CHUNK = 2**20  # read at a time: large enough for NumPy, small enough to stay in the cache


def read_json(
    stream: io.BufferedReader, path: str, required_tags: Collection[str]
) -> Iterator[Item]:
    """Return the records of JSON lines, or of one JSON list, as ``metadata.files.read_posts`` does.

    In a list a record's place is its number, and an error ends it: only lines can be skipped.
    """
    if stream.peek(3).startswith(codecs.BOM_UTF8):  # as editors on Windows leave
        stream.read(len(codecs.BOM_UTF8))
    if stream.peek(512).lstrip().startswith(b"["):
        return _read_list(stream, path)
    return _read_lines(stream, path, _needle(required_tags))


def _read_list(stream: io.BufferedReader, path: str) -> Iterator[Item]:
    number = 0
    try:
        for number, record in enumerate(_parse_list(stream), 1):
            yield Counted(1)
            yield read_record(record, path, number)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        yield Counted(1)
        yield Malformed(path, number + 1, f"{UNREADABLE}: {error}")


def _parse_list(stream: io.BufferedReader) -> Iterator[object]:
    """Yield a list's elements; what came before an error is yielded before it is raised."""
    elements = ijson.sendable_list()
    parser = ijson.items_coro(elements, "item", use_float=True)
    depth = _Depth()
    num_pending_bytes = 0
    while chunk := stream.read1(2**16):
        if depth.feed(chunk) > MAX_DEPTH:
            raise ijson.JSONError(f"nested deeper than {MAX_DEPTH}")
        try:
            parser.send(chunk)
        finally:
            yield from elements
        num_pending_bytes = 0 if elements else num_pending_bytes + len(chunk)
        if num_pending_bytes > MAX_RECORD_BYTES:
            raise ijson.JSONError(_TOO_LONG)
        elements.clear()
    parser.close()


class _Depth:
    """How deep JSON nests, told from its brackets outside of strings, chunk after chunk."""

    _string = re.compile(rb'"(?:[^"\\]++|\\.)*+("|\\?\Z)', re.DOTALL)
    _steps = np.zeros(256, np.int8)
    _steps[[*b"[{"]], _steps[[*b"]}"]] = 1, -1

    def __init__(self) -> None:
        self._depth = 0
        self._begun = b""  # a string that the next chunk goes on with, without its text

    def feed(self, chunk: bytes) -> int:
        """Return the greatest depth in a chunk."""
        data = self._begun + chunk
        self._begun = b""
        outside = np.frombuffer(self._string.sub(self._drop, data), np.uint8)
        depths = self._depth + np.cumsum(self._steps[outside], dtype=np.int64)
        self._depth = int(depths[-1]) if len(depths) else self._depth
        return int(depths.max(initial=0))

    def _drop(self, match: re.Match[bytes]) -> bytes:
        if match[1] != b'"':
            self._begun = b'"' + match[1]
        return b""


def _read_lines(stream: io.BufferedReader, path: str, needle: bytes) -> Iterator[Item]:
    """Parse the lines that hold the needle, and those that are not plainly ``{...}``."""
    is_hidden = np.zeros(2**16, bool)
    is_hidden[[int.from_bytes(b"%02x" % byte, "big") for byte in set(needle)]] = True
    num_lines = 0
    for buffer, size in _cut_lines(stream):
        text = np.frombuffer(buffer, np.uint8, size)
        newlines = _find(b"\n", buffer, size)
        starts = np.concatenate([[0], newlines[:-1] + 1])
        ends = newlines - (text[newlines - 1] == ord("\r"))
        is_record = starts < ends
        is_odd = (text[starts] != ord("{")) | (text[ends - 1] != ord("}"))
        is_odd |= ends - starts > MAX_RECORD_BYTES
        if needle:
            is_odd[np.searchsorted(newlines, _find(needle, buffer, size))] = True
            is_odd[np.searchsorted(newlines, _find_escapes(is_hidden, buffer, text))] = True
        to_parse = np.flatnonzero(is_record & is_odd if needle else is_record)
        yield Counted(int(np.count_nonzero(is_record)))
        next_line = 0
        for i in to_parse.tolist():
            if i > next_line:
                yield Unparsed(int(np.count_nonzero(is_record[next_line:i])))
            yield _parse_line(buffer[starts[i] : ends[i]], path, num_lines + i + 1)
            next_line = i + 1
        yield Unparsed(int(np.count_nonzero(is_record[next_line:])))
        num_lines += len(newlines)


def _cut_lines(stream: io.BufferedReader) -> Iterator[tuple[bytearray, int]]:
    """Yield a buffer, the same every time, with how many of its bytes are whole lines.

    Of a line over the cap the first bytes are kept, just enough to see that it is too long. What
    was read before an error of the stream is yielded before the error is raised.
    """
    buffer = bytearray(MAX_RECORD_BYTES + _CHUNK + 1)
    view = memoryview(buffer)
    size = 0
    while num_read := stream.readinto1(view[size : size + _CHUNK]):
        end = buffer.rfind(b"\n", size, size + num_read) + 1
        size += num_read
        if end:
            yield buffer, end
            size -= end
            view[:size] = view[end : end + size]
        size = min(size, MAX_RECORD_BYTES + 1)
    if size:  # the last line need not end in a newline
        buffer[size] = ord("\n")
        yield buffer, size + 1


def _needle(required_tags: Iterable[str]) -> bytes:
    r"""Return the longest part of the tags that JSON writes in one way only, ``\u00XX`` apart."""
    parts = [part for tag in required_tags for part in re.findall(r"[!#-.0-\[\]-~]+", tag)]
    return max(parts, key=len, default="").encode()


def _find(needle: bytes, buffer: bytearray, size: int) -> NDArray[np.intp]:
    """Return where the needle is in the buffer's first bytes."""
    found = []
    at = buffer.find(needle, 0, size)
    while at >= 0:
        found.append(at)
        at = buffer.find(needle, at + len(needle), size)
    return np.array(found, np.intp)


def _find_escapes(
    is_hidden: NDArray[np.bool_], buffer: bytearray, text: NDArray[np.uint8]
) -> NDArray[np.intp]:
    r"""Return where a ``\u00XX`` is with one of the hidden XX, as two letters in one number."""
    found = _find(b"\\", buffer, max(len(text) - 5, 0))
    for offset, letter in enumerate(b"u00", 1):
        found = found[text[found + offset] == letter]
    high, low = text[found + 4].astype(np.uint16), text[found + 5] | 0x20  # lower case
    return np.asarray(found[is_hidden[high << 8 | low]])


def _parse_line(line: bytes | bytearray, path: str, number: int) -> Post | Malformed:
    if len(line) > MAX_RECORD_BYTES:
        return Malformed(path, number, _TOO_LONG)
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Malformed(path, number, f"not JSON: {error}")
    return read_record(record, path, number)
