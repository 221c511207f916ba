"""Measures of coloured pictures, on uint8 pictures N x 3 x H x W as they would be saved.

MSE, PSNR and SSIM say how near a picture is to the true one; the average colour does well by
them. ``chroma_distances`` and ``following`` say whether a model colours, and after the reference.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.color import ab_of
from model.data.order import Indices

PSNR_CAP = 100.0
"""Decibels given to pictures that are equal, whose ratio has no bound."""

PAPER_LEVEL = 240
"""A pixel with all three channels at or above this is paper; the rest is the foreground."""

REGION_SIDE = 16.0
"""Side of the cells of CIELAB's (a, b) that tell one colour region from another."""

_NUM_CELLS = 20
"""Along a and along b, which stay within -109 and 99 in sRGB."""

_COLOURLESS = _NUM_CELLS // 2 * (_NUM_CELLS + 1)
"""The region around (0, 0)."""

Floats = NDArray[np.float64]
Answer = Callable[[Tensor, Tensor], Tensor]
"""Whatever colours: uint8 sketches N x 1 x H x W, and as many references N x 3 x H x W or a single
one for all of them, to pictures N x 3 x H x W."""


def mse(output: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared error of each picture, in [0, 1] units: N."""
    difference = (output.double() - truth.double()) / 255
    return difference.square().flatten(1).mean(1)


def psnr(output: Tensor, truth: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each picture in dB, at most ``PSNR_CAP``: N."""
    return to_psnr(mse(output, truth))


def to_psnr(errors: Tensor) -> Tensor:
    """Return the PSNR in dB that belongs to each ``mse``."""
    return -10 * errors.clamp(min=10 ** (-PSNR_CAP / 10)).log10()


def ssim(output: Tensor, truth: Tensor) -> Tensor:
    """Return the structural similarity of each picture (Wang et al. 2004): N, at most 1.

    As published: an 11 x 11 Gaussian window of deviation 1.5, K1 = 0.01, K2 = 0.03, population
    statistics, only windows that lie wholly inside; averaged over the three channels.
    """
    x, y = (p.cpu().double().flatten(0, 1) / 255 for p in (output, truth))
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).flatten(1).mean(1).view(len(output), -1).mean(1)


def _blur(x: Tensor) -> Tensor:
    planes = [cv2.GaussianBlur(plane, (11, 11), 1.5)[5:-5, 5:-5] for plane in x.numpy()]
    return torch.from_numpy(np.stack(planes))


class Chroma(NamedTuple):
    """The colours of pictures.

    Attributes:
        ab: float32 N x H x W x 2, the a and b of CIELAB (sRGB, D65).
        foreground: bool N x H x W, what is not paper.
    """

    ab: NDArray[np.float32]
    foreground: NDArray[np.bool_]


def chroma(picture: Tensor) -> Chroma:
    """Return the colours of pictures."""
    rgb = picture.permute(0, 2, 3, 1).cpu().numpy()
    return Chroma(ab_of(rgb), rgb.min(axis=3) < PAPER_LEVEL)


def chroma_distances(output: Tensor, truth: Tensor) -> Floats:
    """Return the parts of the chroma error of each picture, float64 N x 2.

    The first is the mean distance in (a, b) to the true picture over its foreground, the second
    that of a colourless answer, a = b = 0: a ratio above 1 is worse than no colour.
    """
    true = chroma(truth)
    return _distances(true.foreground, output, true.ab)


def ratio(parts: Floats) -> float | None:
    """Return a measure of a set of pictures from its parts, such as ``chroma_distances``.

    Args:
        parts: numerator and denominator of each picture, N x 2.

    Returns:
        The sum over the sum; None where there is nothing to divide by, such as colour in the true
        pictures.
    """
    over, under = parts.sum(axis=0)
    return float(over / under) if under > 0 else None


def regional_distances(output: Tensor, truth: Tensor) -> Floats:
    """Return the parts of the regional chroma error: ``chroma_distances`` over small regions.

    A region is all of a picture's foreground whose true (a, b), each divided by ``REGION_SIDE``
    and rounded, are the same two numbers; it need not be in one piece, so both eyes are one. The
    region around (0, 0), which has no colour (lines, grey cloth), is none. The small regions are
    those that, taken from the smallest up, still fit into a third of what all regions cover
    together; the smallest is taken in any case. Hair, and often skin, is thereby left out; eyes,
    mouths and ornaments are what is left.

    Returns:
        float64 N x 2; two zeros for a picture without a region.
    """
    true = chroma(truth)
    mask = np.stack([_small_regions(*picture) for picture in zip(*true, strict=True)])
    return _distances(mask, output, true.ab)


def _distances(mask: NDArray[np.bool_], output: Tensor, true: NDArray[np.float32]) -> Floats:
    distance = np.linalg.norm(chroma(output).ab - true, axis=3)
    colourless = np.linalg.norm(true, axis=3)
    return np.stack([_mean_over(mask, distance), _mean_over(mask, colourless)], axis=1)


def _small_regions(ab: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where the small regions of one picture are, bool H x W."""
    cells = np.rint(ab / REGION_SIDE).astype(np.int64) + _NUM_CELLS // 2
    region = cells[..., 0] * _NUM_CELLS + cells[..., 1]
    colored = foreground & (region != _COLOURLESS)
    areas = np.bincount(region[colored], minlength=_NUM_CELLS**2)
    regions = np.flatnonzero(areas)
    ascending = regions[np.argsort(areas[regions], kind="stable")]
    is_small = np.zeros(len(areas), dtype=bool)
    is_small[ascending] = 3 * np.cumsum(areas[ascending]) <= colored.sum()
    is_small[ascending[:1]] = True
    mask: NDArray[np.bool_] = colored & is_small[region]
    return mask


def paper_distances(output: Tensor, truth: Tensor) -> Floats:
    """Return the parts of the paper error, the haze where the true picture is paper: N x 2.

    The first is the distance to the truth, the mean over R, G and B, 0 to 1, summed over all
    pixels that are paper; the second is their number.
    """
    paper = (truth.amin(1) >= PAPER_LEVEL).double()
    distance = (output.double() - truth.double()).abs().mean(1) / 255
    parts = torch.stack([(distance * paper).flatten(1).sum(1), paper.flatten(1).sum(1)], dim=1)
    return np.asarray(parts.cpu().numpy())


def bootstrap(parts: Floats, clusters: Indices, seed: int) -> list[float] | None:
    """Return the 95% interval of a ratio of means, by 1,000 resamples of whole clusters.

    Pictures of one character succeed or fail together: resampled one by one they would pass for
    more evidence than they are. Of few clusters, under 20 say, the interval is still too narrow.

    Args:
        parts: numerator and denominator of each picture, N x 2; ones below for a plain mean.
        clusters: of each picture, N numbers; those of one cluster are drawn together.
        seed: of the resamples.

    Returns:
        The 2.5th and the 97.5th percentile; None where not even two clusters tell anything.
    """
    _, index = np.unique(clusters, return_inverse=True)
    of_clusters = np.zeros((index.max(initial=-1) + 1, 2))
    np.add.at(of_clusters, index, parts)
    if np.count_nonzero(of_clusters[:, 1]) < 2:
        return None
    random = np.random.Generator(np.random.Philox(seed))
    num = len(of_clusters)
    sums = [of_clusters[random.integers(num, size=num)].sum(axis=0) for _ in range(1000)]
    over, under = np.array(sums).T
    low, high = np.percentile(over[under > 0] / under[under > 0], (2.5, 97.5))
    return [float(low), float(high)]


def palette(picture: Tensor) -> Floats:
    """Return the mean (a, b) over each picture's own foreground, N x 2; 0 where all is paper."""
    ab, foreground = chroma(picture)
    return np.stack([_mean_over(foreground, ab[..., i]) for i in range(2)], axis=1)


def _mean_over(mask: NDArray[np.bool_], values: NDArray[np.float32]) -> Floats:
    count = mask.sum(axis=(1, 2))
    total = np.where(mask, values, 0).sum(axis=(1, 2), dtype=np.float64)
    return np.asarray(total / np.maximum(count, 1))


def following(outputs: Floats, references: Floats) -> float | None:
    """Return how far the palettes of outputs follow those of their references.

    The slope of outputs on references, the latter less their mean; what a sketch's outputs have
    in common over all references drops out of it. 0: the reference is ignored; 1: the
    palette follows it; over 1: exaggerated.

    Args:
        outputs: ``palette`` of each sketch after each reference, sketches x references x 2.
        references: ``palette`` of the references, references x 2.

    Returns:
        The slope; None where the references all have one palette.
    """
    x = references - references.mean(axis=0)
    spread = len(outputs) * (x * x).sum()
    return float((outputs * x).sum() / spread) if spread > 0 else None


def measure_following(answer: Answer, sketches: Tensor, references: Tensor) -> float | None:
    """Colour every sketch after every reference and return ``following``.

    Args:
        answer: what colours.
        sketches: uint8 n x 1 x H x W.
        references: uint8 m x 3 x H x W, m at least 2.
    """
    outputs = [palette(answer(sketches, reference)) for reference in references.unsqueeze(1)]
    return following(np.stack(outputs, axis=1), palette(references))
