"""Headless Chromium for tests, over its debugging pipe: no port, and no package to drive it."""

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",  # tests may run as root
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
)
READING = """
(() => {
  const inside = r => r.left >= -1 && r.right <= innerWidth + 1;
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = rgb => rgb.slice(0, 3)
    .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    const rgba = channels(getComputedStyle(e).backgroundColor);
    return rgba[3] === 0 && e.parentElement ? ground(e.parentElement) : rgba;
  };
  const contrast = e => {
    const [a, b] = [channels(getComputedStyle(e).color), ground(e)].map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const all = [...document.querySelectorAll('body, body *')].filter(e => e.checkVisibility());
  const texts = all.filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const named = some => some.map(e => e.outerHTML.slice(0, 80));
  return {
    overflow: document.documentElement.scrollWidth - innerWidth,
    outside: named(all.filter(e => !inside(e.getBoundingClientRect()))),
    smallest: Math.min(...texts.map(e => parseFloat(getComputedStyle(e).fontSize))),
    faint: named(texts.filter(e => contrast(e) < 4.5)),
  };
})()
"""
"""How a page reads: pixels that it is too wide by, what sticks out, its smallest letters in pixels,
and texts of less contrast than WCAG 2 asks for."""

_LIMIT = 300  # seconds after which a browser that hangs is killed


class Page:
    """One page in a browser, and what it said and asked for since it was opened.

    Attributes:
        events: the protocol's events, oldest first.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.events: list[dict[str, Any]] = []
        self._process = process
        self._number = 0
        self._session: dict[str, str] = {}
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Give the browser a command of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        while (answer := self._read()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        message = bytearray()
        while (byte := self._process.stdout.read(1)) != b"\0":
            assert byte, "the browser has ended"
            message += byte
        return dict(json.loads(message))

    def open(self, place: Path | str, width: int, scheme: str = "light") -> None:
        """Open a file or an address in a window of a width in pixels, ``light`` or ``dark``."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.events.clear()
        self.send("Page.navigate", url=place.as_uri() if isinstance(place, Path) else place)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def evaluate(self, expression: str) -> Any:
        """Return the plain value of a JavaScript expression in the page."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 30) -> None:
        """Wait until a JavaScript expression is true, or something that counts as true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.05)

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to the input that a CSS selector finds, as a person's file dialog would."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        assert node, f"there is no {selector}"
        self.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def press(self, key: str, code: int) -> None:
        """Press a key and let it go: its name, and its code as Windows has it."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def screenshot(self) -> bytes:
        """Return the whole page as PNG, also what is below the window."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        return base64.b64decode(data)

    def complaints(self) -> list[str]:
        """Return what the page wrote to the console, and the errors that the browser logged."""
        return [
            json.dumps(event["params"])
            for event in self.events
            if event.get("method")
            in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        ]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]


@contextmanager
def open_browser(profile: Path) -> Iterator[Page]:
    """Start Chromium with an empty profile folder; it ends with the block, or with its time."""
    command = ["chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >&2', "sh", *command],  # it talks on 3 and 4
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    guard = Timer(_LIMIT, process.kill)
    guard.start()
    try:
        page = Page(process)
        yield page
        with suppress(AssertionError, BrokenPipeError):
            page.send("Browser.close")
        process.wait(120)
    finally:
        guard.cancel()
        process.kill()
        process.communicate()
