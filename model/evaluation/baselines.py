"""Answers that know nothing of the reference, or nothing of the sketch, to compare a model with."""

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.config import EvalConfig
from model.data.samples import Samples, iterate_batches
from model.evaluation.metrics import Answer


def paint_mean(samples: Samples, config: EvalConfig) -> Answer:
    """Return the answer that is always the mean of all pictures of the samples."""
    return partial(_paint_alike, mean_picture(samples, config))


def mean_picture(samples: Samples, config: EvalConfig) -> Tensor:
    """Return the mean of all pictures, uint8 1 x 3 x H x W."""
    total = torch.zeros(1, 3, *samples.size, dtype=torch.float64)
    places = np.arange(len(samples))
    for batch in iterate_batches(
        samples, places, config.batch_size, num_threads=config.decode_threads
    ):
        total += batch.color.sum(0, keepdim=True, dtype=torch.float64)
    return (total / len(samples)).round().to(torch.uint8)


def _paint_alike(picture: Tensor, sketch: Tensor, reference: Tensor) -> Tensor:
    return picture.expand(len(sketch), -1, -1, -1)


BASELINES: dict[str, Answer] = {
    "grey": lambda sketch, reference: sketch.expand(-1, 3, -1, -1),
    "copy": lambda sketch, reference: _paint_alike(reference, sketch, reference),
}
"""The answers that know nothing at all, by name; ``mean`` knows the training set."""


def reduced(answer: Answer, factor: int) -> Answer:
    """Return an answer whose pictures are ``reduce_pictures`` of another's."""
    return lambda sketch, reference: reduce_pictures(answer(sketch, reference), factor)


def reduce_pictures(pictures: Tensor, factor: int) -> Tensor:
    """Return pictures of 1/``factor`` the sides: each pixel the mean of a square of pixels.

    Args:
        pictures: uint8 N x C x H x W.
        factor: divides H and W.
    """
    if factor == 1:
        return pictures
    return F.avg_pool2d(pictures.float(), factor).round().to(torch.uint8)
