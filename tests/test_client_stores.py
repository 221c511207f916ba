"""Pictures in stores of fsspec's: one out of reach is waited for, as a host is."""

import errno
import socket

import pytest

from tests.clients import (
    FETCHED,
    PICTURE,
    Connect,
    FakeTime,
)

# Stores of fsspec's


def _fall_out_of_reach(monkeypatch: pytest.MonkeyPatch, *errors: Exception | None) -> None:
    """Let a store's library, which has errors of its own, fail with these in turn, then answer."""
    failing = iter(errors)

    def read_range(*_: object) -> bytes:
        if error := next(failing, None):
            raise RuntimeError("cannot connect") from error
        return PICTURE

    monkeypatch.setattr("pipeline.stores.files.read_range", read_range)


def test_a_store_out_of_reach_is_waited_for(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    no_route = OSError(errno.EHOSTUNREACH, "No route to host")
    _fall_out_of_reach(monkeypatch, None, refused, no_route, socket.gaierror(-3, "no name"))
    fake_time = FakeTime()
    client = connect("http://a.org", fake_time, attempts=2)
    for _ in range(2):
        download = client.read_stored("s3://bucket/1.jpg", None, 10**6)
        assert (download.fate, download.content) == (FETCHED, PICTURE)
    assert fake_time.slept == [1, 2, 4]


def test_what_breaks_off_a_store_that_answers_fails_by_itself(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fall_out_of_reach(monkeypatch, ConnectionResetError(), None, ConnectionResetError())
    client = connect("http://a.org", FakeTime(), attempts=1)
    fates = [str(client.read_stored("s3://b/1.jpg", None, 10**6).fate) for _ in range(4)]
    assert fates == ["failed/connection", "fetched", "failed/connection", "fetched"]


def test_a_store_whose_library_is_at_a_loss_is_not_waited_for(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fall_out_of_reach(monkeypatch, ValueError("no such region"))
    with pytest.raises(RuntimeError, match="cannot connect"):
        connect("http://a.org").read_stored("s3://bucket/1.jpg", None, 10**6)
