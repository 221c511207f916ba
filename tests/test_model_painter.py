import dataclasses

import numpy as np
import pytest
from PIL import Image

from model.use.painter import Painter, check_sketch, remarks_on
from model.use.pictures import NotLineArtError, Pixels, has_color
from pipeline.errors import UserError
from pipeline.pictures.sketch import dodge
from tests.painters import tinting_painter
from tests.pictures import draw_picture

PAD = {"prepare": {"fit": "pad"}}
SKETCH = Image.fromarray(dodge(draw_picture(1, 90, 150), 3.5))
RED = Image.new("RGB", (30, 40), (220, 40, 40))


def test_the_picture_has_the_sketchs_size_and_the_references_colour() -> None:
    painter = tinting_painter()
    found = painter.paint(SKETCH, painter.look_at(RED, "red"))
    assert (found.size, found.mode) == ((150, 90), "RGB")
    assert np.median(np.asarray(found).reshape(-1, 3), axis=0).tolist() == [220, 40, 40]


def test_padded_training_pictures_mean_padded_sketches() -> None:
    """With a model that gives back the sketch, what is padded must come off again."""
    shown: list[tuple[Pixels, Pixels]] = []

    def echo(sketch: Pixels, reference: Pixels, guidance: float) -> Pixels:
        shown.append((sketch, reference))
        return np.repeat(sketch[..., None], 3, axis=2)

    painter = Painter(echo, (256, 256), "echo", PAD)
    blue = Image.new("RGB", (100, 200), (20, 40, 200))
    out = np.asarray(painter.paint(SKETCH, painter.look_at(blue, "blue")).convert("L"), float)
    ((sketch, reference),) = shown
    assert (sketch[:50] == 255).all()  # 150 x 90 leaves bars of 51 above and below
    assert (sketch[60:190] < 200).any()
    assert (reference[:, :60] == 255).all()
    assert out.shape == (90, 150)
    assert np.abs(out - np.asarray(SKETCH, float)).mean() < 3


def test_without_padding_pictures_are_stretched() -> None:
    reference = tinting_painter().look_at(RED, "red")
    assert reference.pixels.shape == (64, 64, 3)
    assert reference.pixels.max() == 220


def test_grey_in_grey_out() -> None:
    """Also with a model that tints everything."""

    def brown(sketch: Pixels, reference: Pixels, guidance: float) -> Pixels:
        return np.full((64, 64, 3), (140, 90, 60), np.uint8)

    painter = Painter(brown, (64, 64), "brown")
    grey = painter.look_at(Image.fromarray(draw_picture(2)).convert("L"), "grey")
    assert not grey.has_color
    assert not has_color(painter.paint(SKETCH, grey))
    assert has_color(painter.paint(SKETCH, painter.look_at(RED, "red")))


def test_guidance_is_for_models_that_know_it() -> None:
    painter = tinting_painter()
    red = painter.look_at(RED, "red")
    papers = [
        np.median(np.asarray(painter.paint(SKETCH, red, guidance)).reshape(-1, 3), axis=0).tolist()
        for guidance in (0.0, 0.5, 1.0)
    ]
    assert papers == [[255, 255, 255], [238, 147, 147], [220, 40, 40]]
    stubborn = dataclasses.replace(painter, can_be_guided=False)
    assert stubborn.paint(SKETCH, red).size == SKETCH.size
    with pytest.raises(UserError, match="guidance needs a model that was trained to do without"):
        stubborn.paint(SKETCH, red, 1.5)
    for guidance in (-0.1, 3.1, float("nan")):
        with pytest.raises(UserError, match="is not in 0 to 3"):
            painter.paint(SKETCH, red, guidance)


def test_what_is_no_sketch_is_refused() -> None:
    check_sketch(SKETCH, "a.png")
    with pytest.raises(UserError, match=r"a\.png: is blank"):
        check_sketch(Image.new("RGB", (40, 40), (200, 220, 255)), "a.png")
    with pytest.raises(NotLineArtError, match=r"a\.png: is a colour picture"):
        check_sketch(Image.fromarray(draw_picture(1)), "a.png")


def test_a_dark_sketch_is_remarked_on() -> None:
    assert remarks_on(SKETCH, "a.png") == []
    (remark,) = remarks_on(Image.eval(SKETCH, lambda level: 255 - level), "a.png")
    assert remark.startswith("a.png: is mostly dark")
    assert remark.endswith(". Invert it if its lines are light.")
