import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import MODELS
from model.networks.build import build_generator
from model.networks.style import build_style_network
from model.use.colorize import Colorizer, as_painter, load_colorizer
from model.use.load import load_painter
from pipeline.errors import UserError
from tests.calls import call
from tests.model_checkpoints import write_checkpoint
from tests.pictures import draw_picture
from tests.stand_ins import Thumbnails
from tests.tensors import drawn

pytestmark = pytest.mark.usefixtures("small_style_networks")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best.safetensors")


@pytest.mark.slow
@pytest.mark.usefixtures("real_style_networks")
@pytest.mark.parametrize("name", MODELS)
def test_every_model_colours(name: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "best.safetensors", name)
    painter = as_painter(*load_colorizer(tmp_path, device="cpu"))
    sketch, reference = (Image.fromarray(draw_picture(seed, 90, 150)) for seed in (1, 2))
    assert painter.paint(sketch, painter.look_at(reference, "it")).size == (150, 90)
    assert (painter.model, painter.size) == (name, (64, 64))
    assert load_checkpoint(checkpoint)[1].model.name == name


def test_colouring_teaches_a_model_nothing() -> None:
    """In the middle of its training: BatchNorm would count otherwise, and learn."""
    generator = build_generator("batchnorm", 0.125).eval()
    colorizer = Colorizer(generator, Thumbnails(), torch.device("cpu"))
    sketch, reference = drawn(1, 2)[:, :1], drawn(3)
    expected = colorizer(sketch, reference)
    generator.train()
    before = {name: buffer.clone() for name, buffer in generator.named_buffers()}
    assert any(name.endswith("running_mean") for name in before)
    assert torch.equal(colorizer(sketch, reference), expected)
    assert all(torch.equal(b, before[name]) for name, b in generator.named_buffers())
    assert generator.training


def test_the_painters_answer_is_the_models(checkpoint: Path) -> None:
    colorizer, info = load_colorizer(checkpoint, device="cpu")
    sketch, reference = draw_picture(3, 64, 64)[..., 0], draw_picture(4, 64, 64)
    expected = colorizer(
        torch.from_numpy(sketch.copy())[None, None],
        torch.from_numpy(reference).permute(2, 0, 1)[None],
    )
    painter = as_painter(colorizer, info)
    found = painter.answer(sketch, reference, 1.0)
    assert (found == expected[0].permute(1, 2, 0).numpy()).all()
    assert not painter.can_be_guided
    guided = dataclasses.replace(info, train=dataclasses.replace(info.train, drop_reference=0.1))
    assert as_painter(colorizer, guided).can_be_guided


def test_a_model_without_a_style_network_takes_no_weights(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "best.safetensors", "reference")
    tensors, info = load_checkpoint(path)
    gone = str(tmp_path / "gone.pth")
    trained = dataclasses.replace(info.model, style_weights=gone)
    save_checkpoint(path, tensors, dataclasses.replace(info, model=trained))
    assert load_colorizer(path, device="cpu")[1].model == trained
    words: dict[str, list[object]] = {
        "eval": ["--work", tmp_path],
        "export": ["--out", tmp_path / "out"],
        "colorize": ["--sketch", "a", "--reference", "b", "--out", "c.png"],
        "app": [],
    }
    (tmp_path / "samples").mkdir()
    for command, options in words.items():
        error = call(command, path, *options, "--style-weights", gone).exception
        assert str(error) == f"{path}: has no style network; leave --style-weights out."
    assert not (tmp_path / "out").exists()
    onnx = path.with_suffix(".onnx")
    with pytest.raises(UserError, match=r"\.onnx: has its style network in it; leave --style-w"):
        load_painter(onnx, style_weights=gone)


def test_a_checkpoint_wants_the_style_weights_that_it_was_trained_with(
    checkpoint: Path, tmp_path: Path
) -> None:
    tensors, info = load_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"gone\.pth is not here.*--style-weights PATH"):
        load_colorizer(checkpoint, device="cpu", style_weights=str(tmp_path / "gone.pth"))
    inception = build_style_network("inception_v3", normalised=True, weights="random")
    other = dataclasses.replace(info, style=inception.provenance)
    save_checkpoint(tmp_path / "other.safetensors", tensors, other)
    with pytest.raises(UserError, match=r"was trained with inception_v3.*--style-weights"):
        load_colorizer(tmp_path / "other.safetensors", device="cpu")
    save_checkpoint(tmp_path / "empty.safetensors", {}, info)
    with pytest.raises(UserError, match="its tensors are not those of the model 'zhang2017'"):
        load_colorizer(tmp_path / "empty.safetensors", device="cpu")


@pytest.mark.parametrize("name", MODELS)
def test_a_network_that_its_tensors_do_not_fill_takes_no_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_checkpoint(tmp_path / "best.safetensors", name)
    tensors, info = load_checkpoint(path)
    wide = dataclasses.replace(info.model, width_multiplier=4.0)
    save_checkpoint(path, {"generator.a": torch.zeros(1)}, dataclasses.replace(info, model=wide))
    save_checkpoint(
        tmp_path / "style.safetensors", tensors | {"style.layers.a": torch.zeros(1)}, info
    )
    places: set[str] = set()

    def note(tensor: torch.Tensor, **_: Any) -> None:
        places.add(tensor.device.type)

    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", note)  # of each layer that is built
    monkeypatch.delattr("model.use.colorize.build_style_network")
    for hostile in ("best", "style"):
        with pytest.raises(UserError, match=f"its tensors are not those of the model '{name}'"):
            load_colorizer(tmp_path / f"{hostile}.safetensors", device="cpu")
    assert places == {"meta"}


def test_a_checkpoint_with_tensors_of_another_style_network_is_refused(
    checkpoint: Path, tmp_path: Path
) -> None:
    tensors, info = load_checkpoint(checkpoint)
    save_checkpoint(tmp_path / "a.safetensors", tensors | {"style.a": torch.zeros(1)}, info)
    with pytest.raises(UserError, match="its tensors are not those of the model 'zhang2017'"):
        load_colorizer(tmp_path / "a.safetensors", device="cpu")
