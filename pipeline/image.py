"""Pictures: bytes -> decoded -> cropped -> resized, as plain functions on arrays.

A *picture* is uint8 RGB, H x W x 3. Nothing here trusts a file's name: the magic bytes decide,
and the header's pixel count is read before anything is decoded.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

import cv2
import deflate
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

Picture = NDArray[np.uint8]

Image.MAX_IMAGE_PIXELS = None  # our own cap is checked on the header, before any decoding
cv2.setNumThreads(1)  # parallelism is over shards; threads inside a worker only fight each other

FORMATS = ("jpeg", "png", "webp", "avif", "gif")
"""What a picture may be by its magic bytes."""

NEAR_BLACK = 20  # grey level up to which a letterbox bar may ring around the JPEG's edges
_EDGE_TOLERANCE = 2  # pixels by which bars may be off centre, or off their prediction
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
    """Return ``jpeg``, ``png``, ``webp``, ``avif`` or ``gif`` by the magic bytes, or None."""
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
    try:
        if format_name == "jpeg":
            height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        else:
            with _open(data, format_name) as image:
                width, height = image.size
    except Exception:  # damaged headers make decoders raise whatever comes to hand
        return None
    return Header(format_name, width, height)


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
    """Return a JPEG's own pixels as RGB, or None where Pillow is to have the word.

    It forgives what is harmless, and names what is not but for one thing: where the data end early
    and the end's marker stands behind them all the same, it leaves the rest grey.
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
    """Return a JPEG up to the pixels of its first scan; of one out of order at most 64 KiB more.

    To look through the pixels for what stands before them takes a tenth of the time to decode them.
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
        return Image.open(io.BytesIO(data), formats=[format_name.upper()])


def _decode_with_pillow(data: bytes, format_name: str, pixels: Picture | None) -> Picture:
    """Decode a picture; of a JPEG that is RGB or grey take the pixels, which Pillow has as well."""
    try:
        with warnings.catch_warnings(), _open(data, format_name) as image:
            warnings.simplefilter("ignore")
            whole: Image.Image = image
            if pixels is not None and image.mode in ("RGB", "L"):
                whole = Image.fromarray(pixels if image.mode == "RGB" else pixels[..., 0])
                whole.info = image.info
            whole.load()
            upright = ImageOps.exif_transpose(whole)
            return np.asarray(to_srgb(flatten_alpha(upright)))
    except Exception as error:  # as above: hostile bytes, and any exception means the same
        truncated = "truncated" in str(error) or "end of" in str(error).lower()
        raise UndecodableError("truncated" if truncated else "undecodable", str(error)) from error


def flatten_alpha(image: Image.Image) -> Image.Image:
    """Lay a picture with transparency over white; others pass, 16-bit grey scaled to 8.

    Grey stays grey, as its colour profile is one of grey.
    """
    if image.mode.startswith("I"):
        grey = np.asarray(image, dtype=np.float64) / 257.0
        flat = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    elif "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        white.alpha_composite(rgba)
        flat = white.convert("L" if image.mode in ("L", "LA") else "RGB")
    else:
        return image
    flat.info["icc_profile"] = image.info.get("icc_profile")
    return flat


def to_srgb(image: Image.Image) -> Image.Image:
    """Return a picture as RGB, its colours brought to sRGB where it has another colour profile."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(source).lower():
                target = ImageCms.createProfile("sRGB")
                image = image.convert("RGB") if image.mode == "P" else image
                converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a profile that cannot be read, or of another colour space: as browsers do
    return image.convert("RGB")


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.bottom - self.top


class Letterbox(StrEnum):
    """How record and pixels agree about the black bars."""

    NONE = "none"  # the record predicts no bars: nothing is cut, however dark the edges
    CONFIRMED = "confirmed"  # black where the record predicts bars: the prediction is cut
    DISAGREES = "disagrees"  # not black there: what the pixels show is cut, where it is centred


def predict_box(side: int, width: int, height: int) -> Box:
    """Return where a ``width`` x ``height`` original lies in a letterboxed ``side`` x ``side``.

    Danbooru2021's 512px pictures are scaled by side / long side and centred on black.
    """
    scale = side / max(width, height)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (side - inner_width) // 2, (side - inner_height) // 2
    return Box(left, top, left + inner_width, top + inner_height)


def find_letterbox(picture: Picture, width: int, height: int) -> tuple[Box, Letterbox]:
    """Find the picture inside its black bars: predicted from the record, confirmed on the pixels.

    Args:
        picture: uint8, H x W x 3. One that is not square has no letterbox.
        width: of the original by its record, in pixels; 0 where unknown.
        height: likewise.

    Returns:
        The box to keep, and how record and pixels agree.
    """
    side = picture.shape[0]
    whole = Box(0, 0, picture.shape[1], side)
    if picture.shape[1] != side:
        return whole, Letterbox.NONE
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    _, bright = cv2.threshold(grey, NEAR_BLACK, 1, cv2.THRESH_BINARY)
    left, right = _bright_extent(cv2.reduce(bright, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel())
    top, bottom = _bright_extent(cv2.reduce(bright, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel())
    if width > 0 and height > 0:
        box = predict_box(side, width, height)
        if box == whole:
            return whole, Letterbox.NONE
        slack = _EDGE_TOLERANCE
        inside_x = left >= box.left - slack and right <= box.right + slack
        inside_y = top >= box.top - slack and bottom <= box.bottom + slack
        if (inside_x and inside_y) or _is_black_outside(bright, box):
            return box, Letterbox.CONFIRMED
    left, right = (left, right) if _is_centred(left, right, side) else (0, side)
    top, bottom = (top, bottom) if _is_centred(top, bottom, side) else (0, side)
    return Box(left, top, right, bottom), Letterbox.DISAGREES


def _bright_extent(counts: NDArray[np.number[Any]]) -> tuple[int, int]:
    """First and one past the last line in which over 1% of the pixels are not near-black."""
    lines = np.flatnonzero(counts > len(counts) / 100)
    return (int(lines[0]), int(lines[-1]) + 1) if len(lines) else (0, len(counts))


def _is_black_outside(bright: NDArray[np.integer[Any] | np.floating[Any]], box: Box) -> bool:
    """Whether hardly any pixel around a box is bright, however dark it is inside.

    Args:
        bright: H x W, 1 where a pixel is not near-black.
        box: the prediction; what rings within the tolerance around it is not looked at.
    """
    outside = bright.copy()
    slack = _EDGE_TOLERANCE
    top, left = max(0, box.top - slack), max(0, box.left - slack)
    outside[top : box.bottom + slack, left : box.right + slack] = 0
    lines = (outside.mean(axis=axis).max() for axis in (0, 1))
    return all(share <= 1 / 100 for share in lines)


def _is_centred(start: int, stop: int, side: int) -> bool:
    return abs(start - (side - stop)) <= _EDGE_TOLERANCE


def crop(picture: Picture, box: Box) -> Picture:
    """Return the part of a picture inside ``box``, without a copy."""
    return picture[box.top : box.bottom, box.left : box.right]


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
