"""Small synthetic pictures for tests: deterministic, all different, with edges and colour."""

import io
import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pipeline.pictures.image import Picture
from pipeline.pictures.letterbox import predict_box


def draw_picture(seed: int, height: int = 120, width: int = 120) -> Picture:
    """Return coloured shapes on white paper, uint8 RGB, another for every seed."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 255, np.uint8)
    for _ in range(8):
        center = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        color = tuple(int(c) for c in rng.integers(30, 226, 3))
        radius = int(rng.integers(min(height, width) // 12, min(height, width) // 4))
        cv2.circle(picture, center, radius, color, -1, cv2.LINE_AA)
        cv2.circle(picture, center, radius, (20, 20, 20), 2, cv2.LINE_AA)
    return picture


def letterboxed(picture: Picture, side: int = 512) -> Picture:
    """Return a picture scaled and centred on black, as Danbooru2021's 512px layout has it."""
    height, width = picture.shape[:2]
    box = predict_box(side, width, height)
    canvas = np.zeros((side, side, 3), np.uint8)
    scaled = cv2.resize(picture, (box.width, box.height), interpolation=cv2.INTER_AREA)
    canvas[box.top : box.bottom, box.left : box.right] = scaled
    return canvas


def encoded(picture: Picture | Image.Image, format_name: str = "jpeg", **options: object) -> bytes:
    """Return a picture's bytes in a format, with Pillow's options."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def grey_png(levels: NDArray[np.uint8], depth: int, key: int) -> bytes:
    """Return a grey PNG (H x W levels) of 1, 2, 4 or 8 bits a pixel, in which one level is none."""
    height, width = levels.shape
    bits = np.unpackbits(levels[..., None], axis=2)[..., -depth:].reshape(height, -1)
    rows = np.pad(np.packbits(bits, axis=1), ((0, 0), (1, 0)))  # each begins with its filter
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0),
        b"tRNS": struct.pack(">H", key),
        b"IDAT": zlib.compress(rows.tobytes()),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


def with_scans(jpeg: bytes, num_scans: int) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again."""
    end = jpeg.rindex(b"\xff\xd9")
    last = jpeg[jpeg.rindex(b"\xff\xda") : end]
    return jpeg[:end] + num_scans * last + jpeg[end:]


def with_chunks(png: bytes, num_chunks: int, place: bytes = b"IDAT") -> bytes:
    """Return a PNG with so many empty chunks of an unknown kind in front of one that it has."""
    at = png.index(place) - 4
    chunk = bytes(4) + b"abCd" + struct.pack(">I", zlib.crc32(b"abCd"))
    return png[:at] + num_chunks * chunk + png[at:]


def swapped_profile() -> bytes:
    """Return sRGB's profile with red and blue changed for each other."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"_XYZ").replace(b"bXYZ", b"rXYZ").replace(b"_XYZ", b"bXYZ")
    return profile.replace("sRGB".encode("utf-16-be"), "BGRs".encode("utf-16-be"))


def with_comments(gif: bytes, num_comments: int) -> bytes:
    """Return a GIF with a comment of so many parts, behind what hides it from a hasty look."""
    start = 13 + (3 << (gif[10] % 8 + 1) if gif[10] & 0x80 else 0)
    comment = b"!\xfe" + (b"\xff" + 255 * b"a") * num_comments + b"\0"
    return gif[:start] + b"!\x01\0\x01,\0" + comment + gif[start:]


def overlapping_tags(num_tags: int) -> bytes:
    """Return EXIF, which is a TIFF without a picture, whose tags share 64 kB as their values."""
    orientation = struct.pack(">HHII", 0x0112, 3, 1, 6 << 16)
    others = (struct.pack(">HHII", 0x9000 + n, 7, 2**16, 8) for n in range(num_tags))
    return (
        b"MM\0*\0\0\0\x08"
        + struct.pack(">H", num_tags + 1)
        + orientation
        + b"".join(others)
        + bytes(2**16)
    )
