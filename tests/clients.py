"""Clients of one server, quick to give up, and what they bring."""

import time
from collections.abc import Callable
from typing import Any

from pipeline.recipe import SourceSettings
from pipeline.records import Fate, Status
from pipeline.web.client import Client
from pipeline.web.hosts import allowed_hosts
from pipeline.web.pacing import HostPacer

Connect = Callable[..., Client]
"""``make_client`` whose clients are closed at the end of the test: the fixture ``connect``."""

FETCHED = Fate(Status.FETCHED)
NOT_ALLOWED = Fate(Status.REFUSED, "host_not_allowed")
PICTURE = bytes(range(256)) * 300

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GZIP = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"


class FakeTime:
    """A clock that only ``sleep`` moves; ``meanwhile`` happens during the next sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.meanwhile: list[Callable[[], None]] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.meanwhile:
            self.meanwhile.pop()()
        self.now += seconds

    def pacer(self, interval: float = 0.0) -> HostPacer:
        return HostPacer("host", interval, self.now, self.sleep, self.clock)


def make_client(
    url: str, fake_time: FakeTime | None = None, *hosts: str, share: float = 1.0, **changes: Any
) -> Client:
    """A client for one server, with short time-outs, and jitter that draws its upper end."""
    settings: dict[str, Any] = {"rate": 0, "attempts": 1, "timeout": 0.1, **changes}
    source = SourceSettings(images=f"{url}/{{id}}", hosts=hosts, **settings)
    fake: dict[str, Any] = {}
    if fake_time:
        fake = {"sleep": fake_time.sleep, "clock": fake_time.clock}
    return Client(source, allowed_hosts(source), share, draw=lambda: 1.0, **fake)


def wait_until(condition: Callable[[], object]) -> None:
    """Return when it holds; fail after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
