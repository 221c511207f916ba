"""A folder over real HTTP on loopback: for the demo, the tests and the benchmarks."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as real servers do

    def log_message(self, *_: object) -> None:
        """Say nothing: the client tells what came of a request."""


@contextmanager
def serve_folder(directory: Path) -> Iterator[str]:
    """Serve ``directory`` on a free port of 127.0.0.1 and yield its URL; stops with the block."""
    handler = partial(_Handler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
