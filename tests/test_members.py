import hashlib
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.schema import MEMBERS, RAW, build_table, extension_of, samples_schema
from pipeline.shards.members import find_wrong_member
from pipeline.shards.shard import ShardWriter, tar_path

NAME = "train-000000"
INK = (*MEMBERS, "sketch_ink")
COMMON = {"split": "train", "reason": "", "md5": "", "character": "", "family": 1, "rating": "s"}
COMMON |= {"ext": "jpg", "width": 1, "height": 1, "parent_id": 0, "tags": ""}


def write(directory: Path, is_raw: bool) -> tuple[Path, pa.Table]:
    """Write a shard of three posts, of which the second has nothing in the tar."""
    rows: list[dict[str, Any]] = []
    with ShardWriter(directory, NAME) as shard:
        for post_id in (1, 2, 3):
            row = {**COMMON, "post_id": post_id, "status": "corrupt", "reason": "truncated"}
            if is_raw:
                row |= {"http_status": 404, "status": "missing", "reason": "http_404"}
            if post_id != 2:
                row |= {"key": f"{post_id:09d}", "status": "fetched" if is_raw else "kept"}
                row |= {"reason": ""}
                row |= {"sha256": hashlib.sha256(b"x").hexdigest()}
                members = [""] if is_raw else [f"{member}_" for member in INK]
                for member in members:
                    ending = extension_of(member.rstrip("_")) if member else "jpeg"
                    span = shard.add(f"{post_id:09d}.{ending}", b"x" * 700 * post_id)
                    row |= {f"{member}offset": span.offset, f"{member}size": span.size}
                if is_raw:
                    row |= {"format": "jpeg"}
            rows.append(row)
        table = build_table(rows, RAW if is_raw else samples_schema(INK))
        shard.commit(table, {"fingerprint": "f"})
    return tar_path(directory, NAME), table


@pytest.mark.parametrize("is_raw", [True, False])
def test_a_tar_is_what_its_rows_say(tmp_path: Path, is_raw: bool) -> None:
    tar, rows = write(tmp_path, is_raw)
    with tarfile.open(tar) as plain:
        assert len(plain.getnames()) == (2 if is_raw else 8)
    assert find_wrong_member(tar, rows) == ""
    assert find_wrong_member(tar, rows.slice(0, 2)) != ""
    assert "is not where" in find_wrong_member(tar, rows.slice(2))


def test_an_empty_shard_is_one_as_well(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, NAME) as shard:
        shard.commit(build_table([], RAW), {"fingerprint": "f"})
    assert find_wrong_member(tar_path(tmp_path, NAME), RAW.empty_table()) == ""


def test_what_changes_in_a_header_or_after_the_end_is_found(tmp_path: Path) -> None:
    tar, rows = write(tmp_path, is_raw=True)
    whole = bytearray(tar.read_bytes())
    offset = rows["offset"].to_pylist()
    places = [*range(512), *range(offset[2] - 512, offset[2]), *range(offset[2] + 2560, len(whole))]
    for place in places[:: 1 + len(places) // 600]:
        whole[place] ^= 1 << place % 8
        tar.write_bytes(whole)
        assert find_wrong_member(tar, rows) != "", place
        whole[place] ^= 1 << place % 8
    tar.write_bytes(whole[:-512])
    assert find_wrong_member(tar, rows) != ""


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("size", 2**62, "an impossible size"),
        ("size", -1, "an impossible size"),
        ("size", None, "do not say where"),
        ("offset", 2**62, "is not where"),
        ("offset", -512, "is not where"),
        ("offset", None, "do not say where"),
        ("key", "../../../1", "another key"),
        ("key", None, "another key"),
        ("format", "pkl", "a format that no picture has"),
        ("format", None, "a format that no picture has"),
        ("format", "png", "another header"),
    ],
)
def test_rows_that_lie_are_found_out(tmp_path: Path, column: str, value: Any, what: str) -> None:
    tar, rows = write(tmp_path, is_raw=True)
    columns = rows.to_pydict()
    columns[column][2] = value
    assert what in find_wrong_member(tar, pa.Table.from_pydict(columns, schema=RAW))
