import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.data.decode import decode_color, decode_sketch
from pipeline.pictures.image import encode_jpeg, encode_png
from pipeline.pictures.sketch import dodge
from tests.pictures import draw_picture, encoded, with_scans

PICTURE = draw_picture(3, 48, 64)
GREY = dodge(PICTURE, 3.0)


def decoded(data: bytes, height: int = 64, width: int = 48) -> NDArray[np.uint8]:
    out = np.full((height, width), 7, np.uint8)
    decode_sketch(data, out)
    return out


def test_a_sketch_comes_back_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_png(GREY)
    height, width = GREY.shape
    assert (decoded(encoded(GREY, "png"), height, width) == GREY).all()
    monkeypatch.delattr("PIL.Image.open")  # its own PNGs need no more than inflate
    assert (decoded(data, height, width) == GREY).all()


@pytest.mark.parametrize(
    "data",
    [
        encoded(GREY, "png"),
        encoded(GREY, "png", compress_level=0),
        encoded(np.repeat(GREY[:, :, None], 3, axis=2), "png"),
        encode_png(GREY) + b"more",
    ],
    ids=["filtered", "stored", "colour", "something after the end"],
)
def test_pngs_of_other_programs_are_taken_as_well(data: bytes) -> None:
    assert (decoded(data, *GREY.shape) == GREY).all()


@settings(max_examples=200)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_an_error_or_changes_nothing(where: float, bit: int) -> None:
    """From the pixels on: what the header says of sizes and colours is believed."""
    data = bytearray(encode_png(GREY))
    data[41 + int(where * (len(data) - 41))] ^= 1 << bit
    try:
        found = decoded(bytes(data), *GREY.shape)
    except ValueError:
        return
    assert (found == GREY).all()


@given(where=st.floats(0, 1, exclude_max=True))
def test_a_torn_picture_is_an_error_unless_its_pixels_are_whole(where: float) -> None:
    data = encode_png(GREY)
    for whole in (data, encoded(GREY, "png")):
        try:
            found = decoded(whole[: int(where * len(whole))], *GREY.shape)
        except ValueError:
            continue
        assert (found == GREY).all()


def test_a_stream_that_grows_without_end_is_cut_off() -> None:
    header = encode_png(GREY)[:33]
    stream = zlib.compress(bytes(10**8), 9)
    chunk = b"IDAT" + stream
    bomb = header + len(stream).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    bomb += b"\0\0\0\0IEND\xaeB`\x82"
    out = np.zeros(GREY.shape, np.uint8)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="does not decode"):
            decode_sketch(bomb, out)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 10**6


def test_another_size_is_an_error() -> None:
    for data in (encode_png(GREY), encoded(GREY, "png")):
        with pytest.raises(ValueError, match=r"is \(.*\), not \(32, 48\)"):
            decoded(data, 32)
    with pytest.raises(ValueError, match="does not decode"):
        decoded(encode_png(GREY)[:-30], *GREY.shape)
    for data in (b"", b"GIF89a", encode_jpeg(PICTURE, 90)):
        with pytest.raises(ValueError, match="is not a PNG"):
            decoded(data)
    jpeg = encode_jpeg(PICTURE, 90)
    out = np.zeros((PICTURE.shape[0], PICTURE.shape[1], 3), np.uint8)
    decode_color(jpeg, out)
    assert np.abs(out.astype(int) - PICTURE).mean() < 4
    with pytest.raises(ValueError, match="not"):
        decode_color(jpeg, np.zeros((80, 80, 3), np.uint8))
    with pytest.raises(ValueError):  # noqa: PT011  the decoder's own words
        decode_color(b"\xff\xd8\xff", out)


def test_a_colour_picture_of_scans_without_an_end_is_an_error() -> None:
    bomb = with_scans(encoded(PICTURE, "jpeg", progressive=True), 500)
    with pytest.raises(ValueError, match="more scans than any encoder writes"):
        decode_color(bomb, np.empty_like(PICTURE))
