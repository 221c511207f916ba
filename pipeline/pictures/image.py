"""Pictures: bytes -> decoded -> resized -> encoded, as plain functions on arrays.

A *picture* is uint8 RGB, H x W x 3. Nothing here trusts a file's name: the magic bytes decide,
and the header's pixel count is read before anything is decoded.
"""

import io
import struct
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import cv2
import deflate
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.pictures.bombs import is_bomb
from pipeline.pictures.rgb import flatten_alpha, to_srgb, widen_key

Picture = NDArray[np.uint8]

Image.MAX_IMAGE_PIXELS = None  # our own cap is checked on the header, before any decoding
cv2.setNumThreads(1)  # parallelism is over shards; threads inside a worker only fight each other

_MAX_PADDED_SIDE = 10_000  # a square of as many pixels as source.max_pixels lets in by default


class UndecodableError(Exception):
    """The bytes are no picture that can be decoded; ``reason`` is out of Status.CORRUPT's."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture's first bytes say: format by its magic, and size in pixels."""

    format: str
    width: int
    height: int


def sniff_format(data: bytes) -> str | None:
    """Return ``jpeg``, ``png``, ``webp``, ``avif`` or ``gif`` by the magic bytes, or None.

    One that would keep its decoder busy far beyond its bytes is none.
    """
    if is_bomb(data):
        return None
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "avif"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    return None


def read_header(data: bytes) -> Header | None:
    """Return format and size from the header alone, or None where it is not a picture of ours."""
    format_name = sniff_format(data)
    if format_name is None:
        return None
    if format_name == "jpeg":
        with suppress(ValueError, KeyError):  # also for a chroma subsampling that only Pillow knows
            height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
            return Header(format_name, width, height)
    try:
        with _open(data, format_name) as image:
            return Header(format_name, *image.size)
    except Exception:  # damaged headers make decoders raise whatever comes to hand
        return None


def decode(data: bytes) -> Picture:
    """Decode any supported picture to RGB.

    Alpha is laid over white, EXIF rotation applied, grey, palette, 16-bit, and CMYK converted,
    embedded colour profiles other than sRGB brought to sRGB; of an animation the first frame.

    Returns:
        uint8, H x W x 3, RGB.

    Raises:
        UndecodableError: where the bytes do not decode, or end too early.
    """
    format_name = sniff_format(data)
    if format_name is None:
        raise UndecodableError("undecodable", "no known magic bytes")
    pixels = _decode_jpeg(data) if format_name == "jpeg" else None
    if pixels is not None and _is_plain_jpeg(data):
        return pixels
    return _decode_with_pillow(data, format_name, pixels)


def decode_reduced(data: bytes, min_side: int) -> Picture:
    """Decode a picture at the smallest cheap scale whose sides are at least ``min_side`` pixels.

    Only JPEG decodes cheaper at a smaller scale (1/2, 1/4, 1/8); others come as ``decode`` does.

    Raises:
        UndecodableError: as ``decode``.
    """
    if sniff_format(data) == "jpeg" and _is_plain_jpeg(data):
        reduced = _decode_jpeg(data, min_height=min_side, min_width=min_side, min_factor=1)
        if reduced is not None:
            return reduced
    return decode(data)


def _decode_jpeg(data: bytes, **scale: int) -> Picture | None:
    """Return a JPEG's own pixels as RGB, or None where Pillow has to decide.

    simplejpeg forgives harmless faults and reports the others, except one: where the data end early
    and the end marker follows all the same, it leaves the rest grey.
    """
    try:
        return cast(Picture, simplejpeg.decode_jpeg(data, strict=True, **scale))
    except (ValueError, KeyError) as error:
        if "premature end of data" in str(error):
            raise UndecodableError("truncated", str(error)) from error
    return None


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether simplejpeg alone decodes it right: no CMYK, no rotation, no colour profile."""
    head = _before_scan(data)
    if b"Exif\0\0" in head or b"ICC_PROFILE\0" in head:
        return False
    try:
        return simplejpeg.decode_jpeg_header(data, strict=False)[2] not in ("CMYK", "YCCK")
    except (ValueError, KeyError):
        return False


def _before_scan(data: bytes) -> bytes:
    """Return a JPEG up to the pixels of its first scan; of a broken one up to 64 KiB more.

    Searching the pixels as well would take a tenth of the time that decoding them takes.
    """
    at = 2
    while at + 3 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:  # start of scan
            return data[:at]
        is_filler = marker == 0xFF
        at += 1 if is_filler else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[: at + 65536]


def _open(data: bytes, format_name: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data), formats=[format_name.upper()])
    widen_key(image)
    return image


def _decode_with_pillow(data: bytes, format_name: str, pixels: Picture | None) -> Picture:
    """Decode a picture; of an RGB or grey JPEG take ``pixels``, as Pillow would give them."""
    try:
        with warnings.catch_warnings(), _open(data, format_name) as image:
            warnings.simplefilter("ignore")
            whole: Image.Image = image
            if pixels is not None and image.mode in ("RGB", "L"):
                whole = Image.fromarray(pixels if image.mode == "RGB" else pixels[..., 0])
                whole.info = image.info
            upright = ImageOps.exif_transpose(whole)
            return np.asarray(to_srgb(flatten_alpha(upright)))
    except Exception as error:  # as above: hostile bytes, and any exception means the same
        truncated = "truncated" in str(error) or "end of" in str(error).lower()
        raise UndecodableError("truncated" if truncated else "undecodable", str(error)) from error


def resize(picture: Picture, size: int, fit: str = "stretch") -> Picture:
    """Resize to ``size`` x ``size``: ``stretch`` ignores the proportions, ``pad`` adds white.

    Averages areas where it shrinks, cubic interpolation where it grows, each axis by itself. Takes
    memory for the picture and 300 MB more, whatever its proportions.
    """
    if fit == "pad":
        if max(picture.shape[:2]) > _MAX_PADDED_SIDE:
            picture = _shrink_to_fit(picture, size)
        picture = _pad_to_square(picture)
    height, width = (min(side, size) for side in picture.shape[:2])
    picture = cast(Picture, cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
    return cast(Picture, cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC))


def _shrink_to_fit(picture: Picture, side: int) -> Picture:
    """Shrink a picture whose longer side is over ``side`` to that, with its proportions."""
    scale = side / max(picture.shape[:2])
    height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
    return cast(Picture, cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


def _pad_to_square(picture: Picture) -> Picture:
    side = max(picture.shape[:2])
    top, left = (side - picture.shape[0]) // 2, (side - picture.shape[1]) // 2
    bottom, right = side - picture.shape[0] - top, side - picture.shape[1] - left
    white = (255, 255, 255)
    padded = cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_CONSTANT, value=white)
    return cast(Picture, padded)


def is_blank(picture: Picture) -> bool:
    """Whether a picture is one flat colour: its channels' standard deviations are all under 2."""
    # The squares of an eighth of the rows are part of the whole picture's: where their deviation
    # is 6, that of the whole is at least the root of 36 / 8, and the other rows need no look.
    _, deviation = cv2.meanStdDev(picture[::8])
    if deviation.max() >= 6.0:
        return False
    _, deviation = cv2.meanStdDev(picture)
    return bool(deviation.max() < 2.0)


def encode_jpeg(picture: Picture, quality: int) -> bytes:
    """Encode RGB as baseline JPEG without chroma subsampling: thin coloured lines survive."""
    contiguous = np.ascontiguousarray(picture)
    return cast(bytes, simplejpeg.encode_jpeg(contiguous, quality, colorsubsampling="444"))


def encode_png(grey: NDArray[np.uint8]) -> bytes:
    """Encode a grey picture (uint8, H x W) as PNG.

    By hand, around libdeflate: a quarter of the time of OpenCV's encoder, which with zlib took
    more than half of the whole preparation. ISA-L takes half of libdeflate's time again, but its
    bytes depend on the processor, and once differed between two runs on one. Rows are not
    filtered; a sketch is mostly paper, and filters made it larger.
    """
    height, width = grey.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter, 0: none
    rows[:, 1:] = grey
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, grey
    pixels = bytes(deflate.zlib_compress(rows, 1))
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


_HASH_SIDE = 32


def perceptual_hash(picture: Picture) -> int:
    """Return the 64-bit DCT hash of a picture's luminance (as pHash does).

    Two pictures whose hashes differ in a few bits look alike, whatever their size, encoding or
    colours. The lowest 8 x 8 frequencies of a 32 x 32 grey picture, each against their median.
    """
    small = cv2.resize(picture, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = cv2.dct(grey)[:8, :8].ravel()
    median = np.partition(low[1:], 31)[31]  # of 63; np.median takes ten times as long
    return int.from_bytes(np.packbits(low > median).tobytes(), "big")
