import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pictures.image import decode
from pipeline.pictures.letterbox import Box, Letterbox, crop, find_letterbox, predict_box
from tests.pictures import draw_picture, encoded, letterboxed


@settings(max_examples=50, deadline=None)
@given(st.integers(40, 900), st.integers(40, 900), st.integers(0, 10**6))
def test_a_letterbox_is_found_where_it_was_put(width: int, height: int, seed: int) -> None:
    picture = draw_picture(seed, height, width)
    boxed = decode(encoded(letterboxed(picture), quality=90))
    box, letterbox = find_letterbox(boxed, width, height)
    assert box == predict_box(512, width, height)
    expected = Letterbox.NONE if box == Box(0, 0, 512, 512) else Letterbox.CONFIRMED
    assert letterbox == expected


@pytest.mark.parametrize(("more", "is_cut"), [(0, True), (2, True), (3, False)])
def test_bars_that_no_record_predicts_are_cut_where_they_are_about_alike(
    more: int, is_cut: bool
) -> None:
    page = np.zeros((512, 512, 3), np.uint8)
    page[100 + more : 412] = 200
    box, letterbox = find_letterbox(page, 0, 0)
    assert letterbox is Letterbox.DISAGREES
    assert (box.top, box.bottom) == ((100 + more, 412) if is_cut else (0, 512))


@pytest.mark.parametrize(("num", "level", "top"), [(6, 21, 50), (5, 21, 100), (6, 20, 100)])
def test_over_a_hundredth_of_a_line_brighter_than_20_is_no_bar(
    num: int, level: int, top: int
) -> None:
    page = np.zeros((500, 500, 3), np.uint8)
    page[100:400] = 200
    page[[50, -51], :num] = level
    box, _ = find_letterbox(page, 0, 0)
    assert (box.top, box.bottom) == (top, 500 - top)
    box, _ = find_letterbox(np.ascontiguousarray(page.swapaxes(0, 1)), 0, 0)
    assert (box.left, box.right) == (top, 500 - top)


def test_dark_art_at_the_edge_survives() -> None:
    dark = draw_picture(6, 300, 300)
    dark[:60] = 0
    dark[-60:] = 0
    box, letterbox = find_letterbox(letterboxed(dark), 300, 300)
    assert (box, letterbox) == (Box(0, 0, 512, 512), Letterbox.NONE)
    wide = draw_picture(7, 200, 400)
    wide[:40] = 0  # touches the bar above it
    box, letterbox = find_letterbox(letterboxed(wide), 400, 200)
    assert (box, letterbox) == (Box(0, 128, 512, 384), Letterbox.CONFIRMED)


def test_where_record_and_pixels_disagree_the_pixels_decide_and_it_is_said() -> None:
    boxed = letterboxed(draw_picture(8, 400, 200))
    box, letterbox = find_letterbox(boxed, 400, 200)  # the record says wide, the picture is tall
    assert letterbox == Letterbox.DISAGREES
    assert (box.left, box.right) == (128, 384)
    off_centre = np.full((512, 512, 3), 255, np.uint8)
    off_centre[:, :100] = 0  # on one side only: not a letterbox
    box, letterbox = find_letterbox(off_centre, 400, 200)
    assert (box, letterbox) == (Box(0, 0, 512, 512), Letterbox.DISAGREES)


@pytest.mark.parametrize("inside", ["dark", "line", "black"])
def test_bars_around_dark_content_confirm_the_prediction(inside: str) -> None:
    picture = np.zeros((800, 1200, 3), np.uint8)
    if inside == "dark":
        picture[:] = np.random.default_rng(0).integers(0, 20, (800, 1200, 1))
    elif inside == "line":
        picture[200:600, 598:602] = 255
    box, letterbox = find_letterbox(letterboxed(picture), 1200, 800)
    assert (box, letterbox) == (predict_box(512, 1200, 800), Letterbox.CONFIRMED)
    for record in ((0, 0), (1200, 0), (0, 800)):  # of no known size
        assert find_letterbox(letterboxed(picture), *record)[1] == Letterbox.DISAGREES


@pytest.mark.parametrize("at", [20, 490])
@pytest.mark.parametrize(("num", "found"), [(5, Letterbox.CONFIRMED), (6, Letterbox.DISAGREES)])
def test_over_a_hundredth_of_a_bright_line_where_a_bar_is_predicted_denies_it(
    at: int, num: int, found: Letterbox
) -> None:
    picture = np.zeros((512, 512, 3), np.uint8)
    picture[at : at + 2, 200 : 200 + num] = 255
    assert find_letterbox(picture, 1200, 800)[1] == found
    turned = np.ascontiguousarray(picture.swapaxes(0, 1))
    assert find_letterbox(turned, 800, 1200)[1] == found


def test_what_is_not_square_has_no_letterbox() -> None:
    page = letterboxed(draw_picture(8, 200, 400))
    assert find_letterbox(page[:, :500], 400, 200) == (Box(0, 0, 500, 512), Letterbox.NONE)


def test_without_a_record_centred_bars_are_measured() -> None:
    box, _ = find_letterbox(letterboxed(draw_picture(9, 400, 200)), 0, 0)
    assert (box.left, box.right, box.height) == (128, 384, 512)


def test_a_crop_is_what_lies_inside_its_box() -> None:
    picture = draw_picture(10, 60, 40)
    assert np.array_equal(crop(picture, Box(1, 2, 11, 22)), picture[2:22, 1:11])
