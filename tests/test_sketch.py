import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.recipe import SketchSettings
from pipeline.sketch import dodge, draw_sketch, sketch_names
from tests.pictures import draw_picture


def test_lines_are_dark_and_flat_areas_are_paper() -> None:
    picture = np.full((64, 64, 3), (90, 140, 200), np.uint8)
    cv2.line(picture, (0, 32), (63, 32), (10, 10, 10), 1)
    sketch = dodge(picture, 3.5)
    assert sketch.shape == (64, 64)
    assert sketch.dtype == np.uint8
    assert sketch[32].max() < 60
    assert sketch[:16].min() == 255


@given(st.integers(0, 255), st.floats(0.5, 8))
def test_a_flat_picture_has_no_lines_whatever_its_colour(level: int, sigma: float) -> None:
    flat = np.full((16, 16, 3), level, np.uint8)
    assert dodge(flat, sigma).min() >= (255 if level else 0)


def test_it_is_the_dodge_formula() -> None:
    picture = draw_picture(1, 64, 64)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(255 - grey, (0, 0), 3.5).astype(float)
    expected = np.minimum(255, grey * 255.0 / np.maximum(255 - blurred, 1e-9))
    assert np.abs(dodge(picture, 3.5) - expected)[blurred < 254].max() <= 1


def test_methods_are_known_by_name() -> None:
    picture = draw_picture(2, 64, 64)
    for name in sketch_names():
        sketch = draw_sketch(picture, SketchSettings(method=name))
        assert sketch.shape == (64, 64)
        assert 0.3 < (sketch > 200).mean() < 1
