"""An exported ONNX file: it colours as the checkpoint does, or is not written."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import Result

from model.use import export_onnx
from model.use.colorize import as_painter, load_colorizer
from model.use.export import export
from model.use.load import load_painter
from model.use.painter_onnx import OnnxInfo
from pipeline.errors import UserError
from pipeline.pictures.onnx_session import open_session
from tests.exports import RECIPE, REFERENCE, SKETCH
from tests.model_checkpoints import write_checkpoint
from tests.onnx_models import write_model

pytestmark = pytest.mark.usefixtures("small_style_networks")


@pytest.mark.slow
def test_the_onnx_file_colours_as_the_checkpoint_does(
    exported_work: Path, exported: tuple[Path, Result]
) -> None:
    ours, theirs = (
        load_painter(exported_work / "runs" / "first"),
        load_painter(exported[0] / "model.onnx"),
    )
    assert (theirs.size, theirs.model, theirs.pad) == (ours.size, "reference", False)
    assert theirs.recipe["prepare"]["sketch"] == RECIPE["prepare"]["sketch"]
    assert ours.can_be_guided
    assert theirs.can_be_guided
    seen = []
    for guidance in (0.0, 1.0, 2.5):
        pictures = [
            np.asarray(painter.paint(SKETCH, painter.look_at(REFERENCE, "it"), guidance), np.int16)
            for painter in (ours, theirs)
        ]
        assert pictures[0].shape == (90, 150, 3)
        assert np.abs(pictures[0] - pictures[1]).max() <= 1
        seen.append(pictures[0])
    assert seen[1].std() > 10
    assert np.abs(seen[0] - seen[1]).mean() > 2
    assert np.abs(seen[2] - seen[1]).mean() > 2


def test_an_onnx_file_that_differs_is_not_written(
    exported_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_onnx, "_translate", lambda *_: b"")
    for difference in (2e-3, float("nan"), float("inf")):
        monkeypatch.setattr(export_onnx, "_compare", lambda *_, d=difference: d)
        with pytest.raises(UserError, match="would differ from the model by up to"):
            export(exported_work / "runs" / "first", tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_check_sees_a_difference(exported: tuple[Path, Result]) -> None:
    """It is made against another model, so that it is known to be able to fail."""
    colorizer, info = load_colorizer(exported[0], device="cpu")
    content = (exported[0] / "model.onnx").read_bytes()
    whole = export_onnx._Whole(colorizer).eval()
    assert export_onnx._compare(whole, content, info.size) < 1e-4
    with torch.no_grad():
        colorizer.generator.get_parameter("out.bias")[0] += 0.01
    assert export_onnx._compare(whole, content, info.size) == pytest.approx(0.01, rel=0.05)


@pytest.mark.slow
def test_bare_paper_is_normalised_as_exactly_as_by_torch() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(2, 4)
            nn.init.uniform_(self.norm.weight)
            nn.init.uniform_(self.norm.bias)

        def forward(self, sketch: Tensor, reference: Tensor) -> Tensor:
            normalised: Tensor = self.norm(torch.cat([sketch, sketch * reference], 1))
            return normalised

    model, size = Normalised().eval(), (256, 256)
    content = export_onnx._translate(model, OnnxInfo(1, "reference", size))
    given = {"sketch": torch.ones(1, 1, *size), "reference": torch.full((1, 3, *size), 0.7)}
    given["sketch"][..., ::64] = 0
    (found,) = open_session(content, "it", num_threads=1).run(
        None, {name: picture.numpy() for name, picture in given.items()}
    )
    with torch.inference_mode():
        assert np.abs(found - model(**given).numpy()).max() < 1e-4


def test_without_the_extra_its_name_is_said(
    exported_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[onnx\]'"):
        export(exported_work / "runs" / "first", tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    write_model(tmp_path / "any.onnx")
    with pytest.raises(UserError, match=r"any\.onnx: needs onnxruntime: pip install"):
        load_painter(tmp_path / "any.onnx")


@pytest.mark.slow
@pytest.mark.usefixtures("real_style_networks")
@pytest.mark.parametrize("name", ["zhang2017", "inception"])
def test_the_articles_models_are_translated_too(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.safetensors", name)
    colorizer, info = load_colorizer(tmp_path, device="cpu")
    content, difference = export_onnx.export_onnx(colorizer, OnnxInfo(1, name, info.size))
    assert difference < 1e-4
    (tmp_path / "model.onnx").write_bytes(content)
    found = load_painter(tmp_path / "model.onnx").paint(
        SKETCH, as_painter(colorizer, info).look_at(REFERENCE, "it")
    )
    assert found.size == (150, 90)
