"""What an HTTP response comes to: its fate, and its bytes up to a cap."""

import contextlib
import io
import os

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from pipeline.records import Fate, Status

_CHUNK = 64 * 2**10  # bytes a read where no length is announced, and the most of an error page


_FATES = {
    200: Fate(Status.FETCHED),
    401: Fate(Status.REFUSED, "http_401"),
    403: Fate(Status.REFUSED, "http_403"),
    404: Fate(Status.MISSING, "http_404"),
    410: Fate(Status.MISSING, "http_410"),
    451: Fate(Status.REFUSED, "http_451"),
}


def fate_of_status(http_status: int) -> Fate:
    """Return the fate that an answer's status alone decides."""
    return _FATES.get(http_status, Fate(Status.FAILED, "http"))


def read_body(response: requests.Response, max_bytes: int) -> tuple[Fate, bytes]:
    """Read a body up to the cap; first of all the length that the server announces is checked."""
    too_many = Fate(Status.REJECTED, "too_many_bytes")
    if "," in response.headers.get("Content-Encoding", ""):
        return Fate(Status.FAILED, "truncated"), b""  # layers: a KiB may hold millions of nothings
    length = response.raw.length_remaining or 0
    if length > max_bytes:
        return too_many, b""
    try:
        # A body whose length is announced comes as one chunk, which is not copied. The length of a
        # compressed one does not tell how long it is once decoded.
        whole = 0 if "content-encoding" in response.headers else length
        chunks = response.raw.stream(whole or _CHUNK, decode_content=True)
        content = io.BytesIO(next(chunks, b""))
        num_bytes = content.seek(0, os.SEEK_END)
        for chunk in chunks:  # kept apart, chunks of two bytes would take twenty times as many
            num_bytes += content.write(chunk)
            if num_bytes > max_bytes:
                break
    except ReadTimeoutError:
        return Fate(Status.FAILED, "timeout"), b""
    except (HTTPError, ValueError):  # a ValueError: a chunk of a negative size
        return Fate(Status.FAILED, "truncated"), b""
    if num_bytes > max_bytes:
        return too_many, b""
    return Fate(Status.FETCHED) if num_bytes else Fate(Status.REJECTED, "empty"), content.getvalue()


def drain(response: requests.Response) -> None:
    """Read a short body that nobody wants, so that the connection can be used again."""
    with contextlib.suppress(HTTPError, ValueError):
        response.raw.read(_CHUNK)
