import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image
from rich.console import Console
from webdataset import WebDataset

from pipeline.counts import Fates
from pipeline.errors import UserError
from pipeline.maintenance.status import read_status
from pipeline.maintenance.verify import verify
from pipeline.pictures.image import decode
from pipeline.pictures.sketch import draw_sketch, xdog
from pipeline.planning.plan import planned_shards
from pipeline.recipe import OnnxSettings, PrepareSettings, Recipe, SketchSettings, XdogSettings
from pipeline.run import prepare
from pipeline.schema import RAW, SAMPLES, members_of
from pipeline.shards.shard import Span, read_shard, read_span, tar_path
from pipeline.stages.prepare import prepare_picture
from pipeline.work import Work
from tests.onnx_models import write_model
from tests.pictures import draw_picture, encoded, letterboxed
from tests.works import EXPECTED, draw_original, fetch_all, make_work, odd_original

QUIET = Console(quiet=True)
SETTINGS = PrepareSettings(size=64)


def run_prepare(work: Work, recipe: Recipe, num_workers: int = 1) -> Fates:
    summary = prepare(recipe, work, QUIET, num_workers=num_workers)
    assert not summary.errors
    return summary.fates


def contents(work: Work) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in work.samples_dir.iterdir()}


def prepared_fate(data: bytes, settings: PrepareSettings = SETTINGS) -> str:
    return str(prepare_picture(data, 300, 400, "512px", 10**8, settings).fate)


def test_what_may_become_of_a_picture() -> None:
    whole = draw_original(1)
    assert prepared_fate(whole) == "kept"
    assert prepared_fate(whole[: len(whole) // 2]) == "corrupt/truncated"
    assert prepared_fate(b"\xff\xd8\xff" + b"x" * 90) == "corrupt/undecodable"
    assert prepared_fate(encoded(np.zeros((512, 512, 3), np.uint8))) == "blank/flat"
    assert prepared_fate(whole, replace(SETTINGS, min_side=385)) == "too_small/after_crop"
    assert prepared_fate(whole, replace(SETTINGS, min_side=384)) == "kept"
    few = prepare_picture(whole, 300, 400, "512px", 512 * 511, SETTINGS)
    assert str(few.fate) == "corrupt/undecodable"


def test_a_prepared_picture_is_the_crop_without_its_bars() -> None:
    picture = draw_picture(3, 400, 300)
    prepared = prepare_picture(
        encoded(letterboxed(picture), quality=95), 300, 400, "512px", 10**8, SETTINGS
    )
    color = decode(prepared.color)
    expected = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(color.astype(int) - expected).mean() < 4
    sketch = decode(prepared.sketches["sketch"])[..., 0]
    assert np.abs(sketch.astype(int) - draw_sketch(color, SETTINGS.sketch)).mean() < 6
    untouched = prepare_picture(
        encoded(letterboxed(picture)), 300, 400, "original", 10**8, SETTINGS
    )
    assert untouched.box is not None
    assert untouched.box.width == 512


def test_every_row_that_goes_in_comes_out_with_one_fate(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 30, odd_original)
    fetch_all(work, recipe)
    assert run_prepare(work, recipe) == EXPECTED
    rows: dict[int, dict[str, Any]] = {}
    for name in planned_shards(work.plan_path):
        table, info = read_shard(work.samples_dir, name, SAMPLES)
        rows |= {row["post_id"]: row | {"shard": name} for row in table.to_pylist()}
        assert info["recipe"]["prepare"]["size"] == 64
    assert sorted(rows) == list(range(1, 31))
    assert rows[8]["duplicate_of"] == 1
    assert rows[6]["key"] is None
    kept = rows[10]
    assert (kept["letterbox"], kept["crop_left"], kept["crop_right"]) == ("confirmed", 64, 448)
    with tar_path(work.samples_dir, kept["shard"]).open("rb") as tar:
        description = json.loads(read_span(tar, Span(kept["json_offset"], kept["json_size"])))
    assert description["post_id"] == 10
    assert description["character"] == "miku"
    assert None not in description.values()


def test_pictures_that_keep_their_bars_are_compared_whatever_is_between_these(
    tmp_path: Path,
) -> None:
    work, recipe = make_work(tmp_path, 10, lambda post_id: draw_original(min(post_id, 7)))
    recipe = replace(recipe, prepare=replace(recipe.prepare, letterbox=False, min_side=400))
    fetch_all(work, recipe)
    assert run_prepare(work, recipe) == {"kept": 7, "duplicate/same_pixels": 3}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_second_run_does_nothing_and_workers_change_no_byte(
    tmp_path: Path, num_workers: int
) -> None:
    work, recipe = make_work(tmp_path, 30, odd_original)
    fetch_all(work, recipe)
    run_prepare(work, recipe)
    before = contents(work)
    stamps = {path: path.stat().st_mtime_ns for path in work.samples_dir.iterdir()}
    assert run_prepare(work, recipe, num_workers) == EXPECTED
    assert {path: path.stat().st_mtime_ns for path in work.samples_dir.iterdir()} == stamps
    shutil.rmtree(work.samples_dir)
    run_prepare(work, recipe, num_workers)
    assert contents(work) == before


def test_another_setting_makes_other_samples(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 10)
    fetch_all(work, recipe)
    run_prepare(work, recipe)
    before = contents(work)
    other = replace(recipe, prepare=replace(recipe.prepare, size=32))
    said = io.StringIO()
    prepare(other, work, Console(file=said, width=1000))
    assert contents(work) != before
    assert said.getvalue().startswith(
        f"{work.samples_dir}: 1 shard has other settings and will be made anew: "
        "prepare.size is 32, there 64.\n"
    )
    again = io.StringIO()
    prepare(other, work, Console(file=again, width=1000))
    assert "anew" not in again.getvalue()


SEVERAL = {
    "ink": SketchSettings("xdog"),
    "broad": SketchSettings("xdog", xdog=XdogSettings(sigma=1.4)),
}


def test_several_sketches_are_several_members(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 30, odd_original)
    fetch_all(work, recipe)
    run_prepare(work, recipe)
    one = {name: read_shard(work.samples_dir, name, SAMPLES)[0] for name in planned(work)}
    several = replace(recipe, prepare=replace(recipe.prepare, sketches=SEVERAL))
    assert run_prepare(work, several) == EXPECTED
    assert verify(work.root) == []
    assert read_status(work).adds_up
    for name in planned(work):
        table, _ = read_shard(work.samples_dir, name, SAMPLES)
        assert members_of(table.schema) == ("color", "json", "sketch", "sketch_broad", "sketch_ink")
        assert table.select(["post_id", "status"]).equals(one[name].select(["post_id", "status"]))
        with tar_path(work.samples_dir, name).open("rb") as tar:
            for row in table.to_pylist():
                if row["status"] != "kept":
                    assert row["sketch_ink_offset"] is None
                    continue
                place = Span(row["sketch_ink_offset"], row["sketch_ink_size"])
                ink = decode(read_span(tar, place))[..., 0]
                color = decode(read_span(tar, Span(row["color_offset"], row["color_size"])))
                assert np.abs(ink.astype(int) - xdog(color, XdogSettings())).mean() < 12
    urls = [str(tar_path(work.samples_dir, name)) for name in planned(work)]
    samples = list(WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert len(samples) == EXPECTED["kept"]
    for sample in samples:
        assert {"sketch.png", "sketch_broad.png", "sketch_ink.png"} < set(sample)


def planned(work: Work) -> list[str]:
    return list(planned_shards(work.plan_path))


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_file_of_a_network_is_part_of_the_fingerprint(tmp_path: Path, num_workers: int) -> None:
    work, recipe = make_work(tmp_path, 12)
    fetch_all(work, recipe)
    (tmp_path / "b").mkdir()
    path = write_model(tmp_path / "m.onnx")
    network = SketchSettings("onnx", onnx=OnnxSettings(str(path)))
    recipe = replace(recipe, prepare=replace(recipe.prepare, sketch=network))
    run_prepare(work, recipe, num_workers)
    before = contents(work)
    run_prepare(work, recipe, num_workers)
    assert contents(work) == before
    _, info = read_shard(work.samples_dir, planned(work)[0], SAMPLES)
    said = info["recipe"]["prepare"]["sketch"]["onnx"]["sha256"]
    assert said == hashlib.sha256(path.read_bytes()).hexdigest()
    stamps = {path: path.stat().st_mtime_ns for path in work.samples_dir.iterdir()}
    moved = replace(network, onnx=OnnxSettings(str(path.rename(tmp_path / "b" / "m.onnx"))))
    recipe = replace(recipe, prepare=replace(recipe.prepare, sketch=moved))
    run_prepare(work, recipe, num_workers)
    assert {path: path.stat().st_mtime_ns for path in work.samples_dir.iterdir()} == stamps
    write_model(Path(moved.onnx.model), scale=0.5)
    run_prepare(work, recipe, num_workers)
    after = contents(work)
    assert all(after[name] != data for name, data in before.items())


def test_shards_are_plain_webdataset(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 30, odd_original)
    fetch_all(work, recipe)
    run_prepare(work, recipe)
    urls = [str(tar_path(work.samples_dir, name)) for name in planned_shards(work.plan_path)]
    samples = list(WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert len(samples) == EXPECTED["kept"]
    for sample in samples:
        assert {key for key in sample if not key.startswith("__")} == {
            "color.jpg",
            "json",
            "sketch.png",
        }
        assert sample["color.jpg"].shape == (64, 64, 3)
        assert int(sample["__key__"]) == sample["json"]["post_id"]


def test_shards_load_with_hugging_face_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    work, recipe = make_work(tmp_path, 30, odd_original)
    fetch_all(work, recipe)
    run_prepare(work, recipe)
    files = [str(tar_path(work.samples_dir, name)) for name in planned_shards(work.plan_path)]
    loaded = load_dataset(
        "webdataset",
        data_files={"train": files},
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(loaded) == EXPECTED["kept"]
    assert isinstance(loaded[0]["color.jpg"], Image.Image)
    assert loaded[0]["sketch.png"].size == (64, 64)
    assert {"post_id", "tags", "character"} <= set(loaded[0]["json"])


def test_a_shard_without_samples_is_still_a_shard(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 3, lambda post_id: None)
    fetch_all(work, recipe)
    assert run_prepare(work, recipe) == Counter({"missing/no_file": 3})
    for name in planned_shards(work.plan_path):
        assert list(WebDataset([str(tar_path(work.samples_dir, name))], empty_check=False)) == []


def test_wrong_use_is_named(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 3)
    with pytest.raises(UserError, match="run `fetch` first"):
        prepare(recipe, work, QUIET)
    fetch_all(work, recipe)
    sketch = replace(recipe.prepare.sketch, method="charcoal")
    odd = replace(recipe, prepare=replace(recipe.prepare, sketch=sketch))
    with pytest.raises(UserError, match=r"charcoal.*dodge"):
        prepare(odd, work, QUIET)
    with pytest.raises(UserError, match=r"selection\.parquet"):
        prepare(recipe, Work(tmp_path / "nowhere"), QUIET)


def cut(data: bytearray, at: int) -> None:
    del data[-512:]


def flip(data: bytearray, at: int) -> None:
    data[at] ^= 1


@pytest.mark.parametrize(
    ("damage", "what"), [(cut, "not as long as its rows say"), (flip, "damaged at post")]
)
def test_a_damaged_raw_shard_is_an_error_of_its_shard_only(
    tmp_path: Path, damage: Callable[[bytearray, int], None], what: str
) -> None:
    work, recipe = make_work(tmp_path, 30)
    fetch_all(work, recipe)
    name = next(iter(planned_shards(work.plan_path)))
    rows, _ = read_shard(work.raw_dir, name, RAW)
    row = rows.to_pylist()[1]
    tar = tar_path(work.raw_dir, name)
    data = bytearray(tar.read_bytes())
    damage(data, row["offset"] + row["size"] // 2)
    tar.write_bytes(data)
    summary = prepare(recipe, work, QUIET)
    assert list(summary.errors) == [name]
    assert what in summary.errors[name]
    assert summary.fates.total() == 30 - planned_shards(work.plan_path)[name]
