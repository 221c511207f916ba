"""What Ctrl-C and SIGTERM do to a training: it ends with the step under way."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets.

    A step half done cannot be resumed exactly, so the signal only asks. After it another Ctrl-C
    does what it always did. Another SIGTERM does nothing: where a scheduler sends it to all
    processes of a job, torchrun sends it on to those that have it already. Outside the main thread,
    which alone may handle signals, the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.set()
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in signals:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
