import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from pipeline.errors import UserError
from pipeline.pictures.sketch_onnx import draw_with_model, pin_model
from pipeline.recipe import OnnxSettings
from tests.onnx_models import build_endless_model, build_model, write_model
from tests.pictures import draw_picture

PICTURE = draw_picture(1, 32, 32)


def test_a_network_draws_from_colour_or_grey(tmp_path: Path) -> None:
    color = pin_model(OnnxSettings(str(write_model(tmp_path / "color.onnx"))), 32)
    mean = PICTURE.mean(axis=2)
    assert np.abs(draw_with_model(PICTURE, color) - mean).max() <= 1
    grey = pin_model(OnnxSettings(str(write_model(tmp_path / "grey.onnx", channels=1))), 32)
    expected = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2GRAY)
    assert np.array_equal(draw_with_model(PICTURE, grey), expected)


def test_a_network_that_computes_for_ever_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(build_endless_model(), str(tmp_path / "m.onnx"))
    monkeypatch.setattr("pipeline.pictures.onnx_session._MAX_SECONDS", 1)
    with pytest.raises(UserError, match=r"m\.onnx: does not run on .*: takes longer than 1 second"):
        pin_model(OnnxSettings(str(tmp_path / "m.onnx")), 32)


def test_what_lies_outside_the_range_is_clamped(tmp_path: Path) -> None:
    settings = pin_model(OnnxSettings(str(write_model(tmp_path / "m.onnx", scale=3))), 32)
    expected = np.clip(PICTURE.mean(axis=2) * 3, 0, 255)
    assert np.abs(draw_with_model(PICTURE, settings) - expected).max() <= 1
    assert draw_with_model(PICTURE, settings).max() == 255


def test_the_file_is_pinned_by_its_sum(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    pinned = pin_model(OnnxSettings(str(path)), 32)
    assert pinned.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert pin_model(pinned, 32) == pinned
    write_model(path, scale=0.5)
    with pytest.raises(UserError, match="the recipe wants the file with"):
        pin_model(pinned, 32)
    with pytest.raises(UserError, match="has changed since this run began"):
        draw_with_model(PICTURE, replace(pinned, sha256="0" * 64))


def test_what_is_no_sketch_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prepare\.sketch\.onnx\.model"):
        pin_model(OnnxSettings(), 32)
    with pytest.raises(UserError, match="none.onnx: cannot be read"):
        pin_model(OnnxSettings(str(tmp_path / "none.onnx")), 32)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(UserError, match="cannot be loaded"):
        pin_model(OnnxSettings(str(tmp_path / "text.onnx")), 32)
    two = write_model(tmp_path / "two.onnx", out_channels=2)
    with pytest.raises(UserError, match=r"is of \[1, 2, 32, 32\]; a sketch is of \[1, 1, 32, 32\]"):
        pin_model(OnnxSettings(str(two)), 32)
    four = write_model(tmp_path / "four.onnx", channels=4)
    with pytest.raises(UserError, match="it has to take one float32 picture"):
        pin_model(OnnxSettings(str(four)), 32)
    nan = write_model(tmp_path / "nan.onnx", scale=float("nan"))
    with pytest.raises(UserError, match="no numbers"):
        pin_model(OnnxSettings(str(nan)), 32)


def test_a_network_of_another_size_is_named(tmp_path: Path) -> None:
    model = build_model(np.full((1, 3, 1, 1), 1 / 3, np.float32))
    for dim, value in zip(
        model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 16, 16), strict=True
    ):
        dim.dim_value = value
    path = tmp_path / "m.onnx"
    onnx.save(model, str(path))
    assert pin_model(OnnxSettings(str(path)), 16).sha256
    with pytest.raises(UserError, match=r"does not run on a picture of \[1, 3, 32, 32\]"):
        pin_model(OnnxSettings(str(path)), 32)


def test_weights_in_another_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(np.full((1, 3, 1, 1), 1 / 3, np.float32))
    onnx.save(
        model,
        str(tmp_path / "m.onnx"),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    monkeypatch.chdir(tmp_path)  # where onnxruntime would look for them
    with pytest.raises(UserError, match="one self-contained ONNX file"):
        pin_model(OnnxSettings("m.onnx"), 32)


def test_without_onnxruntime_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = write_model(tmp_path / f"{os.getpid()}.onnx", scale=0.75)
    with pytest.raises(UserError, match=r"needs onnxruntime: pip install -e .*\[onnx\]"):
        pin_model(OnnxSettings(str(path)), 32)
