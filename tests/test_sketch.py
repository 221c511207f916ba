from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dolls.data_set import make_dolls, picture_of
from pipeline.errors import UserError
from pipeline.pictures.image import Picture, resize
from pipeline.pictures.sketch import (
    METHODS,
    dodge,
    draw_sketch,
    line_drawer,
    pin_sketches,
    xdog,
)
from pipeline.recipe import PrepareSettings, SketchSettings, XdogSettings
from tests.pictures import draw_picture

LINE = XdogSettings()


def lined(level: int = 140) -> Picture:
    picture = np.full((64, 64, 3), (level, level, level), np.uint8)
    cv2.line(picture, (0, 32), (63, 32), (level // 10, level // 10, level // 10), 1)
    return picture


def test_lines_are_dark_and_flat_areas_are_paper() -> None:
    picture = np.full((64, 64, 3), (90, 140, 200), np.uint8)
    cv2.line(picture, (0, 32), (63, 32), (10, 10, 10), 1)
    for sketch in (dodge(picture, 3.5), dodge(picture, 0, 21), xdog(picture, LINE)):
        assert sketch.shape == (64, 64)
        assert sketch.dtype == np.uint8
        assert sketch[32].max() < 60
        assert sketch[:16].min() == 255


@given(st.integers(0, 255), st.floats(0.5, 8))
def test_a_flat_picture_has_no_lines_whatever_its_colour(level: int, sigma: float) -> None:
    flat = np.full((16, 16, 3), level, np.uint8)
    assert dodge(flat, sigma).min() >= (255 if level else 0)
    assert xdog(flat, XdogSettings(sigma=sigma)).min() == 255


def test_it_is_the_dodge_formula() -> None:
    picture = draw_picture(1, 64, 64)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(255 - grey, (0, 0), 3.5).astype(float)
    expected = np.minimum(255, grey * 255.0 / np.maximum(255 - blurred, 1e-9))
    assert np.abs(dodge(picture, 3.5) - expected)[blurred < 254].max() <= 1


@given(
    st.integers(0, 2**32),
    st.sampled_from([(3.5, 0), (0.3, 0), (9, 0), (60, 0), (0, 1), (0, 5), (0, 21), (4, 33)]),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_the_blur_is_that_of_opencv_to_the_bit(
    seed: int, blur: tuple[float, int], shape: tuple[int, int]
) -> None:
    sigma, kernel = blur
    picture = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    picture[shape[0] // 2 :] //= 3
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    surroundings = 255 - cv2.GaussianBlur(255 - grey, (kernel, kernel), sigma)
    assert np.array_equal(dodge(picture, sigma, kernel), cv2.divide(grey, surroundings, scale=255))


def test_a_kernel_of_21_pixels_has_the_sigma_of_the_default() -> None:
    picture = draw_picture(1, 64, 64)
    assert np.array_equal(dodge(picture, 0, 21), dodge(picture, 3.5, 21))
    assert np.abs(dodge(picture, 3.5).astype(int) - dodge(picture, 0, 21)).max() < 16
    assert not np.array_equal(dodge(picture, 0, 21), dodge(picture, 0, 5))


def gaussian(grey: np.ndarray, sigma: float) -> np.ndarray:
    reach = np.arange(-20, 21)
    weights = np.exp(-(reach**2) / (2 * sigma**2))
    weights /= weights.sum()
    padded = np.pad(grey, 20, mode="reflect")
    rows = np.apply_along_axis(np.convolve, 1, padded, weights, "valid")
    return np.apply_along_axis(np.convolve, 0, rows, weights, "valid")


@pytest.mark.parametrize(
    "settings",
    [LINE, XdogSettings(sigma=1.6, threshold=0.3, steepness=8), XdogSettings(sharpness=2)],
)
def test_it_is_the_formula_of_the_xdog_paper(settings: XdogSettings) -> None:
    picture = draw_picture(3, 64, 64)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) / 255
    p, threshold = settings.sharpness, settings.threshold
    narrow, wide = (gaussian(grey, s) for s in (settings.sigma, settings.k * settings.sigma))
    sharpened = (1 + p) * narrow - p * wide
    ink = 1 + np.tanh(settings.steepness * (sharpened - threshold))
    expected = np.where(sharpened >= threshold, 1.0, ink) * 255
    assert np.abs(xdog(picture, settings) - expected).max() < 6
    assert 0.5 < (expected > 200).mean() < 0.98


def test_a_threshold_fills_dark_areas_with_ink() -> None:
    black = np.full((16, 16, 3), 20, np.uint8)
    assert xdog(black, LINE).min() == 255
    assert xdog(black, replace(LINE, threshold=0.5, steepness=10)).max() < 10


def test_a_wider_sigma_draws_broader_lines() -> None:
    doll = resize(picture_of(make_dolls(1, 1)[0]), 256, "stretch")
    ink = [(xdog(doll, replace(LINE, sigma=sigma)) < 128).mean() for sigma in (0.5, 0.8, 1.6)]
    assert ink == sorted(ink)
    assert 0.01 < ink[0] < 0.8 * ink[2] < 0.25


def test_lines_do_not_depend_on_how_bright_the_picture_is() -> None:
    bright, dark = xdog(lined(240), LINE), xdog(lined(60), LINE)
    assert bright[32].max() < 30
    assert dark[32].max() < 120
    assert bright[:20].min() == dark[:20].min() == 255


def test_methods_are_known_by_name() -> None:
    assert list(METHODS) == ["dodge", "onnx", "xdog"]
    picture = draw_picture(2, 64, 64)
    for name in ("dodge", "xdog"):
        sketch = draw_sketch(picture, SketchSettings(method=name))
        assert sketch.shape == (64, 64)
        assert 0.3 < (sketch > 200).mean() < 1


def test_settings_without_networks_are_pinned_as_they_are() -> None:
    settings = PrepareSettings(sketches={"ink": SketchSettings("xdog")})
    assert pin_sketches(settings) == settings


def test_an_unknown_method_is_named_with_those_there_are(tmp_path: Path) -> None:
    for method, hint in (("charcoal", ""), ("dog", r" \(did you mean 'xdog'\?\)")):
        settings = PrepareSettings(sketches={"ink": SketchSettings(method)})
        expected = rf"sketch_ink.*'{method}'{hint}; known: dodge, onnx, xdog"
        with pytest.raises(UserError, match=expected):
            pin_sketches(settings)


def test_lines_of_a_larger_picture_are_drawn_wider_in_proportion() -> None:
    picture = draw_picture(3, 256, 192)
    table = {"size": 128, "sketch": {"method": "dodge", "sigma": 1.5}}
    assert (line_drawer("dodge", table)(picture) == dodge(picture, 3.0)).all()
    ink = {"sketches": {"ink": {"method": "xdog", "xdog": {"sigma": 0.5, "steepness": 9.0}}}}
    drawn = line_drawer("xdog", table | ink)(picture)
    assert (drawn == xdog(picture, XdogSettings(sigma=1.0, steepness=9.0))).all()
    windowed = {"size": 128, "sketch": {"sigma": 0, "kernel": 11}}
    assert (line_drawer("dodge", windowed)(picture) == dodge(picture, 0, 23)).all()
    assert (line_drawer("dodge", {})(picture) == dodge(picture, 3.5)).all()


def test_lines_of_a_huge_picture_stay_within_the_settings() -> None:
    strip = np.full((16, 40_000, 3), 200, np.uint8)
    strip[:, 20_000:] = 30
    table = {"size": 16, "sketch": {"sigma": 3.5, "kernel": 5}}
    for method in ("dodge", "xdog"):
        assert line_drawer(method, table)(strip).shape == (16, 40_000)


def test_lines_are_drawn_by_known_methods_that_need_no_file() -> None:
    for method in ("onnx", "crayon"):
        with pytest.raises(UserError, match=f"lines cannot be drawn by '{method}'; known: dodge"):
            line_drawer(method, {})
    with pytest.raises(UserError, match=r"'dodg' \(did you mean 'dodge'\?\)"):
        line_drawer("dodg", {})
    with pytest.raises(UserError, match=r"\[prepare\]: unknown key 'sise'"):
        line_drawer("dodge", {"sise": 3})
