"""Decompression bombs: pictures that keep decoders busy, or fill the memory, beyond their bytes."""

import io
import os
import re
from typing import IO, Any

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_MAX_SCANS = 100  # of a JPEG; encoders write some ten
_MAX_SEGMENTS = 10_000  # of a JPEG, each with up to 64 KiB of profile, EXIF or the like
_MAX_CHUNKS = 100_000  # of a PNG; encoders write some hundred a megabyte
_MAX_PRELUDE = 2**18  # bytes of a GIF before its first picture
_MAX_REUSE = 4  # how often tags may name the same bytes for their values: none ought to
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")  # without those that stand amid pixels
_PNG = b"\x89PNG\r\n\x1a\n"
_SCAN, _END = b"\xda", b"\xd9"
_FRAMES = frozenset(bytes([n]) for n in range(0xC0, 0xD0) if n not in (0xC4, 0xC8, 0xCC))


def is_bomb(data: bytes) -> bool:
    """Whether a JPEG, PNG or GIF has far more parts than any encoder writes.

    They are scans and segments, chunks, and comments.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _has_too_many_scans(data)
    if data.startswith(_PNG):
        return _has_too_many_chunks(data)
    return data.startswith(b"GIF8") and _begins_late(data)


def _has_too_many_scans(data: bytes) -> bool:
    """Whether the pixels of a JPEG are gone over too often: 30 kB of scans took 22 s to decode."""
    num_scans, num_segments, at, frame = 0, 0, 2, b""
    while max(num_scans - _MAX_SCANS, num_segments - _MAX_SEGMENTS) <= 0 and (
        marker := _MARKER.search(data, at)
    ):
        kind, segment = marker[1], data[marker.end() : marker.end() + 8]
        if kind in _FRAMES:
            frame = kind + segment[7:]
        if kind == _END or (kind == _SCAN and frame == b"\xc0" + segment[2:3]):
            return False  # its only scan, too, has all components
        num_scans += kind == _SCAN
        num_segments += 1
        at = marker.end() + int.from_bytes(segment[:2], "big")
    return num_scans > _MAX_SCANS or num_segments > _MAX_SEGMENTS


def _has_too_many_chunks(data: bytes) -> bool:
    """Whether Pillow goes through too many chunks of a PNG: 19 MB of empty ones took a minute."""
    num_chunks, at = 0, len(_PNG)
    while at < len(data) and num_chunks <= _MAX_CHUNKS and data[at + 4 : at + 8] != b"IEND":
        num_chunks, at = num_chunks + 1, at + 12 + int.from_bytes(data[at : at + 4], "big")
    return num_chunks > _MAX_CHUNKS


def _begins_late(data: bytes) -> bool:
    """Whether Pillow does not come to a GIF's first picture early on.

    It takes time by the square of what comments stand before that: 46 s for 2 MB.
    """
    if len(data) <= _MAX_PRELUDE:
        return False
    try:
        Image.open(io.BytesIO(data[:_MAX_PRELUDE]), formats=["GIF"])
    except Exception:  # as of any damaged picture, whatever comes to hand
        return True
    return False


class _Counted:
    """A file of tags, EXIF's or a TIFF's, that gives each byte a few times and no more."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        here = file.tell()
        self._left = _MAX_REUSE * file.seek(0, os.SEEK_END)
        file.seek(here)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("the values of its tags lie over one another")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


_load = ImageFileDirectory_v2.load


def _load_counted(self: ImageFileDirectory_v2, fp: IO[bytes]) -> None:
    _load(self, _Counted(fp))  # type: ignore[arg-type]


# Pillow copies the values of all tags at once: 5,000 of them over the same 2 MB took 3 GB.
ImageFileDirectory_v2.load = _load_counted  # type: ignore[method-assign]
