"""How far something is that takes long: a bar on a terminal, elsewhere a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_PAUSE = 10.0
"""Least seconds between two lines, ..."""

_LONG_PAUSE = 600.0
"""... and the most, where a percent takes longer; once begun, what is long is not silent."""


@contextmanager
def show_progress(
    console: "Console", label: str, total: int, done: int = 0
) -> Iterator[Callable[..., None]]:
    """Yield a function that is told how much is done, and may be given a note on it.

    Args:
        console: where it is shown.
        label: what is done, and in which unit where that is not plain: ``push, MB``.
        total: how much is to be done.
        done: how much of it is done already.
    """
    if console.is_terminal:
        from rich.progress import (  # here: no worker shows any
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn(label),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(label, total=total, completed=done, note="")
            yield lambda now, note="": bar.update(task, completed=now, note=note)
        return
    last, last_done = time.monotonic(), done

    def show(now: int, note: str = "") -> None:
        nonlocal last, last_done
        pause = _PAUSE if now - last_done > total / 100 else _LONG_PAUSE
        if time.monotonic() - last > pause:
            last, last_done = time.monotonic(), now
            console.print(f"{label}: {now} of {total}{note and f', {note}'}")

    yield show
