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
from contextlib import redirect_stderr, suppress
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

MAX_UPLOAD = "64mb"

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
    with tempfile.TemporaryDirectory(prefix="nurie-") as folder:
        keep_gradio_home(Path(folder))
        studio = Studio(painter, draw_lines, Path(folder))
        running = bind(build_page(studio, *find_examples(Path(folder))), host, port)
        if not is_loopback(host):
            console.print(f"{host}: whoever reaches this machine can use the page.")
        console.print(f"{running.url} is the page; Ctrl-C ends it.")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt), redirect_stderr(_Harmless(sys.stderr)):
            running.server.run(sockets=[running.socket])  # passes Ctrl-C on once all is answered


class _Harmless(io.TextIOBase):
    """Standard error without what a terminal would obey.

    For some requests that the page never makes Gradio prints a traceback with the client's text.
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
    port = bound.getsockname()[1]
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
        favicon_path=Path(__file__).with_name("icon.svg"),
        theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )
    # Its own launch() sets these. Without them Gradio takes any path of this machine for a file
    # that was dropped on the page, and serves any SVG as its own.
    page.has_launched = page.is_running = True
    guarded = Guard(inner, names_of(host, port))
    config = uvicorn.Config(guarded, log_level="warning", timeout_graceful_shutdown=1)
    return Running(uvicorn.Server(config), bound, f"http://{_bracketed(host)}:{port}")


def names_of(host: str, port: int) -> frozenset[str] | None:
    """Return the names by which browsers may call the server, with the port; None for any.

    Of port 80 the names alone as well: browsers leave it out.
    """
    if not is_loopback(host):
        return None
    names = ("127.0.0.1", "localhost", "[::1]", _bracketed(host))
    return frozenset(f"{name}:{port}" for name in names) | frozenset(names if port == 80 else ())


def _bracketed(host: str) -> str:
    """Return an address or name as URLs have it."""
    return f"[{host}]" if ":" in host else host


def _fetch_no_addresses() -> None:
    """Keep Gradio from downloading what a client names in place of a file."""
    from gradio import processing_utils

    async def refuse(url: str) -> None:
        raise ValueError(f"not fetched: {url}")

    processing_utils.async_ssrf_protected_get = refuse


def keep_gradio_home(folder: Path) -> None:
    """Have Gradio keep what is dropped and painted in a folder, and report to nobody."""
    os.environ |= {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Around an ASGI app: refuses other pages' requests and names, and sends the policy along."""

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
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        named = self._hosts is None or host in self._hosts
        if not named or (origin is not None and origin.partition("://")[2] != host):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"Not asked by the page itself."})
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
