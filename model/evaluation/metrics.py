"""Measures of coloured pictures, on uint8 pictures N x 3 x H x W as they would be saved.

MSE, PSNR and SSIM say how near a picture is to the true one; the average colour does well by
them. ``chroma_distances`` and ``following`` say whether a model colours, and after the reference.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.data.order import Indices
from model.evaluation.seen import Floats, Mask, Moments, Seen, blur, length

PSNR_CAP = 100.0
"""Decibels given to pictures that are equal, whose ratio has no bound."""

Answer = Callable[[Tensor, Tensor], Tensor]
"""Whatever colours: uint8 sketches N x 1 x H x W, and as many references N x 3 x H x W or a single
one for all of them, to pictures N x 3 x H x W."""


def mse(output: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared error of each picture, in [0, 1] units: N."""
    squares = (output.int() - truth.int()).square().flatten(1)
    return squares.sum(1).double() / (255**2 * squares.shape[1])


def psnr(output: Tensor, truth: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each picture in dB, at most ``PSNR_CAP``: N."""
    return to_psnr(mse(output, truth))


def to_psnr(errors: Tensor) -> Tensor:
    """Return the PSNR in dB that belongs to each ``mse``."""
    return -10 * errors.clamp(min=10 ** (-PSNR_CAP / 10)).log10()


def ssim(output: Seen, truth: Seen) -> Floats:
    """Return the structural similarity of each picture (Wang et al. 2004): N, at most 1.

    As published: an 11 x 11 Gaussian window of deviation 1.5, K1 = 0.01, K2 = 0.03, population
    statistics, only windows that lie wholly inside, so sides of at least 11 pixels; averaged over
    the three channels.
    """
    return np.array(list(map(_ssim, output.pixels, truth.pixels, output.moments, truth.moments)))


def _ssim(x: NDArray[np.uint8], y: NDArray[np.uint8], of_x: Moments, of_y: Moments) -> float:
    covariance = blur((x / 255) * (y / 255)) - of_x.mean * of_y.mean
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * of_x.mean * of_y.mean + c1) / (of_x.mean**2 + of_y.mean**2 + c1)
    structure = (2 * covariance + c2) / (of_x.variance + of_y.variance + c2)
    return float((luminance * structure).mean())


def chroma_distances(output: Seen, truth: Seen) -> Floats:
    """Return the parts of the chroma error of each picture, float64 N x 2.

    The first is the mean distance in (a, b) to the true picture over its foreground, the second
    that of a colourless answer, a = b = 0: a ratio above 1 is worse than no colour.
    """
    return _distances(truth.foreground, output, truth)


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


def regional_distances(output: Seen, truth: Seen) -> Floats:
    """Return the parts of the regional chroma error: ``chroma_distances`` over small regions.

    A region is all of a picture's foreground whose true (a, b), divided by ``seen.REGION_SIDE`` and
    rounded, are the same two numbers; it need not be in one piece, so both eyes are one. The
    region around (0, 0), which has no colour (lines, grey cloth), is none. The small regions are
    those that, taken from the smallest up, still fit into a third of what all regions cover
    together; the smallest is taken in any case. Hair, and often skin, is thereby left out; eyes,
    mouths and ornaments are what is left.

    Returns:
        float64 N x 2; two zeros for a picture without a region.
    """
    return _distances(truth.small_regions, output, truth)


def _distances(masks: list[Mask], output: Seen, truth: Seen) -> Floats:
    return np.array(list(map(_distances_in, masks, output.ab, truth.ab, truth.chroma))).reshape(
        -1, 2
    )


def _distances_in(
    mask: Mask, ab: NDArray[np.float32], true: NDArray[np.float32], chroma: NDArray[np.float32]
) -> tuple[float, float]:
    return _mean_over(mask, length(ab - true)), _mean_over(mask, chroma)


def paper_distances(output: Seen, truth: Seen) -> Floats:
    """Return the parts of the paper error, the haze where the true picture is paper: N x 2.

    The first is the distance to the truth, the mean over R, G and B, 0 to 1, summed over all
    pixels that are paper; the second is their number.
    """
    found = map(_paper_distances, output.pixels, truth.pixels, truth.foreground)
    return np.array(list(found)).reshape(-1, 2)


def _paper_distances(
    pixels: NDArray[np.uint8], true: NDArray[np.uint8], foreground: Mask
) -> tuple[float, float]:
    distances = np.abs(pixels.astype(np.int16) - true)[~foreground]
    return distances.sum() / (3 * 255), len(distances)


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


def palette(pictures: Tensor) -> Floats:
    """Return the mean (a, b) over each picture's own foreground, N x 2; 0 where all is paper.

    Args:
        pictures: uint8 N x 3 x H x W.
    """
    seen = Seen(pictures)
    return np.array(
        [
            [_mean_over(foreground, ab[..., i]) for i in range(2)]
            for ab, foreground in zip(seen.ab, seen.foreground, strict=True)
        ]
    )


def _mean_over(mask: Mask, values: NDArray[np.float32]) -> float:
    total = values.sum(where=mask, dtype=np.float64)
    return float(total / max(np.count_nonzero(mask), 1))


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
    # Less one of them first: of equal ones the rounding of their mean would be left to divide by.
    x = references - references[0]
    x -= x.mean(axis=0)
    spread = len(outputs) * (x * x).sum()
    return float((outputs * x).sum() / spread) if spread > 0 else None


def bootstrap_following(outputs: Floats, references: Floats, seed: int) -> list[float] | None:
    """Return the 95% interval of ``following``, by 1,000 resamples of sketches and of references.

    Both are samples of what there is to colour, and to colour after.

    Args:
        outputs, references: as of ``following``.
        seed: of the resamples.

    Returns:
        The 2.5th and the 97.5th percentile; None where the references all have one palette.
    """
    random = np.random.Generator(np.random.Philox(seed))
    num_sketches, num_references = outputs.shape[:2]
    slopes = []
    for _ in range(1000):
        sketches = random.integers(num_sketches, size=num_sketches)
        some = random.integers(num_references, size=num_references)
        slopes.append(following(outputs[sketches][:, some], references[some]))
    known = [slope for slope in slopes if slope is not None]
    if not known:
        return None
    low, high = np.percentile(known, (2.5, 97.5))
    return [float(low), float(high)]


def cross(answer: Answer, sketches: Tensor, references: Tensor) -> Floats:
    """Colour every sketch after every reference and return each output's ``palette``, n x m x 2.

    Args:
        answer: what colours.
        sketches: uint8 n x 1 x H x W.
        references: uint8 m x 3 x H x W.
    """
    outputs = [palette(answer(sketches, reference)) for reference in references.unsqueeze(1)]
    return np.stack(outputs, axis=1)


def measure_following(answer: Answer, sketches: Tensor, references: Tensor) -> float | None:
    """Return ``following`` of an answer; the arguments are those of ``cross``, m at least 2."""
    return following(cross(answer, sketches, references), palette(references))
