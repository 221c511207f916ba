"""The server of the page: on one address, and for the page alone.

Other web pages that are open in the same browser can reach loopback too, and so can names that are
made to point there. Both are turned away, and the page is forbidden to load from elsewhere.
"""

import errno
import io
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from rich.console import Console

from model.app.page import Studio, build_page
from model.use.painter import DrawLines, Painter
from pipeline.disk import reason
from pipeline.errors import UserError
from pipeline.words import harmless

if TYPE_CHECKING:
    import gradio
    import uvicorn
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_UPLOAD = 64 * 2**20
"""Bytes of the largest file that may be dropped on the page."""

_UPLOAD = "/gradio_api/upload"
_MAX_BODY = 2**20  # bytes of a request that brings no file, and of what stands around one
_MAX_WAITING = 64  # requests to colour

POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: blob:",
        "style-src 'self' 'unsafe-inline'",
        "script-src 'self' 'unsafe-inline'",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "frame-ancestors 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)
"""Gradio's scripts are its own and inline; whatever they do, the browser asks no other host."""


FindExamples = Callable[[Path], tuple[Sequence[Path], Sequence[Path]]]
"""A folder to write into -> sketches and references to begin with."""


def serve(
    painter: Painter,
    draw_lines: Mapping[str, DrawLines],
    find_examples: FindExamples,
    host: str,
    port: int,
    console: Console,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; what was dropped on it is gone then.

    On the console it says where to look.

    Raises:
        UserError: where the extra ``app`` is missing, or the address cannot be had.
    """
    with (
        tempfile.TemporaryDirectory(prefix="nurie-") as folder,
        redirect_stdout(_Harmless(sys.stdout)),  # before uvicorn's log takes hold of them
        redirect_stderr(_Harmless(sys.stderr)),
    ):
        keep_gradio_home(Path(folder))
        studio = Studio(painter, draw_lines, Path(folder))
        running = bind(build_page(studio, *find_examples(Path(folder))), host, port)
        if not is_loopback(running.socket.getsockname()[0]):
            console.print(f"{host}: whoever reaches this machine can use the page.")
        console.print(f"{running.url} is the page; Ctrl-C ends it.")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            running.server.run(sockets=[running.socket])  # passes Ctrl-C on once all is answered


class _Harmless(io.TextIOBase):
    """A standard stream without what a terminal would obey.

    For some requests that the page never makes Gradio prints a line or a traceback with the
    client's text.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        """Write a text as it is shown."""
        return self._stream.write(harmless(text))

    def flush(self) -> None:
        """Pass it on."""
        self._stream.flush()


class Running(NamedTuple):
    """A server that is bound, but does not answer yet.

    Attributes:
        server: its ``run(sockets=[socket])`` answers until Ctrl-C, or ``should_exit`` is set.
        socket: where it listens.
        url: where to look.
    """

    server: "uvicorn.Server"
    socket: socket.socket
    url: str


def bind(page: "gradio.Blocks", host: str, port: int) -> Running:
    """Bind a page to an address or name of this machine, at a port, 0 being any that is free.

    Raises:
        UserError: where the address cannot be had.
    """
    import gradio
    import uvicorn
    from fastapi import FastAPI

    if not host:  # a socket would listen on all that the machine has
        raise UserError(
            "--host '': names no address, as a variable that is not set does. It takes an address "
            "of this machine, or 0.0.0.0 for all that it has."
        )
    _fetch_no_addresses()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family)
    except OSError as error:
        advice = "--port 0 takes any port"
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):  # it is the host that is wrong
            advice = "--host takes an address of this machine, or 0.0.0.0 for all that it has"
        raise UserError(
            f"{host} port {port}: cannot listen there: {reason(error)}. {advice}."
        ) from error
    address, port = bound.getsockname()[:2]
    inner = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        inner,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,  # what is to be said is said on the page
        max_file_size=MAX_UPLOAD,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        mcp_server=False,
        css_paths=[Path(__file__).with_name("page.css")],
        head=f"<script>{Path(__file__).with_name('page.js').read_text(encoding='utf-8')}</script>",
        favicon_path=Path(__file__).with_name("icon.svg"),
        theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )
    # Its own launch() sets these. Without them Gradio takes any path of this machine for a file
    # that was dropped on the page, and serves any SVG as its own.
    page.has_launched = page.is_running = True
    # Past the queue any number of pictures would be coloured at once.
    page.queue(max_size=_MAX_WAITING, api_open=False)
    guarded = Guard(inner, names_of(host, port, address))
    config = uvicorn.Config(guarded, log_level="warning", timeout_graceful_shutdown=1)
    return Running(uvicorn.Server(config), bound, f"http://{_bracketed(host)}:{port}")


def names_of(host: str, port: int, address: str = "") -> frozenset[str] | None:
    """Return the names by which browsers may call the server, with the port; None for any.

    Of port 80 the names alone as well: browsers leave it out.

    Args:
        host: address or name that the server was given.
        port: where it listens.
        address: that the host stands for; "" where it is one itself.
    """
    if not is_loopback(address or host):
        return None
    names = ("127.0.0.1", "localhost", "[::1]", _bracketed(host.lower()))  # as browsers write it
    return frozenset(f"{name}:{port}" for name in names) | frozenset(names if port == 80 else ())


def _bracketed(host: str) -> str:
    """Return an address or name as URLs have it."""
    return f"[{host}]" if ":" in host else host


def _fetch_no_addresses() -> None:
    """Keep Gradio from downloading what a client names in place of a file, and from passing it on.

    For the latter, ``/gradio_api/file=URL``, it would first look the host up.
    """
    import safehttpx
    from gradio import processing_utils

    async def refuse(place: str) -> None:
        raise ValueError(f"not fetched: {place}")

    processing_utils.async_ssrf_protected_get = safehttpx.async_validate_url = refuse


def keep_gradio_home(folder: Path) -> None:
    """Have Gradio keep what is dropped and painted in a folder, and report to nobody."""
    os.environ |= {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; of names ``localhost`` alone is known."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Around an ASGI app: refuses other pages' requests and names, and sends the policy along.

    Nor does it pass on more than the page sends: Gradio would keep all of it in memory.
    """

    def __init__(self, app: "ASGIApp", hosts: frozenset[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request, or pass it on."""
        if scope["type"] == "websocket":  # nothing of the page is one
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_asked_by_page(headers):
            await _refuse(send, 403, b"Not asked by the page itself.")
            return
        if _is_too_long(scope["path"], headers):
            await _refuse(send, 413, b"More than the page sends.")
            return

        async def send_with_policy(message: "Message") -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, receive, send_with_policy)

    def _is_asked_by_page(self, headers: Mapping[bytes, str]) -> bool:
        """Whether a browser asks for the page, or the page asks.

        For a picture or script another page asks without an Origin; links to here may be followed.
        """
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if self._hosts is not None and host not in self._hosts:
            return False
        if origin is not None and origin.partition("://")[2] != host:
            return False
        is_own = headers.get(b"sec-fetch-site", "none") in ("none", "same-origin")
        return is_own or headers.get(b"sec-fetch-dest") == "document"


def _is_too_long(path: str, headers: Mapping[bytes, str]) -> bool:
    """Whether a request brings more than the page's do, or does not say how much."""
    most = _MAX_BODY + (MAX_UPLOAD if path == _UPLOAD else 0)
    return b"transfer-encoding" in headers or int(headers.get(b"content-length", 0)) > most


async def _refuse(send: "Send", status: int, why: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": why})
