import base64
import io

import numpy as np
import pytest
from PIL import Image

from pipeline.report import pictures as report_pictures
from pipeline.report.pictures import MAX_BYTES, SIDE, build_wall, decode_preview, encode_image
from tests.pictures import draw_picture, encoded
from tests.works import draw_original


@pytest.mark.parametrize("num_levels", [2, 256])
def test_a_picture_that_resists_compression_stays_under_the_cap(num_levels: int) -> None:
    noise = np.random.default_rng(0).integers(0, num_levels, (SIDE, SIDE, 3)) * 255
    image = encode_image((noise // (num_levels - 1)).astype(np.uint8))
    assert len(base64.b64decode(image.uri.partition(",")[2])) <= MAX_BYTES


def test_pictures_are_made_smaller_and_never_larger() -> None:
    for height, width, expected in (
        (600, 300, (256, 128)),
        (50, 80, (50, 80)),
        (3, 3000, (1, 256)),
    ):
        picture = decode_preview(encoded(draw_picture(1, max(height, 60), width)[:height], "png"))
        assert picture is not None
        assert picture.shape[:2] == expected


def test_a_huge_picture_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: bytes, min_side: int) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(report_pictures, "decode_reduced", refuse)
    assert decode_preview(encoded(Image.new("1", (8000, 6000)), "png")) is None
    with pytest.raises(AssertionError, match="it was decoded"):
        decode_preview(draw_original(1))


@pytest.mark.parametrize("num_colors", [0, 1, 5, 64, 200, 5000])
def test_a_wall_holds_whole_columns_of_given_colours(num_colors: int) -> None:
    colors = np.random.default_rng(1).integers(0, 256, (num_colors, 3), np.uint8)
    wall = build_wall(colors)
    if num_colors == 0:
        assert wall is None
        return
    assert wall is not None
    assert (wall.width, wall.height) == (min(num_colors, 64), min(max(num_colors // 64, 1), 12))
    with Image.open(io.BytesIO(base64.b64decode(wall.uri.partition(",")[2]))) as image:
        pixels = np.asarray(image).reshape(-1, 3)
    assert sorted(pixels.tolist()) == sorted(colors[: len(pixels)].tolist())
