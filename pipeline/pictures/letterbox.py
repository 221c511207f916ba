"""The black bars of Danbooru2021's 512px layout: predicted from the record, seen, cut away."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.pictures.image import Picture

NEAR_BLACK = 20  # grey level up to which a letterbox bar may ring around the JPEG's edges
_EDGE_TOLERANCE = 2  # pixels by which bars may be off centre, or off their prediction


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
