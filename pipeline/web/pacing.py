"""When to ask a host: turns and holds for all threads, back-off for one URL, and when to stop."""

import contextlib
import email.utils
import threading
import time
from collections.abc import Callable
from datetime import UTC

from pipeline.errors import UserError
from pipeline.records import Fate, Status

Sleep = Callable[[float], object]
Clock = Callable[[], float]

_MAX_REFUSALS = 5  # 401 and 403 in a row: enough to know that it is not about one picture
_MAX_BACKOFF = 60  # seconds
_MAX_HOLD = 300.0  # seconds: the longest Retry-After that is honoured
_MAX_MISSES = 4  # times in a row that a host which never answered may be out of reach ...
_MAX_OUTAGE = 600.0  # ... and seconds that one may which has answered: a router starts anew
_MAX_FAILURES = 200  # tries in a row without an answer that stands: a server that is ill, not busy

REFUSED_PICTURES = (
    "Set NURIE_CONTACT so that its operators can reach you, lower source.rate, or ask them; then "
    "run again."
)
"""What to do about a host of pictures that turns everything down."""


class SourceRefusesError(UserError):
    """A host turns everything down. To go on would be hammering, so the run must stop."""


class SourceDownError(UserError):
    """Nobody is there. Every other picture would fail the same way, so the run must stop."""


def may_pass(fate: Fate, http_status: int) -> bool:
    """Whether another try, soon, has a chance: broken transport, 408, 425, 429, 5xx."""
    if fate.reason == "http":
        return http_status in (408, 425, 429) or http_status >= 500
    return fate.status is Status.FAILED


def choose_wait(
    attempt: int, max_attempts: int, fate: Fate, http_status: int, draw: float
) -> float | None:
    """Return how many seconds to wait before the next try, or None to let the fate stand.

    Exponential back-off with full jitter: uniform from 0 to 1, 2, 4 ... 60 s. What a Retry-After
    asks for is not decided here: it holds the host back, for all threads.

    Args:
        attempt: number of the try that came to ``fate``, from 1.
        max_attempts: tries in all.
        fate: what the try came to.
        http_status: of its answer, 0 for none.
        draw: uniform in [0, 1).
    """
    if attempt >= max_attempts or not may_pass(fate, http_status):
        return None
    return draw * min(_MAX_BACKOFF, 1 << (attempt - 1))


def parse_retry_after(value: str, date: str = "") -> float:
    """Return the seconds that a Retry-After header asks for, 0 to 300; 0 where it is unreadable.

    Args:
        value: the header: seconds or an HTTP date (RFC 9110, section 10.2.3).
        date: the answer's Date header. The date is compared with it, so that this machine's clock
            need not be right; where there is none, with this machine's clock.
    """
    if value.isascii() and value.isdigit():
        return min(float(value), _MAX_HOLD)
    until, now = _parse_date(value), _parse_date(date)
    if until is None:
        return 0.0
    return min(max(0.0, until - (time.time() if now is None else now)), _MAX_HOLD)


class HostPacer:
    """What all threads share about one host: whose turn it is, and whether it refuses us.

    Args:
        name: the host's.
        interval: seconds from one turn to the next.
        start: when the first one is.
        sleep: waits some seconds.
        clock: monotonic seconds.
        named_in: where people gave the name, for errors.
        if_refused: what to do where it turns everything down, for errors.
    """

    def __init__(
        self,
        name: str,
        interval: float,
        start: float,
        sleep: Sleep,
        clock: Clock,
        named_in: str = "source.images, source.hosts",
        if_refused: str = REFUSED_PICTURES,
    ) -> None:
        self.name = name
        self._named_in = named_in
        self._if_refused = if_refused
        self._interval = interval
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._next_turn = start
        self._held_until = start
        self._num_refusals = 0
        self._refused_with = 0  # the last of them
        self._was_reached = False
        self._num_misses = 0
        self._missed_since = start
        self._why_down = ""
        self._num_failures = 0

    def wait_for_turn(self) -> None:
        """Wait until a request may go out. Turns are evenly spaced; an unused one is lost."""
        while True:
            with self._lock:
                self._check()
                now = self._clock()
                turn = max(now, self._next_turn, self._held_until)
                self._next_turn = turn + self._interval
            if turn > now:
                self._sleep(turn - now)
            with self._lock:
                self._check()
                if turn >= self._held_until:  # else the host was held back during the sleep
                    return

    def hold(self, seconds: float) -> None:
        """Let nobody ask for some seconds."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)

    def note_status(self, http_status: int) -> None:
        """Count refusals in a row; after too many every thread is told to stop."""
        with self._lock:
            if http_status in (401, 403):
                self._num_refusals += 1
                self._refused_with = http_status
            elif http_status in (200, 206) and self._num_refusals < _MAX_REFUSALS:
                self._num_refusals = 0
            self._check()

    def note_reached(self) -> None:
        """Note that the host has answered, whatever it was."""
        with self._lock:
            self._was_reached = True
            self._num_misses = 0

    def note_missed(self, why: str) -> bool:
        """Note that no connection was made, and hold the host back: 1, 2, 4 ... 60 s.

        Misses of one moment, by many threads, are one. A host that has never answered is given up
        after four: its name is wrong, or there is no network. One that has answered gets ten
        minutes to come back.

        Returns:
            Whether the host was out of reach before and has not answered since, so that this try
            says nothing about what was asked for.

        Raises:
            SourceDownError: when it is given up, and from then on.
        """
        with self._lock:
            now = self._clock()
            was_missed = self._num_misses > 0
            if now >= self._held_until:
                self._missed_since = self._missed_since if was_missed else now
                self._num_misses += 1
                self._held_until = now + min(_MAX_BACKOFF, 1 << (self._num_misses - 1))
                lasts_long = now - self._missed_since >= _MAX_OUTAGE
                if lasts_long if self._was_reached else self._num_misses >= _MAX_MISSES:
                    self._why_down = why
            self._check()
            return was_missed

    def note_end(self, failed: bool) -> None:
        """Note how a try ended; after 200 failed ones in a row the host is given up.

        Args:
            failed: it ended in a time-out, a broken connection, or an answer that may pass.

        Raises:
            SourceDownError: when it is given up, and from then on.
        """
        with self._lock:
            self._num_failures = self._num_failures + 1 if failed else 0
            if self._num_failures >= _MAX_FAILURES:
                self._why_down = (
                    f"{_MAX_FAILURES} tries in a row ended in time-outs, broken connections, "
                    "HTTP 429 or 5xx"
                )
            self._check()

    def _check(self) -> None:
        if self._why_down:
            raise SourceDownError(
                f"{self.name} is out of reach, again and again: {self._why_down}. Look at the "
                f"network and at the host's name ({self._named_in}), then run again: what is "
                "finished is kept."
            )
        if self._num_refusals >= _MAX_REFUSALS:
            raise SourceRefusesError(
                f"{self.name} refused {_MAX_REFUSALS} requests in a row (HTTP "
                f"{self._refused_with}), so it is left alone. {self._if_refused}"
            )


def _parse_date(value: str) -> float | None:
    with contextlib.suppress(ValueError, OverflowError):
        date = email.utils.parsedate_to_datetime(value)
        # One of HTTP's three forms names no zone; it is not in this machine's.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return None
