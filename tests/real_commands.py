"""Real commands in processes of their own, and a server that holds their requests back."""

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pipeline.work import Work
from tests.crashing import contents, fetch, make_source, prepare

ROOT = Path(__file__).resolve().parent.parent

LIMIT = 300  # seconds after which a command that hangs fails its test


class Gate:
    """A folder over HTTP that answers some requests and then holds back until it is opened.

    Attributes:
        url: where it is.
        is_full: set once a request is held back.
        num_waiting: requests that were.
    """

    def __init__(self, directory: Path, num_free: int) -> None:
        self.is_full = threading.Event()
        self.num_waiting = 0
        self._opened = threading.Event()
        self._num_left = num_free
        gate = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                gate.wait()
                try:
                    super().do_GET()
                except ConnectionError:
                    self.close_connection = True  # who asked is gone, as planned

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Handler, directory=str(directory))
        )
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def wait(self) -> None:
        self._num_left -= 1
        if self._num_left < 0:
            self.num_waiting += 1
            self.is_full.set()
            self._opened.wait(LIMIT)

    def open(self) -> None:
        self._opened.set()

    def __enter__(self) -> "Gate":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True, slots=True)
class Source:
    """Where the recipe, metadata and pictures are, and what an undisturbed run makes of them."""

    root: Path
    expected: dict[str, bytes]

    def fetch(self, gate: Gate, work: Work, num_workers: int = 1) -> list[str]:
        images = f"{gate.url}/original/{{id}}.jpg"
        return [*self.command("fetch", work, num_workers), "--images", images]

    def command(self, name: str, work: Work, num_workers: int = 1) -> list[str]:
        recipe, workers = str(self.root / "recipe.toml"), str(num_workers)
        return [name, recipe, "--work", str(work.root), "--workers", workers]


def make_undisturbed(root: Path) -> Source:
    """Return a source on disk, and what runs inside this process make of it."""
    make_source(root)
    work = Work(root / "undisturbed")
    fetch(root, work)
    prepare(root, work)
    return Source(root, contents(work))


def start(
    arguments: list[str], before: Callable[[], object] | None = None
) -> "subprocess.Popen[str]":
    """Start a command as the leader of a process group, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "cli.py", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=before,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Return a command's exit code and all that it said."""
    try:
        said, _ = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    return process.returncode, said


def run_command(arguments: list[str]) -> None:
    code, said = finish(start(arguments))
    assert code == 0, said
