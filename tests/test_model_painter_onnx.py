"""ONNX files as painters: without torch, and whoever wrote them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image
from typer.testing import Result

from model.use.load import load_painter
from pipeline.errors import UserError
from tests.exports import REFERENCE, ROOT, SKETCH
from tests.onnx_models import write_model, write_painter

pytestmark = pytest.mark.usefixtures("small_style_networks")


@pytest.mark.slow
def test_the_onnx_file_needs_no_torch(exported: tuple[Path, Result], tmp_path: Path) -> None:
    SKETCH.save(tmp_path / "a.png")
    REFERENCE.save(tmp_path / "b.png")
    code = "import sys; sys.modules['torch'] = None; from cli import main; main()"  # import fails
    arguments = [str(exported[0] / "model.onnx"), "--sketch", "a.png", "--reference", "b.png"]
    done = subprocess.run(
        [sys.executable, "-c", code, "colorize", *arguments, "--out", "c.png"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "c.png: 150 x 90\n"
    assert Image.open(tmp_path / "c.png").size == (150, 90)


@pytest.mark.slow
def test_onnx_files_of_others_are_named(exported: tuple[Path, Result], tmp_path: Path) -> None:
    other = write_model(tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"other\.onnx: is an ONNX file, but not one that `export`"):
        load_painter(other)
    with pytest.raises(UserError, match=r"none\.onnx: cannot be read"):
        load_painter(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(UserError, match=r"text\.onnx: cannot be loaded as one self-contained"):
        load_painter(tmp_path / "text.onnx")
    with pytest.raises(UserError, match="computes on the CPU, not on 'cuda'"):
        load_painter(exported[0] / "model.onnx", device="cuda")
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(UserError, match=r"pipe\.onnx: is no plain file"):
        load_painter(tmp_path / "pipe.onnx")
    newer = onnx.load(str(exported[0] / "model.onnx"))
    newer.metadata_props[0].value = '{"version": 2}'
    onnx.save(newer, str(tmp_path / "newer.onnx"))
    with pytest.raises(UserError, match="written by a newer version of this program"):
        load_painter(tmp_path / "newer.onnx")
    newer.metadata_props[
        0
    ].value = '{"version": 1, "model": "reference", "size": [64, 64], "recipe": {"prepare": 3}}'
    onnx.save(newer, str(tmp_path / "odd.onnx"))
    with pytest.raises(UserError, match=r"odd\.onnx: its recipe is none"):
        load_painter(tmp_path / "odd.onnx")
    newer.metadata_props[0].value = '{"version": 1, "model": "reference", "size": [32, 32]}'
    onnx.save(newer, str(tmp_path / "liar.onnx"))
    with pytest.raises(UserError, match="which is not what it says of itself"):
        load_painter(tmp_path / "liar.onnx")


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (helper.make_node("Identity", ["sketch"], ["picture"]), "what it gives is no picture"),
        (helper.make_node("Log", ["reference"], ["picture"]), "holds what is no number"),
        (helper.make_node("Unsqueeze", ["reference", "size"], ["picture"]), "does not run"),
    ],
)
def test_an_onnx_file_that_gives_no_picture_is_refused(
    node: onnx.NodeProto, said: str, tmp_path: Path
) -> None:
    size = helper.make_node("Size", ["sketch"], ["size"])
    painter = load_painter(write_painter(tmp_path / "a.onnx", size, node))
    with pytest.raises(UserError, match=rf"a\.onnx: .*{said}"):
        painter.answer(np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.uint8), 1.0)


def test_an_onnx_file_of_enormous_pictures_is_refused(tmp_path: Path) -> None:
    echo = helper.make_node("Identity", ["reference"], ["picture"])
    with pytest.raises(UserError, match=r"a\.onnx: is of pictures of 65536 x 65536 pixels"):
        load_painter(write_painter(tmp_path / "a.onnx", echo, side=65536))
