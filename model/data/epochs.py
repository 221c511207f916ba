"""Epoch after epoch: which samples a run takes, in which order, from any place on."""

import time
from collections.abc import Generator
from contextlib import closing

import numpy as np

from model.config import TrainConfig
from model.data.augment import SKETCH, draw_uniform
from model.data.order import Indices, Window, epoch_windows, order_in_windows
from model.data.pairs import Partners, pair_epoch
from model.data.samples import Batch, Samples, iterate_batches
from model.ranks import Ranks


def windows_of(samples: Samples, config: TrainConfig, epoch: int) -> list[Window]:
    """Return the windows of shards that an epoch goes through."""
    return epoch_windows(samples.shard_sizes(), config.shuffle_shards, config.seed, epoch)


def order_of(samples: Samples, config: TrainConfig, epoch: int) -> Indices:
    """Return the places of an epoch's samples, in the order in which they are taken."""
    windows = windows_of(samples, config, epoch)
    return order_in_windows(samples.shards, windows, config.seed, epoch)


def choose_sketches(num_samples: int, config: TrainConfig, epoch: int) -> Indices:
    """Return which of ``config.sketches`` each sample of an epoch, in its order, is drawn by."""
    random = draw_uniform(config.seed, epoch, SKETCH, np.array([0]), num_samples)
    chosen: Indices = (random[0] * len(config.sketches)).astype(np.int64)
    return chosen


def iterate_steps(
    samples: Samples, config: TrainConfig, ranks: Ranks, epoch: int, position: int, *, pin: bool
) -> Generator[tuple[int, int, Batch, float]]:
    """Yield (epoch, position after the batch, batch, seconds waited) from a place to the end.

    The position counts the samples of all ranks, the batch holds this rank's. The samples are told
    in time which shards come next, those of the next epoch included.
    """
    partners = Partners(samples) if config.pairs > 0 else None
    for current in range(epoch, config.epochs):
        order = order_of(samples, config, current)
        pairs = pair_epoch(order, partners, config.seed, current, config.pairs)
        if config.sketches:
            pairs = np.column_stack([pairs, choose_sketches(len(order), config, current)])
        left = [w for w in windows_of(samples, config, current) if w.end > position]
        last = current + 1 == config.epochs
        following = [] if last else windows_of(samples, config, current + 1)
        samples.expect([*left, *following])
        with closing(
            iterate_batches(
                samples,
                ranks.part(pairs[position:], config.batch_size),
                ranks.part_size(config.batch_size),
                num_threads=config.decode_threads,
                pin=pin,
            )
        ) as batches:
            asked = time.monotonic()
            for batch in batches:
                position += config.batch_size
                yield current, position, batch, time.monotonic() - asked
                asked = time.monotonic()
                if left and left[0].end <= position:
                    left = [w for w in left if w.end > position]
                    samples.expect([*left, *following])
        position = 0
