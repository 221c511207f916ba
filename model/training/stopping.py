"""What Ctrl-C and SIGTERM do to a training: it ends with the step under way."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets; the second does what it always did.

    A step half done cannot be resumed exactly, so the signal only asks. Outside the main thread,
    which alone may handle signals, the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.set()
        restore()

    for number in signals:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()
