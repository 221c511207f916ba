import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.order import epoch_order, epoch_windows, order_in_windows

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)


@given(sizes=SIZES, together=st.integers(1, 14), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_an_epoch_goes_through_all_samples_window_after_window(
    sizes: list[int], together: int, seed: int, epoch: int
) -> None:
    windows = epoch_windows(sizes, together, seed, epoch)
    assert sorted(itertools.chain(*(w.shards for w in windows))) == list(range(len(sizes)))
    assert all(len(window.shards) == together for window in windows[:-1])
    shards = np.repeat(np.arange(len(sizes)), sizes)
    order = order_in_windows(shards, windows, seed, epoch)
    assert sorted(order.tolist()) == list(range(sum(sizes)))
    start = 0
    for window in windows:
        assert set(shards[order[start : window.end]].tolist()) <= set(window.shards)
        start = window.end
    assert start == sum(sizes)
    if together >= len(sizes):
        assert (order == epoch_order(sum(sizes), seed, epoch)).all()


def test_the_windows_are_the_same_on_every_machine_and_differ_by_seed_and_epoch() -> None:
    shards = np.repeat(np.arange(4), 3)
    windows = epoch_windows([3, 3, 3, 3], 2, seed=1, epoch=2)
    assert [window.shards for window in windows] == [(0, 1), (2, 3)]
    expected = [4, 2, 0, 1, 5, 3, 11, 6, 10, 9, 8, 7]
    assert order_in_windows(shards, windows, 1, 2).tolist() == expected
    found = {
        tuple(w.shards for w in epoch_windows([1] * 9, 3, seed, epoch))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(found) == 16


@pytest.mark.parametrize("together", [1, 2, 5])
def test_within_a_window_the_shards_are_mixed(together: int) -> None:
    """A window's samples come in no order of their shards: the mean rank of each is the middle."""
    shards = np.repeat(np.arange(10), 400)
    order = order_in_windows(shards, epoch_windows([400] * 10, together, 0, 0), 0, 0)
    for window in np.split(shards[order], 10 // together):
        for shard in np.unique(window):
            ranks = np.flatnonzero(window == shard)
            assert ranks.mean() == pytest.approx((len(window) - 1) / 2, rel=0.1)
