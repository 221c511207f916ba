import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.checkpoint import load_checkpoint, save_checkpoint
from model.colorize import colorize, load_colorizer, open_picture
from model.generator import GENERATORS
from pipeline.errors import UserError
from tests.model_checkpoints import cached_style_network, write_checkpoint
from tests.pictures import draw_picture, encoded


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best.safetensors")


@pytest.fixture(autouse=True)
def one_style_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.colorize.build_style_network", cached_style_network)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    sketch, reference = tmp_path / "sketch.png", tmp_path / "reference.jpg"
    sketch.write_bytes(encoded(Image.fromarray(draw_picture(1, 90, 150)).convert("L"), "png"))
    reference.write_bytes(encoded(draw_picture(2, 200, 100)))
    return sketch, reference


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_the_output_has_the_sketchs_size(
    checkpoint: Path, pictures: tuple[Path, Path], tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / "new" / f"out{suffix}"
    assert colorize(checkpoint, *pictures, out, device="cpu") == (150, 90)
    with Image.open(out) as image:
        assert (image.size, image.mode) == ((150, 90), "RGB")
    assert not list(out.parent.glob(".*"))


def test_the_picture_is_the_models(
    checkpoint: Path, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    """At the model's size nothing but the model touches it."""
    sketch, reference = draw_picture(3, 64, 64), draw_picture(4, 64, 64)
    paths = [tmp_path / "s.png", tmp_path / "r.png"]
    for path, picture in zip(paths, (sketch, reference), strict=True):
        path.write_bytes(encoded(picture, "png"))
    colorize(checkpoint, paths[0], paths[1], tmp_path / "out.png", device="cpu")
    colorizer, _ = load_colorizer(checkpoint, device="cpu")
    grey = np.asarray(Image.fromarray(sketch).convert("L"))
    expected = colorizer(
        torch.from_numpy(grey.copy())[None, None],
        torch.from_numpy(reference).permute(2, 0, 1)[None],
    )
    found = np.asarray(Image.open(tmp_path / "out.png"))
    assert (found == expected[0].permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize("name", GENERATORS)
def test_every_model_colours(name: str, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "best.safetensors", name)
    colorize(tmp_path, *pictures, tmp_path / "out.png", device="cpu")
    assert Image.open(tmp_path / "out.png").size == (150, 90)
    assert load_checkpoint(checkpoint)[1].model.name == name


def test_padded_training_pictures_mean_padded_sketches(
    pictures: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model that gives back the sketch, what is padded must come off again."""
    checkpoint = write_checkpoint(
        tmp_path / "best.safetensors", size=256, recipe={"prepare": {"fit": "pad"}}
    )
    seen = []

    def echo(self: object, sketch: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        seen.append((sketch, reference))
        return sketch.expand(-1, 3, -1, -1)

    monkeypatch.setattr("model.colorize.Colorizer.__call__", echo)
    colorize(checkpoint, *pictures, tmp_path / "out.png", device="cpu")
    ((sketch, reference),) = seen
    assert sketch.shape == (1, 1, 256, 256)
    assert (sketch[..., :50, :] == 255).all()  # 150 x 90 leaves bars of 51 above and below
    assert (sketch[..., 60:190, :] < 200).any()
    assert (reference[..., :60] == 255).all()
    out = np.asarray(Image.open(tmp_path / "out.png").convert("L"), float)
    original = np.asarray(Image.open(pictures[0]), float)
    assert out.shape == original.shape
    assert np.abs(out - original).mean() < 6


def test_transparent_and_turned_pictures_are_opened_as_seen(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (0, 0, 255, 255))
    clear.save(tmp_path / "clear.png")
    opened = open_picture(tmp_path / "clear.png")
    assert (opened.mode, opened.getpixel((0, 0)), opened.getpixel((5, 2))) == (
        *("RGB", (0, 0, 255)),
        (255, 255, 255),
    )
    turned = Image.new("RGB", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").size == (4, 8)
    clear.convert("P").save(tmp_path / "palette.gif", save_all=True, append_images=[turned])
    assert open_picture(tmp_path / "palette.gif").mode == "RGB"
    turned.convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert open_picture(tmp_path / "cmyk.jpg").mode == "RGB"


def test_wrong_files_are_named(
    checkpoint: Path, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    sketch, reference = pictures
    out = tmp_path / "out.png"
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(reference.read_bytes()[:900])
    cases = {
        (text, reference): "text.png: is not a picture",
        (sketch, torn): "torn.jpg: cannot be read",
        (tmp_path / "none.png", reference): "none.png: no such file",
        (tmp_path, reference): "cannot be read",
    }
    for paths, message in cases.items():
        with pytest.raises(UserError, match=message):
            colorize(checkpoint, *paths, out, device="cpu")
    for name in ("out.xyz", "out", "out.psd"):
        with pytest.raises(UserError, match="no known picture format"):
            colorize(checkpoint, sketch, reference, tmp_path / name, device="cpu")
    assert not out.exists()


def test_a_picture_that_is_too_large_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.colorize.MAX_PIXELS", 31)
    buffer = io.BytesIO()
    Image.new("L", (8, 4)).save(buffer, "png")
    path = tmp_path / "large.png"
    path.write_bytes(buffer.getvalue()[:60])  # no pixels in it: decoding would fail
    with pytest.raises(UserError, match="8 x 4 pixels are too many"):
        open_picture(path)


def test_a_checkpoint_wants_the_style_weights_that_it_was_trained_with(
    checkpoint: Path, tmp_path: Path
) -> None:
    tensors, info = load_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"gone\.pth is not here.*--style-weights PATH"):
        load_colorizer(checkpoint, device="cpu", style_weights=str(tmp_path / "gone.pth"))
    inception = cached_style_network("inception_v3", normalised=True, weights="random", seed=0)
    other = dataclasses.replace(info, style=inception.provenance)
    save_checkpoint(tmp_path / "other.safetensors", tensors, other)
    with pytest.raises(UserError, match=r"was trained with inception_v3.*--style-weights"):
        load_colorizer(tmp_path / "other.safetensors", device="cpu")
    save_checkpoint(tmp_path / "empty.safetensors", {}, info)
    with pytest.raises(UserError, match="its tensors are not those of the model 'zhang2017'"):
        load_colorizer(tmp_path / "empty.safetensors", device="cpu")
