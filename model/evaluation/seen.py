"""What measures look at in pictures: colours, foreground, small regions, local moments.

Several measures need the same values, and every answer is compared with the same truth, so each
value is computed once. Pictures are taken one by one: one fits a processor's cache, a batch does
not.
"""

from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.color import ab_of

PAPER_LEVEL = 240
"""A pixel with all three channels at or above this is paper; the rest is the foreground."""

REGION_SIDE = 16.0
"""Side of the cells of CIELAB's (a, b) that tell one colour region from another."""

_NUM_CELLS = 20
"""Along a and along b, which stay within -109 and 99 in sRGB."""

_COLOURLESS = _NUM_CELLS // 2 * (_NUM_CELLS + 1)
"""The region around (0, 0)."""

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Moments(NamedTuple):
    """Of SSIM's windows, of values in 0 to 1: float64 (H - 10) x (W - 10) x 3."""

    mean: Floats
    variance: Floats


class Seen:
    """Pictures with what measures look at in them, computed when it is first asked for.

    Attributes:
        pictures: uint8 N x 3 x H x W.
        pixels: the same, N x H x W x 3.
    """

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures
        pixels = pictures.permute(0, 2, 3, 1).contiguous().cpu()
        self.pixels: NDArray[np.uint8] = pixels.numpy()

    @cached_property
    def ab(self) -> list[NDArray[np.float32]]:
        """The a and b of CIELAB (sRGB, D65): H x W x 2 each."""
        return list(map(ab_of, self.pixels))

    @cached_property
    def chroma(self) -> list[NDArray[np.float32]]:
        """CIELAB's chroma, the distance of (a, b) from grey: H x W each."""
        return list(map(length, self.ab))

    @cached_property
    def foreground(self) -> list[Mask]:
        """What is not paper: H x W each."""
        return [pixels.min(axis=2) < PAPER_LEVEL for pixels in self.pixels]

    @cached_property
    def small_regions(self) -> list[Mask]:
        """Where small regions are, see ``metrics.regional_distances``: H x W each."""
        return list(map(_small_regions, self.ab, self.foreground))

    @cached_property
    def moments(self) -> list[Moments]:
        """Mean and variance of each window of SSIM."""
        return list(map(_moments, self.pixels))


def length(ab: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the lengths of vectors (a, b): ... x 2 to ..."""
    lengths: NDArray[np.float32] = np.hypot(ab[..., 0], ab[..., 1])
    return lengths


def blur(values: Floats) -> Floats:
    """Return the means of SSIM's windows, Gaussian, 11 x 11, deviation 1.5, in H x W x 3 values.

    Only those of windows that lie wholly inside: (H - 10) x (W - 10) x 3.
    """
    means: Floats = cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5]  # type: ignore[assignment]
    return means


def _moments(pixels: NDArray[np.uint8]) -> Moments:
    values = pixels / 255
    mean = blur(values)
    return Moments(mean, blur(values * values) - mean * mean)


def _small_regions(ab: NDArray[np.float32], foreground: Mask) -> Mask:
    cells = np.rint(ab / REGION_SIDE).astype(np.int64) + _NUM_CELLS // 2
    region = cells[..., 0] * _NUM_CELLS + cells[..., 1]
    colored = foreground & (region != _COLOURLESS)
    areas = np.bincount(region[colored], minlength=_NUM_CELLS**2)
    regions = np.flatnonzero(areas)
    ascending = regions[np.argsort(areas[regions], kind="stable")]
    is_small = np.zeros(len(areas), dtype=bool)
    is_small[ascending] = 3 * np.cumsum(areas[ascending]) <= colored.sum()
    is_small[ascending[:1]] = True
    mask: Mask = colored & is_small[region]
    return mask
