import io
import resource

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.pictures.image import (
    Header,
    UndecodableError,
    decode,
    decode_reduced,
    encode_jpeg,
    encode_png,
    is_blank,
    perceptual_hash,
    read_header,
    resize,
    sniff_format,
)
from tests.pictures import (
    draw_picture,
    encoded,
    overlapping_tags,
    with_chunks,
    with_comments,
    with_scans,
)

FORMATS = ["jpeg", "png", "webp", "avif", "gif"]


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_is_told_by_its_magic_and_decodes(format_name: str) -> None:
    picture = draw_picture(1, 90, 70)
    data = encoded(picture, format_name)
    assert sniff_format(data) == format_name
    header = read_header(data)
    assert header is not None
    assert (header.width, header.height) == (70, 90)
    decoded = decode(data)
    assert decoded.dtype == np.uint8
    assert decoded.shape == picture.shape
    assert np.abs(decoded.astype(int) - picture).mean() < 6


@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>", b"\xff\xd8", b"RIFF1234WAVE", b"BM" * 40]
)
def test_what_is_no_picture_is_told_without_decoding(data: bytes) -> None:
    assert read_header(data) is None
    with pytest.raises(UndecodableError):
        decode(data)


def test_no_decoder_but_that_of_the_magic_sees_the_bytes() -> None:
    """Pillow alone would take these for PostScript, and hand them to another program."""
    data = b"%!PSftypavif\n%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    assert sniff_format(data) == "avif"
    assert read_header(data) is None


def test_a_large_gif_that_begins_early_is_a_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    assert len(data := encoded(noise, "gif")) > 2**18
    assert read_header(data) == Header("gif", 600, 600)


@pytest.mark.parametrize("format_name", ["jpeg", "png", "webp"])
def test_a_truncated_picture_is_undecodable(format_name: str) -> None:
    data = encoded(draw_picture(3), format_name)
    with pytest.raises(UndecodableError):
        decode(data[: len(data) // 2])
    if format_name == "jpeg":
        for decoder in (decode, lambda half: decode_reduced(half, 128)):
            with pytest.raises(UndecodableError) as caught:
                decoder(data[: len(data) // 2])
            assert caught.value.reason == "truncated"


def test_a_jpeg_of_a_rare_sampling_of_colours_is_a_picture() -> None:
    grey = Image.new("RGB", (32, 16), (128, 128, 128))
    data = bytearray(encoded(grey, "jpeg", subsampling=0, optimize=True))  # all coefficients are 0
    data[data.index(b"\xff\xc0") + 11] = (
        0x42  # 4:1:0: so many blocks of brightness to one of colour
    )
    assert read_header(bytes(data)) == Header("jpeg", 32, 16)
    for picture in (decode(bytes(data)), decode_reduced(bytes(data), 8)):
        assert picture.shape == (16, 32, 3)
        assert (picture == 128).all()


@pytest.mark.parametrize("profile", [None, b"no profile"])
def test_a_jpeg_that_ends_early_and_properly_is_truncated(profile: bytes | None) -> None:
    data = encoded(draw_picture(3), "jpeg", icc_profile=profile)
    for decoder in (decode, lambda half: decode_reduced(half, 16)):
        with pytest.raises(UndecodableError) as caught:
            decoder(data[: len(data) // 2] + data[-2:])
        assert caught.value.reason == "truncated"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_an_ignored_profile_changes_no_pixel_of_a_jpeg(mode: str, options: dict[str, int]) -> None:
    picture = Image.fromarray(draw_picture(4)).convert(mode)
    plain = encoded(picture, "jpeg", **options)
    with Image.open(io.BytesIO(plain)) as image:
        expected = np.asarray(image.convert("RGB"))
    for data in (plain, encoded(picture, "jpeg", icc_profile=b"no profile", **options)):
        assert np.array_equal(decode(data), expected)


@pytest.mark.slow
def test_a_header_that_promises_too_much_is_read_without_decoding() -> None:
    bomb = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "png")
    header = read_header(bomb.getvalue())
    assert header is not None
    assert header.width * header.height == 900_000_000


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_of_scans_without_an_end_is_no_picture(mode: str) -> None:
    data = encoded(Image.new(mode, (64, 64)), "jpeg", progressive=True)
    assert read_header(with_scans(data, 50)) == Header("jpeg", 64, 64)
    assert read_header(with_scans(data, 500)) is None
    for decoder in (decode, lambda bomb: decode_reduced(bomb, 16)):
        with pytest.raises(UndecodableError):
            decoder(with_scans(data, 500))


def test_pictures_of_comments_without_an_end_are_none() -> None:
    jpeg, gif = (encoded(draw_picture(1), name) for name in ("jpeg", "gif"))
    for num, header in ((1000, Header("jpeg", 120, 120)), (10_001, None)):
        assert read_header(jpeg[:2] + num * b"\xff\xfe\0\2" + jpeg[2:]) == header
    for num, header in ((1000, Header("gif", 120, 120)), (10_000, None)):
        assert read_header(with_comments(gif, num)) == header


@pytest.mark.parametrize("place", [b"IDAT", b"IEND"])
def test_a_png_of_chunks_without_an_end_is_no_picture(place: bytes) -> None:
    png = encoded(draw_picture(1), "png")
    assert read_header(with_chunks(png, 1000, place)) == Header("png", 120, 120)
    assert read_header(with_chunks(png, 100_000, place)) is None
    assert read_header(png + bytes(2_000_000)) == Header("png", 120, 120)


@pytest.mark.parametrize("name", ["png", "webp"])
def test_tags_that_lie_over_one_another_are_not_read(name: str) -> None:
    decode(encoded(draw_picture(1), name, exif=overlapping_tags(2)))
    with pytest.raises(UndecodableError, match="tags lie over one another"):
        decode(encoded(draw_picture(1), name, exif=overlapping_tags(100)))


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_what_stands_behind_the_end_of_a_jpeg_is_no_scan_of_it(options: dict[str, bool]) -> None:
    data = encoded(draw_picture(4), "jpeg", **options)
    assert np.array_equal(decode(data + 500 * b"\xff\xda"), decode(data))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(FORMATS), st.integers(0, 400))
def test_damaged_bytes_decode_or_raise_undecodable(noise: bytes, format_name: str, at: int) -> None:
    data = encoded(draw_picture(4, 40, 40), format_name)
    damaged = data[:at] + noise + data[at + len(noise) :]
    read_header(damaged)
    try:
        picture = decode(damaged)
    except UndecodableError as error:
        assert error.reason in ("undecodable", "truncated")
    else:
        assert picture.ndim == 3


def test_reduced_decoding_is_at_least_as_large_as_asked() -> None:
    data = encoded(draw_picture(5, 512, 400))
    picture = decode_reduced(data, 128)
    assert 128 <= min(picture.shape[:2]) < 200


@pytest.mark.parametrize("channel", range(3))
def test_what_varies_in_one_channel_is_not_blank(channel: int) -> None:
    page = np.full((64, 64, 3), 128, np.uint8)
    page[..., channel] += np.arange(64, dtype=np.uint8) % 11  # deviates by 3, all three by 1
    assert not is_blank(page)


def test_blank_is_flat_and_not_merely_sparse() -> None:
    assert is_blank(np.zeros((50, 50, 3), np.uint8))
    assert is_blank(np.full((50, 50, 3), (200, 10, 30), np.uint8))
    page = np.full((256, 256, 3), 255, np.uint8)
    cv2.circle(page, (128, 128), 6, (0, 0, 0), -1)
    assert not is_blank(page)


@pytest.mark.parametrize(("step", "contrast"), [(1, 1), (1, 2), (7, 5), (8, 5), (8, 6), (9, 6)])
def test_blank_is_decided_by_all_rows(step: int, contrast: int) -> None:
    picture = np.full((64, 64, 3), 100, np.uint8)
    picture[::step, ::2] += np.uint8(contrast)
    picture[::step, 1::2] -= np.uint8(contrast)
    assert is_blank(picture) == bool(cv2.meanStdDev(picture)[1].max() < 2)


def test_resize_stretches_or_pads_with_white() -> None:
    picture = np.zeros((20, 40, 3), np.uint8)
    assert resize(picture, 32).max() == 0
    padded = resize(picture, 32, "pad")
    assert padded.shape == (32, 32, 3)
    assert padded[0].min() == 255
    assert padded[16].max() == 0


def test_an_axis_that_shrinks_is_averaged_while_the_other_one_grows() -> None:
    stripes = np.random.default_rng(0).integers(0, 256, (640, 3)).astype(np.uint8)
    expected = stripes.reshape(32, 20, 3).mean(axis=1)
    wide = np.repeat(stripes[None], 20, axis=0)
    assert np.abs(resize(wide, 32) - expected[None]).max() <= 1
    assert np.abs(resize(wide.transpose(1, 0, 2).copy(), 32) - expected[:, None]).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(330_000, 300), (800, 60_000)])
def test_padding_a_long_picture_takes_little_memory(height: int, width: int) -> None:
    picture = np.broadcast_to(np.uint8(0), (height, width, 3))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    padded = resize(picture.copy(), 256, "pad")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most
    assert grown < 1.5 * 2**20  # KiB; as a full square the first takes 326 GB
    dark = np.argwhere(padded[..., 0] < 255)
    extent = dark.max(axis=0) - dark.min(axis=0) + 1
    longest = max(height, width)
    assert extent.tolist() == [max(1, round(256 * side / longest)) for side in (height, width)]


def test_a_padded_picture_of_usual_size_is_the_average_of_the_full_square() -> None:
    picture = draw_picture(11, 300, 470)
    square = cv2.copyMakeBorder(picture, 85, 85, 0, 0, cv2.BORDER_CONSTANT, value=(255,) * 3)
    expected = cv2.resize(square, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.array_equal(resize(picture, 64, "pad"), expected)


def test_encoders_round_trip() -> None:
    picture = draw_picture(10, 64, 64)
    assert np.abs(decode(encode_jpeg(picture, 95)).astype(int) - picture).mean() < 3
    grey = picture[..., 0].copy()
    assert np.array_equal(decode(encode_png(grey))[..., 0], grey)


def test_perceptual_hash_is_of_the_lowest_frequencies_of_32_by_32() -> None:
    """By the cosines of DCT-II."""
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    frequency, place = np.mgrid[:8, :32]
    waves = np.cos(np.pi * frequency * (2 * place + 1) / 64)
    waves[0] /= np.sqrt(2)
    low = (waves @ cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) @ waves.T).ravel()
    bits = "".join(str(int(bit)) for bit in low > np.median(low[1:]))
    assert f"{perceptual_hash(picture):064b}" == bits


def test_perceptual_hash_survives_reencoding_and_tells_pictures_apart() -> None:
    pictures = [draw_picture(seed, 300, 300) for seed in range(30)]
    hashes = [perceptual_hash(picture) for picture in pictures]
    assert {(own % 2**63).bit_count() for own in hashes} == {31}  # over the median of 63
    for picture, own in zip(pictures, hashes, strict=True):
        small = resize(picture, 150)
        again = perceptual_hash(decode(encoded(small, quality=60)))
        assert (own ^ again).bit_count() <= 4
    distances = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[i + 1 :]]
    assert min(distances) > 6
