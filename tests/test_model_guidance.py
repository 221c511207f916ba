from pathlib import Path

import pytest
import torch

from model.config import MODELS
from model.use.colorize import load_colorizer
from pipeline.errors import UserError
from tests.model_checkpoints import write_checkpoint
from tests.tensors import drawn

pytestmark = pytest.mark.usefixtures("small_style_networks")


def test_guidance_goes_on_from_no_reference_through_the_reference(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "a.safetensors", "reference", drop_reference=0.1)
    sketch, reference = drawn(1, 2)[:, :1], drawn(3)

    def color(guidance: float, after: torch.Tensor = reference) -> torch.Tensor:
        colorizer, _ = load_colorizer(checkpoint, device="cpu", guidance=guidance)
        return colorizer(sketch, after).int()

    without, plain, exaggerated = color(0.0), color(1.0), color(1.5)
    assert torch.equal(without, color(1.0, torch.full_like(reference, 255)))
    expected = (without + 1.5 * (plain - without)).clamp(0, 255)
    assert (exaggerated - expected).abs().max() <= 2  # of three roundings
    assert (exaggerated - plain).abs().max() > 10


def test_guidance_is_not_for_a_model_that_always_had_a_reference(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "a.safetensors", "reference")
    with pytest.raises(UserError, match=r"drop_reference=0\.1"):
        load_colorizer(checkpoint, device="cpu", guidance=1.5)


@pytest.mark.parametrize("name", MODELS)
def test_without_guidance_a_picture_comes_as_after_a_white_sheet(name: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "a.safetensors", name, drop_reference=0.1)
    colorizer, _ = load_colorizer(checkpoint, device="cpu")
    sketch, references = drawn(1, 2)[:, :1], drawn(3, 4)
    white = colorizer(sketch, torch.full_like(references[:1], 255))
    colorizer.guidance = 0.0
    for after in (references, references[:1]):
        assert torch.equal(colorizer(sketch, after), white)
