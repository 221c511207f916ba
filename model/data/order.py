"""The order of training: a pure function of the seed, the epoch and the shards' sizes.

All random numbers are raw Philox words, whose stream NumPy promises never to change.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_SHARDS = 2**63
"""Counter from which on random words are for shards; those for samples end far below it."""


@dataclass(frozen=True, slots=True)
class Window:
    """Shards whose samples an epoch shuffles together.

    Attributes:
        shards: their numbers.
        end: place in the epoch's order behind the last of their samples.
    """

    shards: tuple[int, ...]
    end: int


def epoch_order(num_samples: int, seed: int, epoch: int) -> Indices:
    """Return an epoch's order of all samples, a permutation."""
    words = _philox(seed, epoch).random_raw(num_samples)
    return np.argsort(words, kind="stable")


def epoch_windows(sizes: Sequence[int], num_together: int, seed: int, epoch: int) -> list[Window]:
    """Divide an epoch into windows: shards in a random order, so many of them together.

    What is read in a window lies in few shards, which a cache can hold. Nothing is lost by it:
    which samples share a shard is the hash's choice already.

    Args:
        sizes: samples of each shard.
        num_together: shards a window; as many as there are, or more, make one of all.
        seed, epoch: decide the order of the shards.
    """
    words = _philox(seed, epoch, _SHARDS).random_raw(len(sizes))
    order = np.argsort(words, kind="stable").tolist()
    windows, end = [], 0
    for start in range(0, len(order), num_together):
        shards = tuple(order[start : start + num_together])
        end += sum(sizes[shard] for shard in shards)
        windows.append(Window(shards, end))
    return windows


def order_in_windows(shards: Indices, windows: Sequence[Window], seed: int, epoch: int) -> Indices:
    """Return an epoch's order, window after window; with one window it is ``epoch_order``'s.

    ``shards`` has the number of each sample's shard.
    """
    window_of = np.empty(sum(len(window.shards) for window in windows), dtype=np.int64)
    for i, window in enumerate(windows):
        window_of[list(window.shards)] = i
    words = _philox(seed, epoch).random_raw(len(shards))
    return np.lexsort((words, window_of[shards]))


def _philox(seed: int, epoch: int, start: int = 0) -> np.random.Philox:
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([start, 0, 0, 0], dtype=np.uint64))
