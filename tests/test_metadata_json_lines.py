"""Lines and lists of JSON: read in pieces, searched before they are parsed, and never trusted."""

import gzip
import io
import json
import tracemalloc
from collections.abc import Collection
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metadata import json_lines
from pipeline.metadata.json_lines import read_json
from pipeline.metadata.record import Counted, Item
from pipeline.records import Post
from tests.metadata_items import assert_conserved, malformed_in, num_unparsed, posts_in, read
from tests.metadata_records import (
    LINES,
    POSTS,
    TAGS,
    lines_of,
    make_post,
    new_record,
    old_record,
    posts,
    write_json,
)


def read_bytes(data: bytes, tags: Collection[str] = ()) -> list[Item]:
    items = list(read_json(io.BufferedReader(io.BytesIO(data)), "a.json", tags))
    assert_conserved(items)
    return items


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"not json", "not JSON"),
        (b'{"id":1,"rating":"s"', "not JSON"),
        (b'{"id":1,"rating":"s"}}', "not JSON"),
        (b'{"id":1,"rating":NaN}', "not JSON"),
        (b'{"id":1,"rating":"\xff"}', "not JSON"),
        (b'{"id":1,"rating":"\\ud800"}', "not JSON"),
        (b"[" * 3000 + b"]" * 3000, "not JSON"),
        (b'[{"id":1,"rating":"s"}]', "not an object"),
        (b"12", "not an object"),
        (b'{"rating":"s"}', "no id"),
        (b'{"id":100000000000000000000,"rating":"s"}', "id is 1"),
        (b"\0\0\0", "not JSON"),
        (b"   ", "not JSON"),
    ],
)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("required", [(), ("solo",)])
def test_a_malformed_line_is_named(
    line: bytes, why: str, newline: bytes, required: tuple[str, ...]
) -> None:
    line = line.replace(b'{"', b'{"solo":0,"') if required else line
    good = json.dumps(new_record(POSTS[0])).encode()
    items = read_bytes(newline.join([good, b"", line, good, line]), required)
    assert posts_in(items) == [POSTS[0]] * 2
    first, second = malformed_in(items)
    assert (first.path, first.line, second.line) == ("a.json", 3, 5)
    assert first.why.startswith(why)


def test_a_line_over_the_cap_is_malformed_and_takes_no_memory(tmp_path: Path) -> None:
    good = json.dumps(new_record(POSTS[0])).encode() + b"\n"
    with gzip.open(tmp_path / "a.json.gz", "wb", compresslevel=1) as file:
        file.write(good + b'{"id":2,"rating":"s","source":"')
        for _ in range(100):
            file.write(bytes(2**20))
        file.write(b'"}\n' + good)
    tracemalloc.start()
    items = read(tmp_path / "a.json.gz", ["solo"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert posts_in(items) == [POSTS[0]] * 2
    assert [(m.line, m.why) for m in malformed_in(items)] == [
        (2, "a record longer than 16777216 bytes")
    ]
    assert peak < 60 * 2**20


def test_a_list_element_over_the_cap_ends_the_list(tmp_path: Path) -> None:
    good = json.dumps(new_record(POSTS[0])).encode()
    data = b"[" + good + b',{"a":"' + b" " * 5000 + b'"},' + good + b"]"
    with patch.object(json_lines, "MAX_RECORD_BYTES", 1000):
        items = list(read_json(_Trickle(data, 64), "a.json", ()))
    assert posts_in(items) == [POSTS[0]]
    assert [(m.line, m.why) for m in malformed_in(items)] == [
        (2, "unreadable from here on: a record longer than 16777216 bytes")
    ]


class _Trickle(io.BufferedReader):
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(io.BytesIO(data))
        self._step = step

    def read1(self, size: int = -1) -> bytes:
        return super().read1(min(size, self._step))


@pytest.mark.parametrize(
    "damage", [b"", b",", b", nonsense]", b'], "more"', b',{"id":', b',{"id":"\xff"}]']
)
def test_a_damaged_list_counts_up_to_the_damage(damage: bytes) -> None:
    good = json.dumps(new_record(POSTS[0])).encode()
    items = read_bytes(b"[" + good + b',{"id":0},' + good + damage)
    assert posts_in(items) == [POSTS[0]] * 2
    nothing, last = malformed_in(items)
    assert (nothing.line, nothing.why, last.line) == (2, "no id", 4)
    assert last.why.startswith("unreadable from here on: ")


@pytest.mark.slow
@given(st.lists(posts(), max_size=5), st.randoms(use_true_random=False), st.booleans())
def test_lists_and_lines_give_the_same_posts(
    drawn: list[Post], random: Random, is_old: bool
) -> None:
    records = [old_record(post) if is_old else new_record(post) for post in drawn]
    texts = [write_json(record, random) for record in records]
    assert posts_in(read_bytes("\n".join(texts).encode())) == drawn
    assert posts_in(read_bytes(f"[{','.join(texts)}]".encode())) == drawn


@pytest.mark.slow
@given(
    st.lists(posts(), min_size=1, max_size=5),
    st.lists(TAGS, max_size=3),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_the_byte_search_never_passes_over_a_post(
    drawn: list[Post], tags: list[str], random: Random, is_old: bool
) -> None:
    known = sorted(tag for post in drawn for tag in post.tags)
    required = [*tags, *random.sample(known, min(len(known), 2))][-random.randint(1, 3) :]
    records = [old_record(post) if is_old else new_record(post) for post in drawn]
    data = "\n".join(write_json(record, random) for record in records).encode()
    wanted = [post for post in drawn if post.tags.issuperset(required)]
    found = posts_in(read_bytes(data, required))
    assert [post for post in found if post.tags.issuperset(required)] == wanted


@pytest.mark.parametrize("character", [chr(code) for code in range(33, 127)])
def test_every_way_to_write_a_tag_is_found(character: str) -> None:
    post = make_post(1, f"the{character}tag")
    ways = [json.dumps(character)[1:-1], *(f % ord(character) for f in ("\\u%04x", "\\u%04X"))]
    for way in [*ways, "\\/"] if character == "/" else ways:
        line = json.dumps(new_record(make_post(1, "the@tag"))).replace("@", way)
        assert posts_in(read_bytes(line.encode(), post.tags)) == [post]


def test_the_byte_search_leaves_most_lines_unparsed() -> None:
    items = read_bytes(LINES, ["tag_3"])  # tag_3 and tag_30 to tag_39
    assert [post.id for post in posts_in(items)] == [3, *range(30, 40)]
    assert num_unparsed(items) == 29


def test_an_escape_elsewhere_does_not_make_a_line_worth_parsing() -> None:
    source = json.dumps({"source": "x&y"}).replace("&", "\\u0026")[1:-1].encode()
    data = LINES.replace(b'"id"', source + b',"id"')
    assert num_unparsed(read_bytes(data, ["tag_12"])) == 39
    hidden = data.replace(b"tag_13", b"t\\u0061g_13")
    assert [post.id for post in posts_in(read_bytes(hidden, ["tag_12"]))] == [12, 13]


@given(st.data())
def test_mutated_lines_never_crash_and_add_up(data: st.DataObject) -> None:
    drawn = data.draw(st.lists(posts(), max_size=4))
    text = bytearray(lines_of([new_record(post) for post in drawn]))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    required = data.draw(st.sampled_from([(), ("white_background",)]))
    chunk = data.draw(st.integers(1, 300))
    with patch.multiple(json_lines, _CHUNK=chunk, MAX_RECORD_BYTES=700):
        items = read_bytes(bytes(text), required)
    if not text.lstrip().startswith(b"["):
        num_lines = sum(bool(line.removesuffix(b"\r")) for line in text.split(b"\n"))
        assert num_lines == sum(i.num_records for i in items if isinstance(i, Counted))


@given(st.binary(max_size=200), st.sampled_from([b"", b"[", b"{", b"\x1f\x8b", b"PAR1"]))
def test_random_bytes_never_crash_and_add_up(data: bytes, start: bytes) -> None:
    read_bytes(start + data)
    read_bytes(start + data, ["a"])


@given(st.integers(1, 400))
def test_lines_are_cut_the_same_whatever_the_chunks(chunk: int) -> None:
    with patch.multiple(json_lines, _CHUNK=chunk):
        items = read_bytes(LINES + b"{bad}\n" + LINES[:-1])
    assert posts_in(items) == POSTS * 2
    assert [m.line for m in malformed_in(items)] == [41]
