import threading
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.records import Fate, Status
from pipeline.web.pacing import (
    HostPacer,
    SourceDownError,
    SourceRefusesError,
    choose_wait,
    may_pass,
    parse_retry_after,
)
from tests.clients import FakeTime

TIMEOUT = Fate(Status.FAILED, "timeout")
HTTP = Fate(Status.FAILED, "http")


def test_the_back_off_doubles_up_to_a_minute() -> None:
    waits = [choose_wait(attempt, 99, TIMEOUT, 0, 1.0) for attempt in range(1, 10)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_the_jitter_is_full(attempt: int, draw: float) -> None:
    whole, drawn = (choose_wait(attempt, 9999, TIMEOUT, 0, d) for d in (1.0, draw))
    assert whole is not None
    assert drawn == pytest.approx(draw * whole)


def test_the_last_attempt_is_the_last() -> None:
    assert choose_wait(2, 3, TIMEOUT, 0, 1.0) == 2
    assert choose_wait(3, 3, TIMEOUT, 0, 1.0) is None


@pytest.mark.parametrize(
    ("fate", "status", "passes"),
    [
        *((HTTP, status, True) for status in (408, 425, 429, 500, 502, 503, 504, 520, 524)),
        *((HTTP, status, False) for status in (204, 206, 302, 304, 400, 405, 416, 418, 422)),
        *((Fate(Status.FAILED, reason), 0, True) for reason in ("timeout", "connection")),
        (Fate(Status.FAILED, "truncated"), 200, True),
        (Fate(Status.FETCHED), 200, False),
        (Fate(Status.MISSING, "http_404"), 404, False),
        (Fate(Status.REFUSED, "http_403"), 403, False),
        (Fate(Status.REJECTED, "empty"), 200, False),
    ],
)
def test_only_what_may_pass_is_tried_again(fate: Fate, status: int, passes: bool) -> None:
    assert may_pass(fate, status) is passes
    assert (choose_wait(1, 5, fate, status, 0.5) is not None) is passes


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("0", "", 0),
        ("7", "", 7),
        ("301", "", 300),
        ("9" * 5000, "", 300),
        ("", "", 0),
        ("-3", "", 0),
        ("1.5", "", 0),
        ("²", "", 0),
        ("soon", "", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:30 GMT", 7),
        ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:50:00 GMT", 0),
        ("Sun, 06 Nov 2094 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:30 GMT", 300),
        ("Sun, 06 Nov 1994 08:49:37 GMT", "", 0),
        (f"Sun, 06 Nov {10**20} 08:49:37 GMT", "", 0),
    ],
)
def test_retry_after_is_read(value: str, date: str, seconds: float) -> None:
    assert parse_retry_after(value, date) == seconds


def test_without_a_date_header_this_clock_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 784111770.0)
    assert parse_retry_after(formatdate(784111777, usegmt=True)) == 7


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_a_date_without_a_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    plain, named = "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:30 GMT"
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert parse_retry_after(plain, named) == 7
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.slow
@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, ?\d{1,9} [A-Z][a-z]{2} \d{1,9} [\d:]{1,9} \w+"))
def test_no_retry_after_is_ever_unreadable(value: str) -> None:
    assert 0 <= parse_retry_after(value, value) <= 300


def test_turns_are_evenly_spaced_and_the_first_comes_at_once() -> None:
    time = FakeTime()
    pacer = time.pacer(interval=0.5)
    for _ in range(4):
        pacer.wait_for_turn()
    assert time.slept == [0.5, 0.5, 0.5]


def test_an_unused_turn_does_not_make_a_burst() -> None:
    time = FakeTime()
    pacer = time.pacer(interval=0.5)
    pacer.wait_for_turn()
    time.now += 100
    for _ in range(3):
        pacer.wait_for_turn()
    assert time.slept == [0.5, 0.5]


def test_turns_of_many_threads_are_all_different() -> None:
    slept: list[float] = []
    pacer = HostPacer("host", 0.5, 1000.0, slept.append, lambda: 1000.0)
    threads = [threading.Thread(target=pacer.wait_for_turn) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slept) == [0.5 * n for n in range(1, 20)]


def test_a_hold_keeps_everybody_back() -> None:
    time = FakeTime()
    pacer = time.pacer()
    pacer.hold(7)
    pacer.hold(3)  # a shorter one takes nothing back
    pacer.wait_for_turn()
    pacer.wait_for_turn()
    assert time.slept == [7]


def test_a_hold_reaches_those_who_are_already_waiting() -> None:
    time = FakeTime()
    pacer = time.pacer(interval=1.0)
    pacer.wait_for_turn()
    time.meanwhile.append(lambda: pacer.hold(10))
    pacer.wait_for_turn()
    assert time.slept == [1, 9]
    assert time.now == 1010


def test_refusals_in_a_row_stop_everybody() -> None:
    pacer = FakeTime().pacer()
    for status in (403, 401, 403, 404, 500, 403):  # neither 404 nor 500 says that we are welcome
        pacer.note_status(status)
    refused = r"^host refused 5 requests in a row \(HTTP 401\).*NURIE_CONTACT"
    with pytest.raises(SourceRefusesError, match=refused) as raised:
        pacer.note_status(401)
    assert isinstance(raised.value, UserError)
    with pytest.raises(SourceRefusesError):
        pacer.wait_for_turn()
    with pytest.raises(SourceRefusesError):
        pacer.note_status(200)  # an answer that was still under way changes nothing


@pytest.mark.parametrize("success", [200, 206])
def test_a_success_between_refusals_starts_the_count_anew(success: int) -> None:
    pacer = FakeTime().pacer()
    for status in (403, 403, 403, 403, success) * 3:
        pacer.note_status(status)
    pacer.wait_for_turn()


def test_a_host_that_never_answered_is_soon_given_up() -> None:
    time = FakeTime()
    pacer = time.pacer()
    for was_missed in (False, True, True):
        assert pacer.note_missed("no such name") is was_missed
        pacer.wait_for_turn()
    with pytest.raises(SourceDownError, match=r"^host is out of reach.*: no such name\.") as raised:
        pacer.note_missed("no such name")
    assert isinstance(raised.value, UserError)
    assert time.slept == [1, 2, 4]
    pacer.note_reached()  # an answer that was still under way changes nothing
    with pytest.raises(SourceDownError):
        pacer.wait_for_turn()


def test_a_host_that_has_answered_gets_ten_minutes() -> None:
    time = FakeTime()
    pacer = time.pacer()
    pacer.note_reached()
    with pytest.raises(SourceDownError):
        for _ in range(99):
            pacer.note_missed("refused")
            pacer.wait_for_turn()
    assert 600 <= time.now - 1000 < 700
    assert time.slept[:8] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_ten_minutes_begin_with_the_first_miss() -> None:
    time = FakeTime()
    pacer = time.pacer()
    for _ in range(3):
        pacer.note_reached()
        time.now += 1000
        assert pacer.note_missed("refused") is False
        pacer.wait_for_turn()


def test_who_waits_while_the_host_is_given_up_does_not_ask_it() -> None:
    time = FakeTime()
    pacer = time.pacer(interval=1.0)
    pacer.wait_for_turn()

    def give_up() -> None:
        with pytest.raises(SourceRefusesError):
            for _ in range(5):
                pacer.note_status(403)

    time.meanwhile.append(give_up)
    with pytest.raises(SourceRefusesError):
        pacer.wait_for_turn()
    with pytest.raises(SourceRefusesError):
        pacer.wait_for_turn()
    assert time.slept == [1]  # nobody waits for a turn that will not come


def test_misses_of_one_moment_are_one() -> None:
    time = FakeTime()
    pacer = time.pacer()
    for _ in range(50):
        pacer.note_missed("refused")
    pacer.wait_for_turn()
    assert time.slept == [1]


def test_an_answer_between_misses_starts_the_count_anew() -> None:
    time = FakeTime()
    pacer = time.pacer()
    for _ in range(9):
        assert pacer.note_missed("refused") is False
        pacer.wait_for_turn()
        pacer.note_reached()
    assert time.slept == [1] * 9


def test_a_host_that_never_gives_an_answer_is_given_up() -> None:
    pacer = FakeTime().pacer()
    for _ in range(199):
        pacer.note_end(failed=True)
    pacer.note_end(failed=False)
    for _ in range(199):
        pacer.note_end(failed=True)
    with pytest.raises(SourceDownError, match=r"^host .*200 tries in a row"):
        pacer.note_end(failed=True)
    with pytest.raises(SourceDownError):
        pacer.wait_for_turn()
