"""Files that are not asked for over HTTP: on this disk, or in a store that fsspec knows."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.client import Download
from pipeline.errors import UserError
from pipeline.records import Fate, Status

SCHEMES = ("file", "s3", "gs", "hf", "az", "memory")
"""Stores that may be named. fsspec knows more, some of which would run or ask anything."""

SHARE_SCHEMES = (
    *(*SCHEMES, "s3a", "gcs", "abfs", "adl", "oss", "oci", "tos", "lakefs"),
    *("sftp", "ssh", "smb", "webdav", "hdfs", "webhdfs", "dbfs"),
)
"""Stores that a whole data set may be pushed to and pulled from: those that keep files."""


_OUTERMOST = {
    **dict.fromkeys(("s3", "s3a", "gs", "gcs", "oss", "oci", "tos"), "bucket"),
    **dict.fromkeys(("az", "abfs"), "container"),
    "lakefs": "repository",
}
"""What stands right after the scheme, where a store has nothing outside of it."""


def scheme_of(place: str) -> str:
    """Return what stands before ``://``, "file" for a plain path."""
    scheme, separator, _ = place.partition("://")
    return scheme if separator else "file"


def check_store(place: str, schemes: Sequence[str] = SCHEMES, *, writes: bool = False) -> None:
    """Check that a path, URL or template of one names a store that can be read, or written.

    Raises:
        UserError: on an unknown scheme, a chain of file systems, a URL without a bucket, or where
            a package or a setting is missing.
    """
    scheme, inside = scheme_of(place), place.partition("://")[2]
    if "::" in place:
        raise UserError(f"{place}: a chain of file systems; name the place where the files lie.")
    if scheme not in schemes:
        use, web = ("written to", ()) if writes else ("read from", ("http", "https"))
        known = ", ".join(f"{s}://" for s in (*web, *schemes) if s != "memory")
        raise UserError(f"{place}: cannot be {use}; possible: a plain path, {known}.")
    if scheme in _OUTERMOST and not inside.partition("/")[0]:
        what = _OUTERMOST[scheme]
        right = f"{scheme}://{what.upper()}/{inside.lstrip('/') or 'NAME'}"
        raise UserError(f"{place}: names no {what}; give one, as in {right}.")
    try:
        file_system(scheme)
    except Exception as error:  # each store has its own
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{place}: {why.rstrip('.')}.") from error


def read_store(place: str, max_bytes: int, span: range | None = None) -> Download:
    """Read a file, or some bytes of it.

    Credentials and the like are the store's own affair: its library takes them from the
    environment (``AWS_ACCESS_KEY_ID``, ``FSSPEC_S3_ANON``, ``HF_TOKEN``), and tries again itself.

    Args:
        place: a plain path, or a URL with one of ``SCHEMES``.
        max_bytes: a longer file, or span, is rejected.
        span: the bytes wanted; all of the file by default. Fewer are ``failed/truncated``.
    """
    started = time.monotonic()
    start, stop = (span.start, span.stop) if span else (0, max_bytes + 1)
    content, fate = b"", Fate(Status.FETCHED)
    try:
        if stop - start <= max_bytes + 1:
            content = read_range(place, start, stop)
    except (FileNotFoundError, NotADirectoryError):
        fate = Fate(Status.MISSING, "no_file")
    except OSError:
        fate = Fate(Status.FAILED, "io")
    else:
        fate = _judge(content, max_bytes, span)
    content = content if fate.status is Status.FETCHED else b""
    return Download(fate, content, num_attempts=1, seconds=time.monotonic() - started)


def _judge(content: bytes, max_bytes: int, span: range | None) -> Fate:
    if len(span or content) > max_bytes:
        return Fate(Status.REJECTED, "too_many_bytes")
    if span is not None and len(content) < len(span):
        return Fate(Status.FAILED, "truncated")
    return Fate(Status.FETCHED) if content else Fate(Status.REJECTED, "empty")


def read_range(place: str, start: int, stop: int) -> bytes:
    """Return some bytes of a file, fewer where it ends before ``stop``.

    Raises:
        OSError: as the store sees fit, FileNotFoundError among them.
    """
    scheme = scheme_of(place)
    if scheme == "file":
        with Path(place.removeprefix("file://")).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)
    # A hub's files would by default be read 5 MB ahead, for each small picture.
    options = {"cache_type": "none"} if scheme == "hf" else {}
    return bytes(file_system(scheme).cat_file(place, start=start, end=stop, **options))


@functools.cache
def file_system(scheme: str) -> Any:
    """Return fsspec's file system of a scheme, one for the whole process.

    Raises:
        ImportError: where its package is missing.
    """
    import fsspec  # takes a while, and most sources need none of it

    return fsspec.filesystem(scheme)
