"""Which signals ask a training to stop, and which end it."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from model.training.stopping import stop_on_signal


class EndedError(Exception):
    """A signal did what it always did."""


def end(number: int, frame: FrameType | None) -> None:
    raise EndedError


@pytest.fixture(autouse=True)
def _usual() -> Iterator[None]:
    """Let both signals raise an error where nobody else handles them."""
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert [signal.getsignal(number) for number in before] == [end, end]
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_asked_for_once_and_ctrl_c_ends_it(first: signal.Signals) -> None:
    with stop_on_signal() as asked:
        assert not asked.is_set()
        signal.raise_signal(first)
        assert asked.is_set()
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(EndedError):
            signal.raise_signal(signal.SIGINT)
