"""What pictures are coloured after while they are judged, and the block of figures of each."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from model.data.augment import same_reference
from model.data.samples import Samples
from model.evaluation.evaluate import evaluate
from model.evaluation.tally import NEEDS_TRUTH, Tally
from pipeline.errors import UserError
from tests.model_checkpoints import write_checkpoint
from tests.model_evaluations import CONFIG, QUIET
from tests.model_samples import write_samples
from tests.stand_ins import SmallInception

pytestmark = pytest.mark.usefixtures("small_style_networks")


@pytest.fixture(scope="module")
def samples_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(
        tmp_path_factory.mktemp("samples"), {"train": 4, "test": 7}, characters=["a", "b", ""]
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best.safetensors")


def assert_columns(path: Path, columns: dict[int, torch.Tensor]) -> None:
    """The pictures in these columns of a sheet are those."""
    sheet = np.asarray(Image.open(path))
    for column, pictures in columns.items():
        for row, picture in enumerate(pictures):
            top, left = 20 + row * 68, 4 + column * 68
            found = torch.from_numpy(sheet[top : top + 64, left : left + 64].copy())
            assert torch.equal(found.permute(2, 0, 1), picture)


def test_the_grid_shows_what_was_coloured_after_what(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, reference=("character",))
    metrics = evaluate(checkpoint, samples_dir, "test", tmp_path, config, console=QUIET)
    assert metrics["num_samples"] == 5  # a b - a b - a: without the two without a character
    assert metrics["baselines"]["copy"]["mse"] > 0
    with Samples(samples_dir, "test") as samples:
        references = samples.load([3, 0]).color  # of the first and the last that has one
        truths = samples.load([0, 6]).color
    assert_columns(tmp_path / "grid.png", {1: references, 3: truths})


def test_same_reference_has_a_truth_in_other_colours(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, reference=("same",))
    metrics = evaluate(checkpoint, samples_dir, "test", tmp_path, config, console=QUIET)
    assert metrics["num_samples"] == 7
    assert metrics["baselines"]["copy"]["mse"] > 0
    assert 0 < metrics["baselines"]["copy"]["chroma_error"] < 1
    with Samples(samples_dir, "test") as samples:
        batch = samples.load([0, 6])  # the first and the last
    truths, references = same_reference(batch.color, batch.indices, seed=0)
    assert_columns(tmp_path / "grid.png", {1: references, 3: truths})


def test_any_reference_has_no_truth_but_a_palette_to_follow(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, reference=("any",))
    extractor = SmallInception("thumbnails", ["small"])
    metrics = evaluate(
        checkpoint, samples_dir, "test", tmp_path, config, extractor=extractor, console=QUIET
    )
    assert metrics["unavailable"].keys() == set(NEEDS_TRUTH)
    assert "no true answer" in metrics["unavailable"]["mse"]
    assert metrics["baselines"]["copy"]["following"] == pytest.approx(1)
    assert metrics["baselines"]["copy"]["fid"] == pytest.approx(0, abs=1e-4)
    assert metrics["fid"] > 0
    rows = pq.read_table(tmp_path / "rows.parquet")
    assert rows.column_names == ["setting", "post_id", "reference_id", "cluster"]
    assert set(rows["post_id"].to_pylist()) == set(rows["reference_id"].to_pylist())
    assert Image.open(tmp_path / "grid.png").width == 4 + 3 * 68  # no column for the truth


def test_nothing_is_coloured_of_which_nothing_is_measured(
    samples_dir: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[str] = []
    monkeypatch.setattr(Tally, "add", lambda *rest: added.append("a batch"))
    config = dataclasses.replace(CONFIG, reference=("any",))
    metrics = evaluate(checkpoint, samples_dir, "test", tmp_path, config, console=QUIET)
    assert added == []
    assert metrics["following"] is not None
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == metrics["num_samples"]


def test_every_setting_has_its_block_its_rows_and_its_grid(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    palette = tmp_path / "palette.png"
    Image.new("RGB", (80, 40), "teal").save(palette)
    config = dataclasses.replace(CONFIG, reference=("character", "same", str(palette)))
    out = tmp_path / "out"
    metrics = evaluate(checkpoint, samples_dir, "test", out, config, console=QUIET)
    assert list(metrics["settings"]) == ["character", "same", "picture"]
    for name in ("num_samples", "mse", "chroma_error"):
        assert metrics[name] == metrics["settings"]["character"][name]
    alone = dataclasses.replace(CONFIG, reference=("same",))
    expected = evaluate(checkpoint, samples_dir, "test", tmp_path / "same", alone, console=QUIET)
    assert metrics["settings"]["same"] == expected["settings"]["same"]
    assert metrics["settings"]["picture"]["mse"] is None
    rows = pq.read_table(out / "rows.parquet").to_pandas()
    assert rows.setting.value_counts().to_dict() == {"same": 7, "picture": 7, "character": 5}
    assert rows[rows.setting == "picture"].reference_id.isna().all()
    assert not rows[rows.setting == "same"].paper_error.isna().any()
    sheet = np.asarray(Image.open(out / "grid-picture.png"))
    assert (sheet[20:84, 72:136] == (0, 128, 128)).all()  # the reference beside the first sketch
    assert (out / "grid.png").is_file()
    assert (out / "grid-same.png").is_file()


def test_a_reference_picture_is_padded_where_the_samples_are(tmp_path: Path) -> None:
    padded_dir = write_samples(tmp_path / "samples", {"train": 2, "test": 2}, fit="pad")
    checkpoint = write_checkpoint(tmp_path / "best.safetensors", model="reference")
    palette = tmp_path / "palette.png"
    Image.new("RGB", (80, 40), "teal").save(palette)
    config = dataclasses.replace(CONFIG, reference=(str(palette),))
    evaluate(checkpoint, padded_dir, "test", tmp_path, config, console=QUIET)
    reference = np.asarray(Image.open(tmp_path / "grid.png"))[20:84, 72:136]
    assert (reference[:16] == 255).all()
    assert (reference[16:48] == (0, 128, 128)).all()
    assert (reference[48:] == 255).all()


def test_names_of_old_archives_are_no_hindrance(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    picture = tmp_path / os.fsdecode("参照.png".encode("shift-jis"))  # no UTF-8
    Image.new("RGB", (64, 64), "teal").save(picture)
    config = dataclasses.replace(CONFIG, reference=(str(picture),))
    out = tmp_path / os.fsdecode(b"\xff")
    evaluate(checkpoint, samples_dir, "test", out, config, console=QUIET)
    assert orjson.loads((out / "metrics.json").read_bytes())["file"] == "\ufffdQ\ufffd\ufffd.png"
    assert (out / "rows.parquet").is_file()


def test_how_many_have_another_drawing_of_their_character_is_said(
    samples_dir: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(CONFIG, reference=("self", "character"))
    metrics = evaluate(checkpoint, samples_dir, "test", tmp_path, config)
    num = metrics["settings"]["character"]["num_samples"]
    assert num == 5  # of a, b and no one in turn
    said = [line for line in capsys.readouterr().out.splitlines() if "another drawing" in line]
    assert said == ["5 of 7 test samples have another drawing of their character."]


def test_what_is_no_setting_and_no_picture_is_said(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, reference=("charcter",))
    with pytest.raises(UserError, match=r"charcter \(did you mean 'character'\?\): neither self"):
        evaluate(checkpoint, samples_dir, "test", tmp_path, config, console=QUIET)
    config = dataclasses.replace(CONFIG, reference=("",))
    with pytest.raises(UserError, match="^--reference : neither self"):
        evaluate(checkpoint, samples_dir, "test", tmp_path, config, console=QUIET)


def test_each_of_several_pictures_has_its_block_its_rows_and_its_grid(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    colors = {"teal.png": (0, 128, 128), "tan.png": (210, 180, 140)}
    for name, color in colors.items():
        Image.new("RGB", (64, 64), color).save(tmp_path / name)
    paths = tuple(str(tmp_path / name) for name in colors)
    config = dataclasses.replace(CONFIG, reference=(paths[0], "any", paths[1]))
    out = tmp_path / "out"
    metrics = evaluate(checkpoint, samples_dir, "test", out, config, console=QUIET)
    settings = metrics["settings"]
    assert list(settings) == ["picture", "any", "picture-2"]
    assert [block["reference"] for block in settings.values()] == list(settings)
    assert [block.get("file") for block in settings.values()] == ["teal.png", None, "tan.png"]
    assert metrics["reference"] == "picture"
    rows = pq.read_table(out / "rows.parquet").to_pandas()
    assert rows.setting.value_counts().to_dict() == {"picture": 7, "any": 7, "picture-2": 7}
    for grid, color in zip(("grid.png", "grid-picture-2.png"), colors.values(), strict=True):
        sheet = np.asarray(Image.open(out / grid))
        assert (sheet[20:84, 72:136] == color).all()
