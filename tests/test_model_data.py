import itertools
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.data.order import epoch_order
from model.data.samples import Batch, Samples, iterate_batches, to_bytes, to_unit
from model.data.shards import LocalShards
from pipeline.errors import DamagedError, UserError
from pipeline.pictures.sketch import xdog
from pipeline.recipe import XdogSettings
from pipeline.schema import SAMPLES
from pipeline.settings import Table
from pipeline.shards.shard import read_shard, rows_path, tar_path
from tests.model_samples import write_samples
from tests.pictures import draw_picture
from tests.shares import forge_rows


@given(n=st.integers(1, 200), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 1000))
def test_each_epoch_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_order(n, seed, epoch).tolist()) == list(range(n))


def test_the_order_is_the_same_on_every_machine_and_differs_by_seed_and_epoch() -> None:
    assert epoch_order(10, seed=1, epoch=2).tolist() == [4, 2, 0, 6, 1, 5, 9, 8, 7, 3]
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_samples_are_the_kept_rows_decoded(tmp_path: Path) -> None:
    with Samples(write_samples(tmp_path), "train") as samples:
        assert len(samples) == 8
        assert samples.size == (64, 64)
        assert samples.recipe == {"prepare": {"fit": "stretch"}}
        batch = samples.load([5, 0])
    assert batch.post_ids.tolist() == [samples.post_ids[5], samples.post_ids[0]]
    assert batch.color.shape == (2, 3, 64, 64)
    assert batch.sketch.shape == (2, 1, 64, 64)
    assert batch.color.dtype == batch.sketch.dtype == torch.uint8
    for i, post_id in enumerate(batch.post_ids):
        drawn = torch.from_numpy(draw_picture(int(post_id), 64, 64)).permute(2, 0, 1)
        assert (batch.color[i].float() - drawn.float()).abs().mean() < 4  # JPEG
    assert batch.sketch.float().std() > 5


def test_another_sketch_is_taken_by_its_members_name(tmp_path: Path) -> None:
    several = write_samples(tmp_path / "several", ink=True)
    with Samples(several, "train") as plain, Samples(several, "train", "sketch_ink") as inked:
        pencil, ink = plain.load([5, 0]), inked.load([5, 0])
    assert torch.equal(ink.color, pencil.color)
    for i, post_id in enumerate(ink.post_ids):
        drawn = xdog(draw_picture(int(post_id), 64, 64), XdogSettings())
        assert np.array_equal(ink.sketch[i, 0].numpy(), drawn)
    one = write_samples(tmp_path / "one")
    for directory, name in ((one, "sketch_ink"), (several, "color"), (several, "ink")):
        with pytest.raises(UserError, match=f"'{name}'; it has sketch"):
            Samples(directory, "train", name)


def test_each_sample_of_a_batch_may_have_another_of_its_sketches(tmp_path: Path) -> None:
    several = write_samples(tmp_path, ink=True)
    with Samples(several, "train", "sketch_ink") as alone:
        ink = alone.load([5, 0, 3])
    with Samples(several, "train", "sketch", "sketch_ink") as both:
        pencil = both.load([5, 0, 3])
        mixed = both.load(np.array([[5, 2, 1], [0, 0, 0], [3, 3, 1]]))
    assert torch.equal(mixed.sketch[[0, 2]], ink.sketch[[0, 2]])
    assert torch.equal(mixed.sketch[1], pencil.sketch[1])
    assert not torch.equal(pencil.sketch[1], ink.sketch[1])
    assert torch.equal(mixed.color, pencil.color)
    assert torch.equal(mixed.reference[1:], pencil.color[1:])
    with pytest.raises(UserError, match=r"no 'sketch_xdog'; it has sketch, sketch_ink\. Take"):
        Samples(several, "train", "sketch", "sketch_xdog")


@given(batch_size=st.integers(1, 9), stop=st.integers(0, 8), num_threads=st.integers(1, 3))
def test_a_stop_and_a_resume_see_every_sample_once(
    eight_samples: Samples, batch_size: int, stop: int, num_threads: int
) -> None:
    order = epoch_order(8, seed=3, epoch=1)
    batches = iterate_batches(eight_samples, order, batch_size, num_threads=num_threads)
    seen = []
    for batch in itertools.islice(batches, stop):
        seen += batch.indices.tolist()
    batches.close()
    for batch in iterate_batches(eight_samples, order[len(seen) :], batch_size):
        seen += batch.indices.tolist()
        assert (batch.post_ids == eight_samples.post_ids[batch.indices]).all()
    assert seen == order.tolist()


def test_the_last_batch_has_what_is_left(eight_samples: Samples) -> None:
    sizes = [len(b.indices) for b in iterate_batches(eight_samples, np.arange(8), 3)]
    assert sizes == [3, 3, 2]


def test_decoding_ahead_is_bounded(eight_samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = Samples.load

    def counted(self: Samples, part: Sequence[int], *, pin: bool) -> Batch:
        loaded.append(part)
        return load(self, part, pin=pin)

    monkeypatch.setattr(Samples, "load", counted)
    batches = iterate_batches(eight_samples, np.arange(8).repeat(20), 1, num_threads=2)
    next(batches)
    time.sleep(0.1)  # time enough to decode all 160
    assert 1 <= len(loaded) <= 4
    batches.close()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("color_size", 2**62, "names impossible places"),
        ("sketch_offset", -512, "names impossible places"),
        ("color_size", None, "lacks places of members"),
        ("sketch_offset", None, "lacks places of members"),
    ],
)
def test_places_that_a_stranger_made_up_are_refused(
    tmp_path: Path, column: str, value: int | None, message: str
) -> None:
    samples_dir = write_samples(tmp_path / "samples")
    forge_rows(samples_dir, "train-000000", **{column: lambda v: [n and value for n in v]})
    remedy = rf"Find out what else is damaged: `verify {tmp_path}`\."
    with pytest.raises(DamagedError, match=rf"train-000000\.parquet: {message}\. {remedy}$"):
        Samples(samples_dir, "train")


@pytest.mark.parametrize("end", [90, -1])
def test_damaged_rows_are_named_with_what_to_do(tmp_path: Path, end: int) -> None:
    path = rows_path(write_samples(tmp_path / "samples"), "train-000001")
    path.write_bytes(path.read_bytes()[:end])
    remedy = rf"Find out what else is damaged: `verify {tmp_path}`\."
    with pytest.raises(DamagedError, match=rf"^{path}: .*\. {remedy}$"):
        Samples(path.parent, "train")


def test_only_shards_that_the_samples_opened_are_closed_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[LocalShards] = []
    monkeypatch.setattr(LocalShards, "close", lambda shards: closed.append(shards))
    shards = LocalShards(write_samples(tmp_path))
    for source, num_closed in ((shards, 0), (tmp_path, 1)):
        with Samples(source, "train"):
            assert closed == []
        assert len(closed) == num_closed


def test_a_shard_without_samples_has_a_size_too(tmp_path: Path) -> None:
    with Samples(write_samples(tmp_path, {"train": 1}), "train") as samples:
        assert samples.shard_sizes() == [1, 0]


def test_an_empty_split_says_what_to_do(tmp_path: Path) -> None:
    write_samples(tmp_path, {"train": 2})
    with pytest.raises(
        UserError, match=r"no samples in the split 'val'.*Run prepare.*larger share"
    ):
        Samples(tmp_path, "val")
    with pytest.raises(UserError, match=r"Run prepare or pull; samples lie in WORK/samples\.$"):
        Samples(tmp_path / "nowhere", "val")
    write_samples(tmp_path / "none", {"train": 0, "val": 2})
    with pytest.raises(
        UserError,
        match=r"'train'\. Of its 2 posts none was kept: `status WORK` counts.*larger share",
    ):
        Samples(tmp_path / "none", "train")
    with pytest.raises(UserError, match=r"^'vla' \(did you mean 'val'\?\): no such"):
        Samples(tmp_path, "vla")


@pytest.mark.parametrize(
    ("member", "message"), [("color", "its color: "), ("sketch", "its sketch: is not a PNG")]
)
def test_a_damaged_member_is_named_with_its_shard(
    tmp_path: Path, member: str, message: str
) -> None:
    samples_dir = write_samples(tmp_path / "samples")
    rows, _ = read_shard(samples_dir, "train-000000", SAMPLES)
    row = rows.to_pylist()[2]
    tar = tar_path(samples_dir, "train-000000")
    with tar.open("r+b") as file:
        file.seek(row[f"{member}_offset"])
        file.write(b"\0" * 40)
    with Samples(samples_dir, "train") as samples, pytest.raises(UserError) as caught:
        list(iterate_batches(samples, np.arange(8), 4))
    assert message in str(caught.value)
    assert str(tar) in str(caught.value)
    assert row["key"] in str(caught.value)
    assert f"`verify {tmp_path}`" in str(caught.value)


def test_a_tar_that_shrank_is_found(tmp_path: Path) -> None:
    samples_dir = write_samples(tmp_path)
    with Samples(samples_dir, "train") as samples:
        tar_path(samples_dir, "train-000001").open("r+b").truncate(2048)
        with pytest.raises(UserError, match="ends before its members"):
            samples.load(range(8))
    with pytest.raises(UserError, match="not as long as its rows say"):
        Samples(samples_dir, "train")


def test_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    mixed = write_samples(tmp_path / "mixed", {"train": 4})
    small = write_samples(tmp_path / "small", {"train": 4}, size=32)
    for path in small.glob("train-000001.*"):
        shutil.copy(path, mixed)
    with Samples(mixed, "train") as samples, pytest.raises(UserError) as caught:
        samples.load(range(4))
    assert "its color: is (32, 32), not (64, 64)" in str(caught.value)


def test_a_giant_by_its_header_takes_no_memory(tmp_path: Path) -> None:
    """Rows of a stranger's may leave the size to the first picture."""
    tar = tar_path(write_samples(tmp_path), "train-000000")
    data = bytearray(tar.read_bytes())
    sides = data.index(b"\xff\xc0") + 5
    data[sides : sides + 4] = (60_000).to_bytes(2) * 2
    tar.write_bytes(data)
    with pytest.raises(UserError, match=r"its color: is \(60000, 60000\), larger than any sample"):
        Samples(tmp_path, "train")


@pytest.mark.parametrize("said", [64, 2**40, 0, "64"])
def test_no_memory_is_taken_for_what_a_strangers_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: object
) -> None:
    read = LocalShards.rows

    def rows(self: LocalShards, name: str) -> tuple[pa.Table, Table]:
        table, info = read(self, name)
        return table, info | {"recipe": {"prepare": {"size": said}}}

    monkeypatch.setattr(LocalShards, "rows", rows)
    with Samples(write_samples(tmp_path), "train") as samples:
        assert samples.size == (64, 64)


def test_the_fingerprint_follows_the_samples(tmp_path: Path) -> None:
    one = write_samples(tmp_path / "one")
    same = write_samples(tmp_path / "same")
    other = write_samples(tmp_path / "other", {"train": 9})
    first, second, third = (Samples(path, "train").fingerprint for path in (one, same, other))
    assert first == second != third


def test_bytes_and_floats_are_inverse() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    unit = to_unit(levels, torch.device("cpu"))
    assert unit.dtype == torch.float32
    assert unit.min() == 0
    assert unit.max() == 1
    assert torch.equal(to_bytes(unit), levels)
    assert to_bytes(torch.tensor([-1.0, 2.0])).tolist() == [0, 255]


@pytest.fixture(scope="module")
def eight_samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return Samples(write_samples(tmp_path_factory.mktemp("eight")), "train")
