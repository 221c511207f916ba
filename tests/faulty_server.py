"""A loopback server for what no proper HTTP server does: resets, drips, lies about lengths.

It reads one request after the other off each connection and lets a *script* do the answering.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

Script = Callable[[socket.socket], None]


class FaultyServer:
    """Serves on a port of 127.0.0.1, by default any free one, from ``with`` to its end.

    The n-th request gets the n-th script, those after the last the last one again. A script that
    closes the socket ends the connection; any other leaves it open for the next request.

    Attributes:
        scripts: may be exchanged while the server runs.
        requests: the head of every request, in order of arrival.
        arrivals: when each came, in monotonic seconds.
        num_connections: how many were opened.
    """

    def __init__(self, *scripts: Script, port: int = 0) -> None:
        self.scripts = list(scripts)
        self.requests: list[str] = []
        self.arrivals: list[float] = []
        self.num_connections = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            sock.close()

    def wrap(self, sock: socket.socket) -> socket.socket:
        """Return the socket that is spoken through; a subclass may put TLS around it."""
        return sock

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with self._lock:
            self.num_connections += 1
        try:
            sock = self.wrap(sock)
            self._sockets.append(sock)
            while head := _read_head(sock):
                with self._lock:
                    script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
                    self.requests.append(head)
                    self.arrivals.append(time.monotonic())
                script(sock)
        except OSError:  # the client has gone, or the script has closed
            pass
        finally:
            sock.close()


def stopped_server() -> FaultyServer:
    """Return a server that is no longer there: whoever calls it is refused."""
    with FaultyServer() as server:
        return server


def _read_head(sock: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = sock.recv(4096)
        if not data:
            return ""
        head += data
    return head.decode("latin-1")


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Script:
    """Answer properly; ``Retry_After="7"`` becomes a header ``Retry-After: 7``."""
    names = {"Content-Length": str(len(body))} | {k.replace("_", "-"): headers[k] for k in headers}
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {names[name]}" for name in names)]
    return lambda sock: sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def send(*parts: bytes) -> Script:
    """Send the bytes as they are, then close."""

    def script(sock: socket.socket) -> None:
        for part in parts:
            sock.sendall(part)
        sock.close()

    return script


def reset(data: bytes = b"") -> Script:
    """Send the bytes, then reset the connection."""

    def script(sock: socket.socket) -> None:
        sock.sendall(data)
        time.sleep(0.05)  # a reset overtakes what has not been read yet
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    return script


def drip(head: bytes, parts: Iterable[bytes], seconds: float) -> Script:
    """Send ``head`` at once, then one part every so many seconds, then close."""

    def script(sock: socket.socket) -> None:
        sock.sendall(head)
        for part in parts:
            time.sleep(seconds)
            sock.sendall(part)
        sock.close()

    return script


def hang(data: bytes = b"") -> Script:
    """Send the bytes, then say nothing until the client goes."""

    def script(sock: socket.socket) -> None:
        sock.sendall(data)
        sock.recv(1)
        sock.close()

    return script
