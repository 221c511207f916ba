"""Every packing of metadata gives the same posts, and whatever is damaged is counted."""

import codecs
import gzip
import json
import lzma
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest

from pipeline.errors import UserError
from pipeline.metadata import json_lines
from pipeline.metadata.files import list_files, read_posts
from pipeline.metadata.record import Counted, Malformed, Unparsed
from tests.indexed_tars import pack
from tests.metadata_items import malformed_in, posts_in, read, zstd
from tests.metadata_records import LINES, POSTS, lines_of, make_post, new_record, old_record


def half_and_half(compress: Callable[[bytes], bytes]) -> bytes:
    """Two compressed streams, one after the other, the way parallel compressors write them."""
    middle = LINES.index(b"\n", len(LINES) // 2) - 5
    return compress(LINES[:middle]) + compress(LINES[middle:])


AS_LIST = json.dumps([new_record(post) for post in POSTS], indent=1).encode()
PACKED = {
    "plain.json": LINES,
    "no_newline_at_the_end.json": LINES[:-1],
    "byte_order_mark.json": codecs.BOM_UTF8 + LINES,
    "byte_order_mark_and_list.json": codecs.BOM_UTF8 + AS_LIST,
    "crlf.json": LINES.replace(b"\n", b"\r\n"),
    "blank_lines.json": b"\n\r\n" + LINES.replace(b"\n", b"\n\n"),
    "old_schema.json": lines_of([old_record(post) for post in POSTS]),
    "mixed.json": LINES[: LINES.index(b"\n") + 1]
    + lines_of([old_record(post) for post in POSTS[1:]]),
    "list.json": AS_LIST,
    "list_in_one_line.json": json.dumps(json.loads(AS_LIST)).encode(),
    "a.json.gz": gzip.compress(LINES),
    "a.json.xz": lzma.compress(LINES),
    "a.json.zst": zstd(LINES),
    "two_streams.gz": half_and_half(gzip.compress),
    "two_streams.xz": half_and_half(lzma.compress),
    "two_streams.zst": half_and_half(zstd),
    "list.json.xz": lzma.compress(AS_LIST),
    "a.tar": pack({"metadata/README.md": b"no", "metadata/2021000000000000": LINES}),
    "a.tar.gz": gzip.compress(pack({"list.json": AS_LIST})),
    "a.tar.xz": lzma.compress(pack({"a/1.json": LINES[:-1], "a/nsfw-ids.txt": b"5\n"})),
    "packed_inside.tar": pack({"posts.json.gz": gzip.compress(LINES)}),
    "wrong_name.txt": gzip.compress(LINES),
}


@pytest.mark.parametrize("name", PACKED)
def test_every_packing_gives_the_same_posts(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PACKED[name])
    items = read(tmp_path / name)
    assert posts_in(items) == POSTS
    assert not malformed_in(items)


@pytest.mark.parametrize("name", PACKED)
def test_a_required_tag_is_found_in_every_packing(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PACKED[name])
    assert make_post(17, "solo", "tag_17") in posts_in(read(tmp_path / name, ["tag_17", "solo"]))


@pytest.mark.parametrize("name", ["a.json.gz", "a.json.xz", "a.json.zst", "a.tar.xz", "a.tar.gz"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_ends_with_one_complaint(name: str, share: float, tmp_path: Path) -> None:
    members = [make_post(i, Random(i).randbytes(60).hex()) for i in range(1, 4000)]
    lines = lines_of([new_record(post) for post in members])
    compress = {"gz": gzip.compress, "xz": lambda data: lzma.compress(data, preset=0), "zst": zstd}
    if ".tar" in name:
        lines = pack({"posts.json": lines})
    packed = compress[name.rpartition(".")[2]](lines)
    (tmp_path / name).write_bytes(packed[: int(len(packed) * share)])
    with patch.object(json_lines, "_CHUNK", 2**15):
        items = read(tmp_path / name)
    *before, last = [item for item in items if not isinstance(item, Counted | Unparsed)]
    assert isinstance(last, Malformed)
    assert (last.path, last.line) == (str(tmp_path / name), 0)
    assert last.why.startswith("unreadable from here on: ")
    found = len(before)
    assert before == members[:found]
    assert found > (share - 0.2) * len(members)


@pytest.mark.parametrize("name", ["a.json.gz", "a.json.xz", "a.json.zst", "a.tar", "a.tar.xz"])
def test_flipped_bytes_never_crash(name: str, tmp_path: Path) -> None:
    random = Random(0)
    for _ in range(60):
        damaged = bytearray(PACKED[name])
        for _ in range(random.randint(1, 3)):
            damaged[random.randrange(len(damaged))] ^= random.randrange(1, 256)
        (tmp_path / name).write_bytes(damaged)
        try:
            read(tmp_path / name)
        except UserError as error:
            assert name in str(error)  # the one member of an archive may have lost its name


def test_an_empty_file_holds_no_records(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()
    assert posts_in(read(tmp_path)) == []


# Folders


def test_a_folder_is_read_by_name_without_other_files(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(lines_of([new_record(POSTS[1])]))
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(lines_of([new_record(POSTS[0])])))
    (tmp_path / "2021000000000003").write_bytes(lines_of([old_record(POSTS[2])]))
    for other in ("nsfw-ids.txt", ".hidden.json", "README.md", "SHA256SUMS", "posts.json.part"):
        (tmp_path / other).write_bytes(b"12\n")
    (tmp_path / "below.json").mkdir()
    assert [p.name for p in list_files(tmp_path)] == ["2021000000000003", "a.json.gz", "b.json"]
    assert posts_in(read(tmp_path)) == [POSTS[2], POSTS[0], POSTS[1]]


@pytest.mark.parametrize("place", ["nowhere", ".", "other.tar"])
def test_a_place_without_metadata_is_the_users_error(place: str, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("x")
    (tmp_path / "other.tar").write_bytes(pack({"a.jpg": b"x"}))
    if place == ".":
        (tmp_path / "other.tar").unlink()
    with pytest.raises(UserError, match=str(tmp_path)):
        list(read_posts(tmp_path / place))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch(mode=0)
    with pytest.raises(UserError, match=r"a\.json: cannot be read: Permission denied"):
        list(read_posts(tmp_path))


# The mirror


@pytest.mark.mirror
def test_both_schemas_of_the_mirror_hold_the_same_posts(mirror: Path) -> None:
    new = posts_in(read(mirror / "metadata"))
    old = posts_in(read(mirror / "metadata.json.tar.xz"))
    assert len(new) == 34_217
    for posts_of_one in (new, old):  # the newer schema hides the md5 of banned posts
        posts_of_one[:] = [replace(p, md5="") if p.is_banned else p for p in posts_of_one]
    assert {post.id: post for post in new} == {post.id: post for post in old}


@pytest.mark.mirror
def test_recorded_records_of_the_site_are_read(mirror: Path) -> None:
    items = read(mirror / "recorded")
    assert len(posts_in(items)) == 44
    assert not malformed_in(items)
    dump = read(mirror / "recorded" / "danbooru2020_dump_one_record.jsonl")
    assert posts_in(dump)[0].characters == (
        "larva_(vampire_princess_miyu)",
        "miyu_(vampire_princess_miyu)",
    )


def test_a_sparse_file_in_a_tar_is_passed_over(tmp_path: Path) -> None:
    """Its holes are unpacked to zeros: a few bytes would be read as terabytes."""
    holey = tmp_path / "posts000000000000.json"
    with holey.open("wb") as file:
        file.write(lines_of([new_record(POSTS[0])]))
        file.truncate(2**20)
    subprocess.run(
        ["tar", "-S", "--format=gnu", "-cf", "a.tar", holey.name], cwd=tmp_path, check=True
    )
    with pytest.raises(UserError, match="no metadata in this archive"):
        list(read_posts(tmp_path / "a.tar"))


def test_a_file_whose_name_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"no metadata")
    (tmp_path / "posts.json").write_bytes(LINES)
    assert list_files(tmp_path) == [tmp_path / "posts.json"]
    (tmp_path / os.fsdecode(b"caf\xe9.json")).write_bytes(LINES)
    with pytest.raises(UserError, match=r"caf\\udce9.json': is not UTF-8, .*; rename it"):
        list_files(tmp_path)


def test_a_name_in_an_archive_may_be_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(pack({"caf\udce9.json": LINES + b"no json\n"}))
    items = read(tmp_path / "a.tar")
    assert posts_in(items) == POSTS
    assert [item.path for item in malformed_in(items)] == [f"{tmp_path}/a.tar:caf\ufffd.json"]
