"""Progress: a bar on a terminal, and elsewhere lines, neither too many nor too few."""

import io

import pytest
from rich.console import Console

from pipeline.progress import show_progress


@pytest.mark.parametrize(
    ("total", "times", "shown"),
    [
        (4, {1: 5.0, 2: 11.0, 3: 15.0, 4: 22.0}, [2, 4]),  # ten seconds apart
        (1000, {5: 11.0, 11: 12.0, 12: 13.0, 22: 24.0}, [11, 22]),  # and a percent,
        (10**6, {1: 599.0, 2: 601.0, 3: 700.0, 4: 1202.0}, [2, 4]),  # but for ten minutes
    ],
)
def test_a_file_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, total: int, times: dict[int, float], shown: list[int]
) -> None:
    now = 0.0
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: now)
    file = io.StringIO()
    with show_progress(Console(file=file, width=80), "eval, pictures", total) as show:
        for done, now in times.items():  # noqa: B007
            show(done, f"at {done}")
    assert file.getvalue().splitlines() == [
        f"eval, pictures: {done} of {total}, at {done}" for done in shown
    ]


def test_a_line_without_a_note_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 20.0, 20.0])
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: next(now))
    file = io.StringIO()
    with show_progress(Console(file=file, width=80), "fetch", 8, done=3) as show:
        show(4)
    assert file.getvalue() == "fetch: 4 of 8\n"


def test_a_terminal_gets_a_bar_that_begins_where_the_work_does() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True)
    with show_progress(console, "train, steps", 8, done=3) as show:
        show(4, "57 samples/s")
        show(5, "58 samples/s")
    last = file.getvalue().rpartition("train, steps")[2]
    assert "5/8" in last
    assert "58 samples/s" in last
