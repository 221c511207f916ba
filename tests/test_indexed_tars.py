import io
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Download, Fate, Status
from pipeline.stages.indexed_tars import TarReader, index_of
from pipeline.stores.files import read_store
from tests.indexed_tars import index_tar, pack

MEMBERS = {"1000.jpg": b"first" * 200, "2000.png": b"second", "3000.jpg": b"", "4000.jpg": b"4th"}
Change = Callable[[dict[str, Any]], object]


class Disk:
    """Counts what is read, and from where."""

    def __init__(self) -> None:
        self.reads: list[str] = []

    def __call__(self, place: str, span: range | None, max_bytes: int) -> Download:
        self.reads.append(Path(place).name)
        return read_store(place, max_bytes, span)


def write(folder: Path, index: object = None, tar: bytes | None = None) -> str:
    tar = pack(MEMBERS) if tar is None else tar
    (folder / "0000.tar").write_bytes(tar)
    data = index if isinstance(index, bytes) else orjson.dumps(index or index_tar(tar))
    (folder / "0000.json").write_bytes(data)
    return str(folder / "0000.tar")


def reader(cache_dir: Path | None = None, max_bytes: int = 10_000) -> TarReader:
    return TarReader(Disk(), cache_dir, max_bytes)


def fate_of(download: Download) -> str:
    assert bool(download.content) == (download.fate.status is Status.FETCHED)
    return str(download.fate)


def test_members_are_read_by_their_range(tmp_path: Path) -> None:
    tar, tars = write(tmp_path), reader(max_bytes=1000)
    assert index_of(tar) == str(tmp_path / "0000.json")
    for name in ("1000.jpg", "2000.png", "4000.jpg"):
        assert tars.get(tar, name).content == MEMBERS[name]
    assert fate_of(tars.get(tar, "3000.jpg")) == "rejected/empty"
    assert fate_of(tars.get(tar, "5000.jpg")) == "missing/no_file"
    assert fate_of(reader(max_bytes=999).get(tar, "1000.jpg")) == "rejected/too_many_bytes"


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    assert fate_of(reader().get(str(tmp_path / "0001.tar"), "1.jpg")) == "missing/no_file"
    tar = write(tmp_path)
    Path(tar).unlink()
    assert fate_of(reader().get(tar, "1000.jpg")) == "missing/no_file"


@pytest.mark.parametrize(
    ("tar_format", "name"),
    [
        (tarfile.USTAR_FORMAT, "./a.jpg"),
        (tarfile.USTAR_FORMAT, "b/" * 60 + "c.jpg"),
        (tarfile.GNU_FORMAT, "b/" * 60 + "c.jpg"),
        (tarfile.GNU_FORMAT, "d" * 150 + ".jpg"),
        (tarfile.PAX_FORMAT, "b/" * 60 + "c.jpg"),
        (tarfile.PAX_FORMAT, "d" * 150 + ".jpg"),
    ],
)
def test_every_kind_of_tar_is_understood(tar_format: int, name: str, tmp_path: Path) -> None:
    tar = write(tmp_path, tar=pack({"0.jpg": b"x", name: b"data"}, tar_format))
    assert reader().get(tar, name).content == b"data"


def swap(index: dict[str, Any]) -> None:
    files = index["files"]
    files["1000.jpg"], files["2000.png"] = files["2000.png"], files["1000.jpg"]


def set_entry(**values: object) -> Change:
    return lambda index: index["files"]["1000.jpg"].update(values)


LIES: dict[str, Change] = {
    "another's offset": set_entry(offset=2048),
    "offset within the data": set_entry(offset=600),
    "offset before the data": set_entry(offset=512 - 1),
    "offset 0": set_entry(offset=0),
    "negative offset": set_entry(offset=-512),
    "past the end": set_entry(offset=10**12),
    "past every end": set_entry(offset=2**63 + 512),
    "too small": set_entry(size=999),
    "too large": set_entry(size=1001),
    "negative size": set_entry(size=-1),
    "size as text": set_entry(size="1000"),
    "two exchanged": swap,
    "at the end": set_entry(offset=10_240 - 1000),
    "no files": lambda index: index.pop("files"),
    "files as a list": lambda index: index.update(files=[]),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("has_hashes", [True, False])
def test_a_wrong_index_is_found_out(lie: str, has_hashes: bool, tmp_path: Path) -> None:
    index = index_tar(pack(MEMBERS))
    LIES[lie](index)
    if not has_hashes and isinstance(index.get("files"), dict):
        for entry in index["files"].values():
            del entry["sha256"]
    tar = write(tmp_path, index)
    assert fate_of(reader().get(tar, "1000.jpg")) in ("failed/wrong_index", "failed/truncated")


def test_a_wrong_hash_is_found_out(tmp_path: Path) -> None:
    index = index_tar(pack(MEMBERS))
    index["files"]["1000.jpg"]["sha256"] = "0" * 64
    assert fate_of(reader().get(write(tmp_path, index), "1000.jpg")) == "failed/wrong_index"


def test_a_flipped_bit_in_the_tar_is_found_out(tmp_path: Path) -> None:
    data = bytearray(pack(MEMBERS))
    data[600] ^= 1
    tar = write(tmp_path, index_tar(pack(MEMBERS)), bytes(data))
    assert fate_of(reader().get(tar, "1000.jpg")) == "failed/wrong_index"


def test_a_link_is_no_picture(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("1000.jpg")
        info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 4
        tar.addfile(info)
    index = {"files": {"1000.jpg": {"offset": 512, "size": 4}}}
    place = write(tmp_path, index, buffer.getvalue()[:512] + b"data")
    assert fate_of(reader().get(place, "1000.jpg")) == "failed/wrong_index"


@pytest.mark.parametrize("index", [b"", b"<html>", b"[1]", b'{"files": {"1000.jpg": 5}}', b"\xff"])
def test_what_is_no_index_is_found_out(index: bytes, tmp_path: Path) -> None:
    tar = write(tmp_path, index)
    expected = "failed/wrong_index" if index else "rejected/empty"
    assert fate_of(reader().get(tar, "1000.jpg")) == expected


@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_index_and_no_tar_make_it_raise(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    folder = tmp_path_factory.mktemp("noise")
    good = orjson.dumps(index_tar(pack(MEMBERS)))
    for index, tar in (
        (good[:at] + noise + good[at + len(noise) :], pack(MEMBERS)),
        (good, pack(MEMBERS)[:at] + noise + pack(MEMBERS)[at + len(noise) :]),
    ):
        download = reader().get(write(folder, index, tar), "1000.jpg")
        assert download.fate.status is not Status.FETCHED or download.content in MEMBERS.values()


def test_an_index_is_asked_for_once_for_all_workers(tmp_path: Path) -> None:
    tar, cache = write(tmp_path), tmp_path / "cache"
    disk = Disk()
    first = TarReader(disk, cache, 10_000)
    with ThreadPoolExecutor(8) as pool:
        downloads = list(pool.map(lambda _: first.get(tar, "1000.jpg"), range(30)))
    assert {download.content for download in downloads} == {MEMBERS["1000.jpg"]}
    other = TarReader(disk, cache, 10_000)
    assert other.get(tar, "2000.png").content == MEMBERS["2000.png"]
    assert disk.reads.count("0000.json") == 1


def test_a_stale_index_is_read_anew_the_next_time(tmp_path: Path) -> None:
    tar, cache = write(tmp_path), tmp_path / "cache"
    disk = Disk()
    tars = TarReader(disk, cache, 10_000)
    assert tars.get(tar, "1000.jpg").content == MEMBERS["1000.jpg"]
    write(tmp_path, tar=pack({"0.jpg": b"new", **MEMBERS}))
    assert fate_of(tars.get(tar, "2000.png")) == "failed/wrong_index"
    assert tars.get(tar, "2000.png").content == b"second"
    assert disk.reads.count("0000.json") == 2
    assert len(list(cache.iterdir())) == 1


def test_memory_holds_a_few_indexes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(orjson.dumps(index_tar(pack(MEMBERS))))
    monkeypatch.setattr("pipeline.stages.indexed_tars._MAX_PARSED", 2 * size)
    disk = Disk()
    tars = TarReader(disk, None, 10_000)
    for n in range(4):
        (tmp_path / str(n)).mkdir()
        write(tmp_path / str(n))
    for n in (0, 1, 0, 2, 0, 1):
        assert tars.get(str(tmp_path / str(n) / "0000.tar"), "4000.jpg").content == b"4th"
    assert disk.reads.count("0000.json") == 4  # 1 had to make room for 2


@pytest.mark.parametrize(
    ("status", "fate"),
    [(416, "failed/wrong_index"), (503, "failed/http"), (403, "refused/http_403")],
)
def test_a_servers_answer_stands_but_for_a_range_past_the_end(
    status: int, fate: str, tmp_path: Path
) -> None:
    disk = Disk()

    def read(place: str, span: range | None, max_bytes: int) -> Download:
        if span is None:
            return disk(place, span, max_bytes)
        refused = Fate(Status.REFUSED, "http_403")
        failed = Fate(Status.FAILED, "http")
        return replace(Download(refused if status == 403 else failed), http_status=status)

    download = TarReader(read, None, 10_000).get(write(tmp_path), "1000.jpg")
    assert (fate_of(download), download.http_status) == (fate, status)
