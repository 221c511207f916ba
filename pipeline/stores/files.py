"""Files that are not asked for over HTTP: on this disk, or in a store that fsspec knows."""

import errno
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, WholeFilesOnlyError, install
from pipeline.records import Download, Fate, Status
from pipeline.urls import scheme_of, without_password

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
    **dict.fromkeys(("hf", "lakefs"), "repository"),
    **dict.fromkeys(("sftp", "ssh", "smb", "webhdfs"), "host"),
}
"""What a URL must name right after its scheme, by the scheme."""

_EXTRAS = {"s3": "s3", "s3a": "s3", "sftp": "sftp", "ssh": "sftp", "hf": "hub"}
"""By scheme, the extra with its library; of the other stores none was tried."""


def check_store(place: str, schemes: Sequence[str] = SCHEMES, *, writes: bool = False) -> None:
    """Check that a path, URL or template of one names a store that can be read, or written.

    Raises:
        UserError: on an unknown scheme, a chain of file systems, a URL without a bucket, or where
            a package or a setting is missing.
    """
    scheme, inside, shown = scheme_of(place), place.partition("://")[2], without_password(place)
    if "::" in place:
        raise UserError(f"{shown}: a chain of file systems; name the place where the files lie.")
    if scheme not in schemes:
        use, web = ("written to", ()) if writes else ("read from", ("http", "https"))
        known = ", ".join(f"{s}://" for s in (*web, *schemes) if s != "memory")
        raise UserError(f"{shown}: cannot be {use}; possible: a plain path, {known}.")
    if scheme in _OUTERMOST and not inside.partition("/")[0]:
        what = _OUTERMOST[scheme]
        names = "datasets/OWNER/NAME" if scheme == "hf" else what.upper()
        right = f"{scheme}://{names}/{inside.lstrip('/') or 'NAME'}"
        raise UserError(f"{shown}: names no {what}; give one, as in {right}.")
    try:
        file_system(place)
    except Exception as error:  # each store has its own
        raise UserError(f"{shown}: {_why_not(scheme, error)}.") from error


def _why_not(scheme: str, error: Exception) -> str:
    """Return why a store cannot be had: its library or a setting is missing, or what that says."""
    text = first_line(error)
    if isinstance(error, ImportError) and scheme in _EXTRAS:
        return f"needs a package: {install(_EXTRAS[scheme])}"
    if isinstance(error, TypeError) and "missing" in text:  # not all of them take it from the URL
        names = (f"FSSPEC_{scheme}_{name}".upper() for name in re.findall(r"'(\w+)'", text))
        return f"set {', '.join(names)}"
    return text


def first_line(error: BaseException) -> str:
    """Return the first line of what a store's library says, without its full stop."""
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return without_password(lines[0] if lines else type(error).__name__).rstrip(".")


_WHILE_DOWN = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EBUSY, getattr(errno, "EREMOTEIO", 0))
"""Numbers of the system's errors that pass; the last two are s3fs's for S3's 503 and 500."""


class UnreachableError(Exception):
    """A store is out of reach, or busy, as far as its library can tell."""


def read_store(place: str, max_bytes: int, span: range | None = None) -> Download:
    """Read a file, or some bytes of it.

    Credentials and the like are the store's own affair: its library takes them from the
    environment (``AWS_ACCESS_KEY_ID``, ``FSSPEC_S3_ANON``, ``HF_TOKEN``), and tries again itself.

    Args:
        place: a plain path, or a URL with one of ``SCHEMES``.
        max_bytes: a longer file, or span, is rejected.
        span: the bytes wanted; all of the file by default. Fewer are ``failed/truncated``.

    Raises:
        UnreachableError: where a store, not this disk, could not be connected to.
        UserError: where the store's library lacks credentials, or it serves no ranges of bytes.
    """
    started = time.monotonic()
    start, stop = (span.start, span.stop) if span else (0, max_bytes + 1)
    content, fate = b"", Fate(Status.FETCHED)
    try:
        if stop - start <= max_bytes + 1:
            content = read_range(place, start, stop)
    except (FileNotFoundError, NotADirectoryError):
        fate = Fate(Status.MISSING, "no_file")
    except Exception as error:  # each store has its own, beside the system's
        if "Credentials" in type(error).__name__:
            raise UserError(
                f"{without_password(place)}: {first_line(error)}. Put them into the environment, "
                f"or set FSSPEC_{scheme_of(place).upper()}_ANON=true where none are needed."
            ) from error
        if scheme_of(place) != "file" and (why := why_unavailable(error)):
            raise UnreachableError(why) from error
        if not isinstance(error, OSError):
            raise
        fate = Fate(Status.FAILED, "io")
    else:
        fate = _judge(content, max_bytes, span)
    content = content if fate.status is Status.FETCHED else b""
    return Download(fate, content, num_attempts=1, seconds=time.monotonic() - started)


def why_unavailable(error: BaseException | None) -> str:
    """Return why a store does not answer, from what its library raised; "" where it did.

    Each library has its own errors; the system's, from which they come, are alike.
    """
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
            return first_line(error)
        if isinstance(error, OSError) and error.errno in _WHILE_DOWN:
            return first_line(error)
        error = error.__cause__ or error.__context__
    return ""


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
        WholeFilesOnlyError: where the store gives more than the bytes that it is asked for.
    """
    scheme = scheme_of(place)
    if scheme == "file":
        with Path(place.removeprefix("file://")).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)
    # A hub's files would by default be read 5 MB ahead, for each small picture.
    options = {"cache_type": "none"} if scheme == "hf" else {}
    files, path = file_system(place)
    content = bytes(files.cat_file(path, start=start, end=stop, **options))
    if start and len(content) > stop - start:  # as often as there are ranges, all of it would come
        raise WholeFilesOnlyError(
            f"{without_password(place)}: its store sends whole files only, or more than the bytes "
            "that it is asked for. Use one that serves ranges of bytes."
        )
    return content[: stop - start]


def file_system(place: str) -> tuple[Any, str]:
    """Return fsspec's file system of a place, and the place's name within it.

    It is connected to the URL's host and port, as the URL's user, and kept by fsspec: one for each
    thread, unless many threads may share it.

    Raises:
        Exception: as the store sees fit; ImportError where its package is missing.
    """
    from fsspec.core import url_to_fs  # takes a while, and most sources need none of it

    found: tuple[Any, str] = url_to_fs(place)
    return found
