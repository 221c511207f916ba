"""A folder over HTTP whose server has bad days: it drops, cuts, delays, or denies what it has."""

import random
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATIENCE = 0.2  # seconds that a client of it ought to wait; on a bad day that is too short at times
PASSING = ("drop", "cut", "delay", "429", "500", "503")
STANDING = ("403", "404", "410", "page")
"""Answers after which nobody asks again."""


class FaultyFolder:
    """Serves a folder, with ranges, from ``with`` to its end.

    Which answer meets which fault is drawn from the seed, the path, and how often it was asked for.

    Attributes:
        url: where it is.
        badness: the share of answers that meet a fault.
        met: of each path, the faults that stand, as long as a client lets them.
        num_asked: requests so far, by path.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.badness = 0.0
        self.met: defaultdict[str, set[str]] = defaultdict(set)
        self.num_asked: Counter[str] = Counter()
        self._root, self._seed = root, seed
        self._lock = threading.Lock()
        folder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with suppress(ConnectionError):  # who asked was killed, as planned
                    super().handle()

            def do_GET(self) -> None:
                folder._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultyFolder":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _draw(self, path: str) -> str:
        """Return the fault that an answer meets, "" for none."""
        with self._lock:
            self.num_asked[path] += 1
            chance = random.Random(f"{self._seed} {path} {self.num_asked[path]}")
            fault = chance.choice(PASSING * 2 + STANDING) if chance.random() < self.badness else ""
            if not (self._root / path[1:]).is_file():
                fault = "404"
            if fault in STANDING:
                self.met[path].add(fault)
        return fault

    def _answer(self, to: BaseHTTPRequestHandler) -> None:
        fault = self._draw(to.path)
        if fault == "drop":
            to.close_connection = True
            return
        if fault == "delay":
            time.sleep(1.5 * PATIENCE)
        if fault.isdecimal():
            self._send(to, int(fault), b"")
            return
        data = (self._root / to.path[1:]).read_bytes()
        if fault == "page":
            self._send(to, 200, b"<html>come back later</html>" + bytes(100))
        elif wanted := to.headers.get("Range", "").removeprefix("bytes="):
            first, last = map(int, wanted.split("-"))
            status = 206 if first < len(data) else 416
            self._send(to, status, data[first : last + 1], is_cut=fault == "cut")
        else:
            self._send(to, 200, data, is_cut=fault == "cut")

    def _send(
        self, to: BaseHTTPRequestHandler, status: int, body: bytes, *, is_cut: bool = False
    ) -> None:
        to.send_response(status)
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            to.send_header("Retry-After", "1")
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body[: len(body) // 2] if is_cut else body)
        to.close_connection |= is_cut
