"""What comes back to the sketch's size: its own lines, sharp, and colours that end at them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.use.enlarge import resize_to_sketch
from model.use.pictures import fit, fit_sketch
from pipeline.dolls.data_set import make_dolls, picture_of
from pipeline.pictures.sketch import dodge
from tests.pictures import draw_picture

DOLLS = [picture_of(doll) for doll in make_dolls(6, 1)]


def checkered(width: int, height: int) -> Image.Image:
    pixels = np.full((height, width), 255, np.uint8)
    pixels[20::60] = pixels[21::60] = 0
    pixels[:, 30::70] = pixels[:, 31::70] = 0
    return Image.fromarray(pixels)


@pytest.mark.parametrize("pad", [False, True])
def test_lines_come_back_sharp_and_colours_stay(pad: bool) -> None:
    """Where a model paints the paper red and keeps the lines, the large picture has both."""
    sketch = checkered(400, 300)
    seen = fit_sketch(sketch, (64, 64), pad)
    red = np.array([1.0, 0.25, 0.25])
    answer = np.rint(seen[..., None] * red).astype(np.uint8)
    found = np.asarray(resize_to_sketch(answer, seen, sketch, pad), np.float64)
    expected = np.asarray(sketch, np.float64)[..., None] * red
    assert found.shape == (300, 400, 3)
    inside = np.s_[8:-8, 8:-8]
    assert np.abs(found - expected)[inside].mean() < 4
    lines = expected[..., 0][inside] == 0
    assert np.percentile(found[inside][lines], 95) < 40
    assert np.percentile(found[..., 0][inside][~lines], 5) > 210


@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
@pytest.mark.parametrize("sides", [(500, 334), (334, 500), (2000, 20)])
def test_padded_colours_come_back_where_they_were(
    sides: tuple[int, int], size: tuple[int, int]
) -> None:
    """To the pixel, and without white from the bars at the edges; of a thin picture as well."""
    width, height = sides
    painted = Image.new("RGB", sides, (30, 90, 60))
    painted.paste((200, 40, 40), (0, 0, width // 2, height))
    answer = np.asarray(fit(painted, size, pad=True))
    blank = np.full(size[::-1], 255, np.uint8)
    found = np.asarray(resize_to_sketch(answer, blank, Image.new("RGB", sides, "white"), pad=True))
    apart = np.abs(found.astype(int) - np.asarray(painted)).max(axis=2)
    apart[:, width // 2 - width // 8 : width // 2 + width // 8] = 0  # where they meet
    assert apart.max() <= 3
    assert (found[height // 2, :, 0] > 115).sum() == pytest.approx(width // 2, abs=1)


@pytest.mark.parametrize("pad", [False, True])
def test_colours_from_above_come_back_above(pad: bool) -> None:
    painted = Image.new("RGB", (500, 334), (30, 90, 60))
    painted.paste((200, 40, 40), (0, 0, 500, 167))
    answer = np.asarray(fit(painted, (64, 64), pad))
    blank = np.full((64, 64), 255, np.uint8)
    found = np.asarray(resize_to_sketch(answer, blank, Image.new("L", painted.size, 255), pad))
    apart = np.abs(found.astype(int) - np.asarray(painted)).max(axis=2)
    apart[147:187] = 0  # where they meet
    assert apart.max() <= 3


def test_beside_lines_nothing_glows() -> None:
    """A model that has painted lines over must not get bright edges where they were."""
    sketch = checkered(512, 512)
    seen = fit_sketch(sketch, (64, 64), pad=False)
    answer = np.full((64, 64, 3), 90, np.uint8)
    found = np.asarray(resize_to_sketch(answer, seen, sketch, pad=False))
    assert found.max() <= 90


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_at_the_models_own_size_nothing_changes(seed: int, pad: bool) -> None:
    random = np.random.default_rng(seed)
    sketch = random.integers(0, 256, (32, 32), dtype=np.uint8)
    answer = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    seen = fit_sketch(Image.fromarray(sketch), (32, 32), pad)
    assert (seen == sketch).all()
    found = resize_to_sketch(answer, seen, Image.fromarray(sketch), pad)
    assert (np.asarray(found) == answer).all()


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("num_rows", [0.5, 7])
def test_strips_leave_no_seams(monkeypatch: pytest.MonkeyPatch, num_rows: float, pad: bool) -> None:
    """Not even where a single row is more than a strip ought to have."""
    sketch = Image.fromarray(dodge(DOLLS[2], 3.5)).crop((0, 0, 150, 100))
    seen = fit_sketch(sketch, (64, 64), pad)
    answer = draw_picture(5, 64, 64)
    whole = np.asarray(resize_to_sketch(answer, seen, sketch, pad), np.int16)
    monkeypatch.setattr("model.use.enlarge._STRIP", int(sketch.width * num_rows))
    in_strips = np.asarray(resize_to_sketch(answer, seen, sketch, pad), np.int16)
    assert np.abs(whole - in_strips).max() <= 1  # Pillow's own rounding of a box


@pytest.mark.parametrize("most", [2**20, 2**16])
def test_colours_end_at_lines(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Red and white with a line between: a pixel of the model is eight wide, and none is pink.

    Nor does white run through a small gap in the line.
    """
    monkeypatch.setattr("model.use.enlarge._MAX_FILLED", most)
    lines = np.full((512, 512), 255, np.uint8)
    lines[:, 254:258] = 0
    lines[256:262, 254:258] = 255
    sketch = Image.fromarray(lines)
    fields = np.full((512, 512, 3), 255, np.uint8)
    fields[:, :256, 1:] = 40
    seen = fit_sketch(sketch, (64, 64), pad=False)
    small = np.asarray(fit(Image.fromarray(fields), (64, 64), pad=False))
    answer = np.rint(small * (seen[..., None] / 255)).astype(np.uint8)
    found = np.asarray(resize_to_sketch(answer, seen, sketch, pad=False), np.int16)
    apart = np.abs(found - fields).max(axis=2)
    apart[lines == 0] = 0
    apart[232:286, 232:280] = 0  # around the gap
    if most > lines.size:
        assert apart.max() < 50
    apart[:, 252:260] = 0
    assert apart.max() <= 8
    assert found[256:262, :240, 1].max() < 60
    assert found[256:262, 272:, 1].min() > 235


def test_a_doll_comes_back_nearer_than_by_enlarging() -> None:
    """Of the 64 pixels that a perfect model would paint, though not all colours end at lines."""
    for doll in DOLLS[:3]:
        sketch = Image.fromarray(dodge(doll, 3.5))
        seen = fit_sketch(sketch, (64, 64), pad=False)
        small = fit(Image.fromarray(doll), (64, 64), pad=False)
        found = resize_to_sketch(np.asarray(small), seen, sketch, pad=False)
        errors = [
            np.square(np.asarray(picture, np.float64) - doll).mean()
            for picture in (found, small.resize(sketch.size, Image.Resampling.BICUBIC))
        ]
        assert errors[0] < errors[1] / 3
