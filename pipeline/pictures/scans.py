"""How often the pixels of a JPEG would have to be gone over."""

import re

_MAX_SCANS = 100  # encoders write some ten
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")  # but for those amid pixels
_SCAN, _END = b"\xda", b"\xd9"
_FRAMES = frozenset(bytes([n]) for n in range(0xC0, 0xD0) if n not in (0xC4, 0xC8, 0xCC))


def has_endless_scans(data: bytes) -> bool:
    """Whether a JPEG has more scans than any encoder writes: 30 kB of them took 22 s to decode."""
    num_scans, at, frame = 0, 2, b""
    while num_scans <= _MAX_SCANS and (marker := _MARKER.search(data, at)):
        kind, segment = marker[1], data[marker.end() : marker.end() + 8]
        if kind in _FRAMES:
            frame = kind + segment[7:]
        if kind == _END or (kind == _SCAN and frame == b"\xc0" + segment[2:3]):
            return False  # its only scan, too, has all components
        num_scans += kind == _SCAN
        at = marker.end() + int.from_bytes(segment[:2], "big")
    return num_scans > _MAX_SCANS
