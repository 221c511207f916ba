"""The members of a sample -> arrays, into memory that is there already.

Both decoders release the interpreter's lock, so threads decode side by side.
"""

import io
import struct
import zlib

import deflate
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from pipeline.pictures.bombs import is_bomb

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_GREY = b"\x08\0\0\0\0"
"""In a PNG's header, after its sizes: 8 bits, grey, not interlaced."""

_BEFORE_DATA = 8 + 25 + 8
"""Bytes of a PNG before its pixels: the signature, the header's chunk, length and name of IDAT."""

_AFTER_DATA = 4 + 12
"""Bytes after them: their checksum, and IEND."""


def decode_color(data: bytes, out: NDArray[np.uint8]) -> None:
    """Decode a JPEG.

    Args:
        data: the file's bytes.
        out: uint8, H x W x 3, RGB; filled in.

    Raises:
        ValueError: where it does not decode, or is not of ``out``'s size.
    """
    if is_bomb(data):
        raise ValueError("has more scans than any encoder writes")
    decoded = simplejpeg.decode_jpeg(data, buffer=out)
    if decoded.shape != out.shape:
        raise ValueError(f"is {decoded.shape[:2]}, not {out.shape[:2]}")


def decode_sketch(data: bytes, out: NDArray[np.uint8]) -> None:
    """Decode a grey PNG.

    Rows without filters, which ``prepare`` writes, need no more than libdeflate's inflate: less
    than half of the time of OpenCV's decoder, which moreover takes a torn PNG for a whole one.
    Whatever else a PNG may be goes through Pillow, which does not.

    Args:
        data: the file's bytes.
        out: uint8, H x W; filled in.

    Raises:
        ValueError: where it does not decode, or is not of ``out``'s size.
    """
    if not data.startswith(_SIGNATURE):
        raise ValueError("is not a PNG")
    width, height = struct.unpack_from(">II", data.ljust(_BEFORE_DATA), 16)
    if (height, width) != out.shape:  # told by the header, before any memory is taken
        raise ValueError(f"is {(height, width)}, not {out.shape}")
    if _decode_plain(data, out):
        return
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            out[:] = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, zlib.error, Image.DecompressionBombError) as error:
        raise ValueError(f"does not decode: {error}") from error


def _decode_plain(data: bytes, out: NDArray[np.uint8]) -> bool:
    """Decode a PNG of ``out``'s size, 8 bits, grey, in one piece, unfiltered; False for any other.

    A checksum over the pixels (Adler-32) is part of the stream, and checked.

    Raises:
        ValueError: where it is one, and damaged.
    """
    size = len(data) - _BEFORE_DATA - _AFTER_DATA
    if size < 0 or data[12:16] != b"IHDR" or data[24:29] != _GREY:
        return False
    if data[_BEFORE_DATA - 8 : _BEFORE_DATA] != struct.pack(">I4s", size, b"IDAT"):
        return False
    height, width = out.shape
    expected = height * (width + 1)  # each row begins with its filter
    stream = memoryview(data)[_BEFORE_DATA : _BEFORE_DATA + size]
    try:
        # Bounded, whatever a hostile stream would grow to.
        pixels = deflate.zlib_decompress(stream, expected)
    except deflate.DeflateError as error:
        raise ValueError(f"does not decode: {error}") from error
    if len(pixels) != expected:
        raise ValueError(f"does not decode: not {expected} bytes of pixels")
    rows = np.frombuffer(pixels, np.uint8).reshape(height, width + 1)
    if rows[:, 0].any():
        return False
    out[:] = rows[:, 1:]
    return True
