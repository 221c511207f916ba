"""Whatever a file says of its colours: transparency, grey, turned pictures, profiles."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.pictures.image import _is_plain_jpeg, decode
from tests.pictures import draw_picture, encoded, grey_png, swapped_profile


def test_alpha_is_laid_over_white() -> None:
    rgba = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    rgba.paste((0, 0, 255, 128), (0, 0, 4, 8))
    decoded = decode(encoded(rgba, "png"))
    assert decoded[0, 7].tolist() == [255, 255, 255]
    assert np.abs(decoded[0, 0].astype(int) - [127, 127, 255]).max() <= 1


def test_the_transparent_colour_of_a_picture_of_eight_bits_is_white() -> None:
    red_and_black = np.array([[(200, 10, 20), (0, 0, 0)]], np.uint8)
    found = decode(encoded(red_and_black, "png", transparency=(200, 10, 20)))
    assert found.tolist() == [[[255] * 3, [0] * 3]]


def test_palette_with_transparency_and_sixteen_bit_grey() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 255, 0, 255, 0, 0])
    assert decode(encoded(palette, "png", transparency=1))[0, 0].tolist() == [255, 255, 255]
    assert decode(encoded(palette, "png"))[0, 0].tolist() == [255, 0, 0]
    levels = np.array([[0, 200 * 257 - 1, 65535]], np.uint16)  # is rounded, and no multiple of 256
    grey = decode(encoded(Image.fromarray(levels), "png"))
    assert grey.tolist() == [[[0] * 3, [200] * 3, [255] * 3]]


@pytest.mark.parametrize("color", [0x1234, (0x1234, 0, 0x1234)])
def test_the_colour_that_is_none_is_white_in_pictures_of_sixteen_bits(
    color: int | tuple[int, ...],
) -> None:
    pixels = np.full((1, 2, *np.shape(color)), 0x8080, np.uint16)
    pixels[:, 0] = color
    data = cv2.imencode(".png", pixels)[1].tobytes()
    key = b"tRNS" + pixels[:, 0].astype(">u2").tobytes()
    chunk = struct.pack(">I", len(key) - 4) + key + struct.pack(">I", zlib.crc32(key))
    decoded = decode(data[:33] + chunk + data[33:])  # right after the header
    assert decoded[0].tolist() == [[255] * 3, [128] * 3]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_the_grey_that_is_none_is_white_whatever_its_bits(depth: int) -> None:
    levels = np.arange(16, dtype=np.uint8).reshape(1, 16) & (2**depth - 1)
    decoded = decode(grey_png(levels, depth, key=1))
    expected = np.where(levels == 1, 255, levels * (255 // (2**depth - 1)))
    assert decoded[..., 0].tolist() == expected.tolist()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_keep_their_brightness(mode: str) -> None:
    image = Image.new("RGB", (32, 32), (200, 200, 200)).convert(mode)
    assert np.abs(decode(encoded(image, "jpeg", quality=95)).astype(int) - 200).max() <= 3


def test_exif_rotation_is_applied() -> None:
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, :20] = (250, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn by 90 degrees clockwise
    decoded = decode(encoded(picture, "jpeg", exif=exif, quality=95))
    assert decoded.shape == (40, 20, 3)
    assert decoded[5, 10, 0] > 200
    assert decoded[35, 10, 0] < 50


def test_a_profile_is_found_wherever_it_stands_before_the_pixels() -> None:
    picture = draw_picture(1, 64, 64)
    buffer = io.BytesIO()
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(picture).save(buffer, "JPEG", icc_profile=wide)
    data, plain = buffer.getvalue(), encoded(picture)
    comment = b"\xff\xfe\x00\x08\xff\xda\x00\x0c\x03\x01"  # looks like a scan, and is none
    assert not _is_plain_jpeg(data)
    assert not _is_plain_jpeg(data[:2] + comment + data[2:])
    assert not _is_plain_jpeg(data[:2] + b"\xff" + data[2:])
    assert _is_plain_jpeg(plain)
    assert _is_plain_jpeg(plain[:2] + comment + plain[2:])
    assert _is_plain_jpeg(plain[:-2] + b"Exif\0\0" + plain[-2:])


def test_a_segment_behind_much_else_is_found_and_pixels_are_not_searched() -> None:
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, :20] = (250, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(picture, "jpeg", exif=exif, quality=95)
    comment = b"\xff\xfe\xff\xff" + b"x" * 65533
    assert decode(turned[:2] + comment * 3 + turned[2:]).shape == (40, 20, 3)
    plain = encoded(picture)
    assert _is_plain_jpeg(plain[:2] + comment * 3 + plain[2:])


@pytest.mark.parametrize("alpha", [None, 0])
def test_the_profile_of_a_palette_is_brought_to_srgb(alpha: int | None) -> None:
    swapped = ImageCms.ImageCmsProfile(io.BytesIO(swapped_profile()))
    picture = Image.new("RGB", (8, 8), (200, 40, 10))
    expected = decode(encoded(picture, "png", icc_profile=swapped.tobytes()))
    assert np.abs(expected[0, 0].astype(int) - [200, 40, 10]).max() > 50
    palette = picture.quantize(4)
    options = {} if alpha is None else {"transparency": 3}
    decoded = decode(encoded(palette, "png", icc_profile=swapped.tobytes(), **options))
    assert np.abs(decoded.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["LA", "L", "16 bits"])
def test_the_profile_of_grey_with_transparency_or_of_sixteen_bits_counts(kind: str) -> None:
    grey = np.array([[40, 128, 220]] * 3, np.uint8)
    expected = decode(encoded(Image.fromarray(grey), "png", icc_profile=linear_grey()))
    assert expected[0, 1].tolist() == [188] * 3
    image = Image.fromarray(grey if kind == "L" else grey.astype(np.uint16) * 257)
    if kind == "LA":
        image = Image.fromarray(grey).convert("LA")
    options = {"transparency": 7} if kind == "L" else {}
    data = encoded(image, "png", icc_profile=linear_grey(), **options)
    assert np.array_equal(decode(data), expected)


def linear_grey() -> bytes:
    """Return the profile of a grey whose values are amounts of light."""
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"grey\0" + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061),
        b"kTRC": b"curv" + bytes(8),
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    kind = struct.pack(">I", 0x02100000) + b"mntrGRAYXYZ " + bytes(12) + b"acsp"
    header = struct.pack(">II", 128 + len(table) + len(body), 0) + kind
    return header.ljust(128, b"\0") + table + body


def test_linear_light_in_the_primaries_of_srgb_is_not_taken_for_srgb() -> None:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    curve = profile.index(b"para") + 8
    colors = draw_picture(2)
    assert np.array_equal(decode(encoded(colors, "png", icc_profile=bytes(profile))), colors)
    picture = Image.new("RGB", (8, 8), (40, 128, 220))
    profile[curve : curve + 8] = struct.pack(">HHi", 0, 0, 65536)  # a plain gamma of 1
    linear = decode(encoded(picture, "png", icc_profile=bytes(profile)))[0, 0]
    assert np.abs(linear.astype(int) - [110, 188, 239]).max() <= 1


def test_a_foreign_colour_profile_is_brought_to_srgb_and_a_broken_one_ignored() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB", 6500)).tobytes()
    picture = draw_picture(2)
    for profile in (b"no profile", lab):
        decoded = decode(encoded(picture, "jpeg", icc_profile=profile, quality=95))
        assert np.abs(decoded.astype(int) - picture).mean() < 6
