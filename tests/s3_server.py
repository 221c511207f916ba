"""A real S3 server in a process of its own on loopback: moto's."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest

from tests.file_server import forget_stores

BUCKET = "data-sets"
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIANURIETESTS",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""As users set them in their environment."""


@contextmanager
def serve_s3() -> Iterator[str]:
    """Serve an empty S3 on a free port of 127.0.0.1; yield its URL; stops with the block."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process:  # type: ignore[call-overload]
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def lead_to(url: str, monkeypatch: pytest.MonkeyPatch) -> "fsspec.AbstractFileSystem":
    """Let ``s3://`` lead to a server by a user's own environment, to an empty bucket."""
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": url}).items():
        monkeypatch.setenv(name, value)
    forget_stores()
    files = fsspec.filesystem("s3")
    if files.exists(BUCKET):
        files.rm(BUCKET, recursive=True)
    files.mkdir(BUCKET)
    return files


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert process.poll() is None, "the server has ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server does not answer")
