"""Training from afar: what lies, is damaged, or does not fit is refused in a sentence."""

import re
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from model.data.samples import Samples
from pipeline.errors import UserError
from pipeline.shards.shard import rows_path, tar_path
from pipeline.share.index import INDEX, PENDING
from pipeline.share.push import push
from pipeline.share.stream import RemoteShards
from pipeline.work import Work
from tests.files import size_now
from tests.shares import QUIET, forge_files, forge_index, forge_tar, load_index
from tests.streams import BIG, CONFIG, CountingServer, assert_same, sizes_of, steps_of, streaming


def refusal(there: Path, cache: Path, budget: int = BIG) -> str:
    with pytest.raises(UserError) as caught, streaming(str(there), cache, budget) as remote:
        steps_of(remote, CONFIG)
    return str(caught.value)


def test_what_lies_is_refused(streamed: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(streamed / "there", tmp_path / name))

    shard = "train-000000"
    damaged = copy("damaged")
    tar = tar_path(damaged / "samples", shard)
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    assert f"samples/{shard}.tar: is not what its index says" in refusal(damaged, tmp_path / "c1")

    forged = copy("forged")
    forge_tar(forged / "samples", shard, lambda data: data.__setitem__(slice(0, 4), b"../x"))
    forge_files(forged)
    assert f"{shard} is refused: its tar holds another header" in refusal(forged, tmp_path / "c2")

    swapped = copy("swapped")
    shutil.copy(
        rows_path(swapped / "samples", "train-000001"), rows_path(swapped / "samples", shard)
    )
    forge_files(swapped)
    assert f"{shard} is refused: its rows are of prepare" in refusal(swapped, tmp_path / "c3")

    pending = copy("pending")
    (pending / INDEX).rename(pending / PENDING)
    assert "its push is not complete" in refusal(pending, tmp_path / "c4")

    elsewhere = copy("elsewhere")
    forge_index(elsewhere, lambda table: table["files"][-1].update(name="samples/../../x.tar"))
    assert "which no data set holds" in refusal(elsewhere, tmp_path / "c5")
    for name, there in (("c1", damaged), ("c2", forged), ("c3", swapped)):
        sha256 = load_index(there).by_name[f"samples/{shard}.tar"].sha256
        assert not list((tmp_path / name).glob(f"{sha256}*"))


def test_a_sample_that_lies_is_refused(
    streamed: Path, counting_server: CountingServer, tmp_path: Path
) -> None:
    budget = max(sizes_of(streamed).values())
    counting_server.spoil = lambda data: data[:700] + b"x" + data[701:]
    expected = pytest.raises(UserError, match="a sample of train-0.* is not what its row says")
    with streaming(counting_server.url, tmp_path, budget) as remote, expected:
        remote.load([3])


def test_a_cache_that_the_disk_has_damaged_is_named(
    streamed: Path, counting_server: CountingServer, on_disk: Samples, tmp_path: Path
) -> None:
    with streaming(counting_server.url, tmp_path, BIG) as remote:
        assert_same(on_disk, remote, CONFIG)
    for tar in tmp_path.glob("*.tar"):
        tar.write_bytes(tar.read_bytes()[:512] + bytes(100) + tar.read_bytes()[612:])
    expected = pytest.raises(UserError, match=f"its color: .* Remove the tars in {tmp_path};")
    with streaming(counting_server.url, tmp_path, BIG) as remote, expected:
        assert_same(on_disk, remote, CONFIG)
    for tar in tmp_path.glob("*.tar"):
        tar.unlink()
    with streaming(counting_server.url, tmp_path, BIG) as remote:
        assert_same(on_disk, remote, CONFIG)


def test_a_cache_that_is_too_small_is_refused_and_one_that_is_small_named(
    streamed: Path, tmp_path: Path
) -> None:
    sizes = sizes_of(streamed)
    said = refusal(streamed / "there", tmp_path, budget=max(sizes.values()) - 1)
    enough = re.search(r"holds no shard of \d+\.\d kB: --cache-size ([0-9.e-]+) or", said)
    assert enough is not None
    assert float(enough[1]) * 1e9 > max(sizes.values())
    file = tmp_path / "file"
    file.write_text("mine")
    assert "file: cannot be written: File exists." in refusal(streamed / "there", file, budget=BIG)
    for budget, together, what in (
        (BIG, 16, "the cache holds all of it"),
        (sum(sizes.values()) - 1, 1, "holds what comes next"),
        (max(sizes.values()), 4, "is less than two windows of 4 shards"),
    ):
        with closing(RemoteShards(str(streamed / "there"), tmp_path, budget)) as shards:
            said = shards.describe(together)
            assert what in said
            enough = re.search(r"--cache-size ([0-9.e-]+) is enough", said)
        if enough is not None:
            budget = int(float(enough[1]) * 1e9)
            tars = (streamed / "there" / "samples").glob("*.tar")
            assert budget < 1.03 * sum(map(size_now, tars))  # more than all of it is no use
            with closing(RemoteShards(str(streamed / "there"), tmp_path, budget)) as shards:
                assert "is less than two windows" not in shards.describe(together)


def test_rows_that_would_fill_the_disk_beside_the_cache_are_refused(
    streamed: Path, tmp_path: Path
) -> None:
    there = Path(shutil.copytree(streamed / "there", tmp_path / "there"))

    def grow(table: dict[str, Any]) -> None:
        for file in table["files"]:
            if file["name"].startswith("samples/") and file["name"].endswith(".parquet"):
                file["size"] = 2**31

    forge_index(there, grow)
    said = refusal(there, tmp_path / "cache")
    enough = re.search(r"its rows take .* GB, .*: --cache-size ([0-9.e-]+) or more", said)
    assert enough is not None
    assert float(enough[1]) > 2**31 * 8 / 1e9
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_named(streamed: Path, tmp_path: Path) -> None:
    for name, file in load_index(streamed / "there").by_name.items():
        if name.endswith(".parquet"):
            (tmp_path / f"{file.sha256}.parquet.part").mkdir()
    told = rf"^{tmp_path}: cannot be written: Is a directory"
    with (
        closing(RemoteShards(str(streamed / "there"), tmp_path, BIG)) as shards,
        pytest.raises(UserError, match=told),
    ):
        shards.names("train")


def test_a_recipe_alone_cannot_be_streamed(streamed: Path, tmp_path: Path) -> None:
    push(Work(streamed / "work"), str(tmp_path / "there"), QUIET, recipe_only=True)
    assert "shares no pictures" in refusal(tmp_path / "there", tmp_path / "cache")
