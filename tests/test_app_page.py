"""The page in a real browser: drop, colour, guide, download, and files that are none."""

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import numpy as np
import pytest
import requests
from PIL import Image

from model.app.page import Studio, build_page
from model.app.server import bind, keep_gradio_home
from model.use.painter import Painter
from model.use.pictures import Pixels, open_picture
from pipeline.pictures.sketch import dodge, line_drawer
from tests.browser import READING, Page, open_browser
from tests.painters import tinting_painter
from tests.pictures import draw_picture, encoded

pytest.importorskip("gradio", reason="Gradio is not installed")
pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="Chromium is not installed"
)

TINTING: Painter = tinting_painter(recipe={"name": "<i>tints</i>"})
GO_ON = Event()  # until it is set, a picture is being painted
GO_ON.set()


def paint_when_told(sketch: Pixels, reference: Pixels, guidance: float) -> Pixels:
    assert GO_ON.wait(120)
    return TINTING.answer(sketch, reference, guidance)


PAINTER = replace(TINTING, answer=paint_when_told)
RESULT = "#result img"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of files to drop."""
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(dodge(draw_picture(1, 300, 240), 3.5)).save(folder / "sketch.png")
    Image.new("RGB", (80, 60), (220, 40, 40)).save(folder / "red.png")
    Image.new("RGB", (80, 60), (120, 120, 120)).save(folder / "grey.png")
    (folder / "picture.png").write_bytes(encoded(draw_picture(2), "png"))
    (folder / "torn.png").write_bytes(encoded(draw_picture(2), "png")[:300])
    (folder / "notes.txt").write_text("hello")
    return folder


@pytest.fixture(scope="module", autouse=True)
def nobody_else() -> Iterator[None]:
    """Hold the server to loopback: it looks up no name and connects to no other machine."""
    reached: list[object] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def watched_connect(self: socket.socket, address: object) -> None:
        reached.append(address)
        connect(self, address)  # type: ignore[arg-type]

    def watched_look_up(host: object, *rest: object, **named: object) -> object:
        reached.append((host,))
        return look_up(host, *rest, **named)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watched_connect)
        patch.setattr(socket, "getaddrinfo", watched_look_up)
        yield
    others = [a for a in reached if not (isinstance(a, tuple) and a[0] in ("127.0.0.1", None))]
    assert others == []


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[str]:
    """Serve the page and return its address."""
    before = dict(os.environ)
    folder = tmp_path_factory.mktemp("served")
    keep_gradio_home(folder)
    drawers = {method: line_drawer(method, {}) for method in ("dodge", "xdog")}
    Image.new("RGB", (50, 50), (30, 90, 200)).save(folder / "blue.png")
    studio = Studio(PAINTER, drawers, folder)
    running = bind(
        build_page(studio, [files / "sketch.png"], [folder / "blue.png"]), "127.0.0.1", 0
    )
    thread = Thread(target=running.server.run, kwargs={"sockets": [running.socket]})
    thread.start()
    try:
        yield running.url
    finally:
        running.server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page, url: str) -> Page:
    """Return the page as it is when it has just been opened."""
    browser.open(url, 1280)
    browser.wait_for("document.querySelector('#reference input[type=file]')")
    return browser


def drop(page: Page, place: str, path: Path) -> None:
    """Give a file to a place, also where one lies already."""
    if page.evaluate(f"!document.querySelector('#{place} input[type=file]')"):
        page.evaluate(f"document.querySelector('#{place} [aria-label=\"Clear\"]').click()")
        page.wait_for(f"document.querySelector('#{place} input[type=file]')")
    page.choose_file(f"#{place} input[type=file]", path)


def said(page: Page, *words: str) -> str:
    """Wait until the page says something with these words, and return it."""
    text = "document.querySelector('#said').innerText"
    page.wait_for(" && ".join(f"{text}.includes({word!r})" for word in words))
    return str(page.evaluate(text))


def shown(page: Page) -> str:
    """Return the address of the result that is shown."""
    page.wait_for(f"document.querySelector('{RESULT}')?.naturalWidth > 0")
    return str(page.evaluate(f"document.querySelector('{RESULT}').src"))


def pixels_of(page: Page) -> list[int]:
    """Return the most frequent colour of the result as the browser shows it."""
    shown(page)
    return list(
        page.evaluate(f"""(() => {{
          const image = document.querySelector('{RESULT}');
          const canvas = Object.assign(document.createElement('canvas'),
            {{width: image.naturalWidth, height: image.naturalHeight}});
          const context = canvas.getContext('2d');
          context.drawImage(image, 0, 0);
          const data = context.getImageData(0, 0, canvas.width, canvas.height).data, seen = {{}};
          for (let i = 0; i < data.length; i += 4) {{
            const key = [data[i], data[i + 1], data[i + 2]].join();
            seen[key] = (seen[key] || 0) + 1;
          }}
          return Object.entries(seen).sort((a, b) => b[1] - a[1])[0][0].split(',').map(Number);
        }})()""")
    )


@pytest.mark.slow
def test_drop_colour_download(page: Page, files: Path, tmp_path: Path) -> None:
    assert said(page, "Waiting") == "Waiting for a sketch and a reference."
    page.wait_for("document.querySelector('#download')?.disabled")
    drop(page, "sketch", files / "sketch.png")
    said(page, "Waiting for a reference.")
    drop(page, "reference", files / "red.png")
    said(page, "240 x 300 pixels.")
    assert pixels_of(page) == pytest.approx([220, 40, 40], abs=2)

    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.evaluate("document.querySelector('#download').click()")
    path = tmp_path / "sketch-coloured.png"
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, list(tmp_path.iterdir())
        time.sleep(0.05)
    red = PAINTER.look_at(open_picture(files / "red.png"), "red")
    expected = PAINTER.paint(open_picture(files / "sketch.png"), red)
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(expected))


def test_pick_an_example_and_guide(page: Page) -> None:
    for place in ("sketch", "reference"):
        column = f"document.querySelector('#{place}').closest('.column')"
        page.wait_for(f"{column}.querySelector('.gallery-item')")
        page.evaluate(f"{column}.querySelector('.gallery-item').click()")
    said(page, "240 x 300 pixels.")
    assert pixels_of(page) == pytest.approx([30, 90, 200], abs=2)
    before = shown(page)
    slider = "document.querySelector('#guidance input[type=range]')"
    page.evaluate(f"""(() => {{
      {slider}.value = 0;
      {slider}.dispatchEvent(new Event('input', {{bubbles: true}}));
      {slider}.dispatchEvent(new PointerEvent('pointerup', {{bubbles: true}}));
    }})()""")
    page.wait_for(f"document.querySelector('{RESULT}')?.src != {before!r}")
    assert pixels_of(page) == [255, 255, 255]


def test_what_is_shown_while_it_paints_is_not_passed_off_as_done(page: Page, files: Path) -> None:
    drop(page, "reference", files / "red.png")
    drop(page, "sketch", files / "sketch.png")
    said(page, "240 x 300 pixels.")
    GO_ON.clear()
    try:
        drop(page, "reference", files / "grey.png")
        assert said(page, "Colouring") == "Colouring…"
        page.wait_for("document.querySelector('#download').disabled")
    finally:
        GO_ON.set()
    said(page, "grey.png: has no colour")
    page.wait_for("!document.querySelector('#download').disabled")


def test_a_failure_is_said(
    page: Page, files: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    drop(page, "sketch", files / "sketch.png")
    said(page, "Waiting for a reference.")
    with monkeypatch.context() as patch:
        patch.setattr(GO_ON, "wait", lambda _: False)
        drop(page, "reference", files / "red.png")
        said(page, "That failed; the server's console says how.")
    assert "AssertionError" in capfd.readouterr().err
    page.wait_for("document.querySelector('.gallery-item')")
    page.evaluate("document.querySelector('.gallery-item').click()")
    said(page, "240 x 300 pixels.")


TAB, RIGHT, UP, BACKSPACE = ("Tab", 9), ("ArrowRight", 39), ("ArrowUp", 38), ("Backspace", 8)


@pytest.mark.slow
def test_it_can_be_worked_by_keys(page: Page, files: Path) -> None:
    drop(page, "reference", files / "red.png")
    drop(page, "sketch", files / "picture.png")
    said(page, "picture.png: is a colour picture, not a sketch.")
    page.evaluate("document.querySelector('#method input').focus()")
    page.press(*UP)  # from the first to the last
    said(page, "120 x 120 pixels.")
    page.wait_for("document.querySelector('#method input[value=xdog]').checked")
    before = shown(page)
    page.evaluate("document.querySelector('#guidance input[type=range]').focus()")
    page.press(*RIGHT)
    page.wait_for(f"document.querySelector('{RESULT}')?.src != {before!r}")


@pytest.mark.parametrize(("typed", "taken"), [("9", "3"), ("", "0")])
def test_a_number_that_is_no_guidance_is_not_painted(
    page: Page, files: Path, typed: str, taken: str
) -> None:
    drop(page, "reference", files / "red.png")
    drop(page, "sketch", files / "sketch.png")
    said(page, "240 x 300 pixels.")
    before = shown(page)
    field = "document.querySelector('#guidance input[type=number]')"
    page.evaluate(f"({field}.focus(), {field}.select())")
    page.press(*BACKSPACE)
    page.send("Input.insertText", text=typed)
    page.press(*TAB)
    page.wait_for(f"{field}.value == {taken!r}")
    page.wait_for(f"document.querySelector('{RESULT}')?.src != {before!r}")
    said(page, "240 x 300 pixels.")
    assert "rror" not in page.evaluate("document.body.innerText")


def test_it_can_be_heard(page: Page, files: Path) -> None:
    page.wait_for("document.querySelectorAll('.gallery-item').length == 2")
    drop(page, "sketch", files / "sketch.png")
    page.wait_for("document.querySelector('#sketch img')")
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    heard = {(node["role"]["value"], node["name"]["value"]) for node in tree if not node["ignored"]}
    assert {
        *(("group", name) for name in ("Sketch", "Reference", "Result", "The sketch is")),
        *(("button", name) for name in ("Sketch 1", "Reference 1", "Download")),
        ("button", "Drop a reference whose colours to take"),
        ("image", "Sketch"),
    } <= heard
    pressed = ("button", "radio", "slider", "spinbutton")
    assert [role for role, name in heard if role in pressed and not name] == []
    page.evaluate("(window.region = document.querySelector('[role=status]:has(.said)'), 0)")
    drop(page, "reference", files / "red.png")
    page.wait_for("window.region.innerText.includes('240 x 300 pixels.')")  # not one made anew


def test_it_shows_where_the_keys_go(page: Page) -> None:
    page.wait_for("document.querySelectorAll('.gallery-item').length == 2")
    unseen = page.evaluate("""(() => {
      document.body.insertAdjacentHTML('afterbegin', '<button id="first">');
      document.querySelector('#first').focus({focusVisible: true});
      const some = [...document.querySelectorAll('#places :is(button, input)')];
      return some.filter(e => e.checkVisibility() && !e.disabled).filter(e => {
        e.focus({focusVisible: true});
        const {outlineStyle, outlineColor} = getComputedStyle(e);
        return outlineStyle != 'solid' || outlineColor != 'rgb(184, 64, 42)';
      }).map(e => e.outerHTML.slice(0, 80));
    })()""")
    assert unseen == []


def test_forced_colours_leave_the_slider_and_the_button(page: Page) -> None:
    page.send("Emulation.setEmulatedMedia", features=[{"name": "forced-colors", "value": "active"}])
    slider = "getComputedStyle(document.querySelector('#guidance input[type=range]'))"
    assert page.evaluate(f"{slider}.appearance") == "auto"
    button = "getComputedStyle(document.querySelector('#download'))"
    assert page.evaluate(f"{button}.borderTopStyle") == "solid"


def test_files_that_are_none(page: Page, files: Path) -> None:
    drop(page, "reference", files / "red.png")
    drop(page, "sketch", files / "notes.txt")
    page.wait_for("document.body.innerText.includes('Invalid file type: notes.txt')")
    drop(page, "sketch", files / "torn.png")
    said(page, "torn.png: cannot be read as a picture")
    assert page.evaluate(f"!document.querySelector('{RESULT}')")
    drop(page, "sketch", files / "picture.png")
    said(page, "picture.png: is a colour picture, not a sketch.")
    page.evaluate("document.querySelector('#method input[value=dodge]').click()")
    said(page, "120 x 120 pixels.")
    drop(page, "reference", files / "grey.png")
    said(page, "grey.png: has no colour")
    drop(page, "reference", files / "torn.png")
    said(page, "torn.png: cannot be read as a picture")
    page.wait_for("document.querySelector('#download').disabled")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_reads_well(browser: Page, url: str, width: int, scheme: str) -> None:
    browser.open(url, width, scheme)
    browser.wait_for("document.querySelector('#reference input[type=file]')")
    browser.wait_for("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    deadline = time.monotonic() + 120
    read = browser.evaluate(READING)
    while (read["faint"] or read["outside"]) and time.monotonic() < deadline:
        time.sleep(0.1)  # colours fade in, and a bar of progress goes
        read = browser.evaluate(READING)
    assert read["overflow"] == 0
    assert read["outside"] == []
    assert read["faint"] == []
    assert read["smallest"] >= 12
    assert "<i>tints</i>" in browser.evaluate("document.querySelector('#head').innerText")
    tops = [
        browser.evaluate(f"document.querySelector('#{name}').getBoundingClientRect().top")
        for name in ("sketch", "reference", "result")
    ]
    assert tops == sorted(tops)
    assert (len(set(tops)) == 1) == (width == 1280)  # side by side where there is room


def test_it_asks_nobody_else_and_gives_away_nothing(page: Page, url: str, files: Path) -> None:
    drop(page, "sketch", files / "sketch.png")
    drop(page, "reference", files / "red.png")
    shown(page)
    asked = {urlsplit(address).netloc for address in page.requests()}
    assert asked - {""} == {urlsplit(url).netloc}  # "" is what a page carries in itself
    assert [text for text in page.complaints() if '"type": "warning"' not in text] == []
    for path in ("/etc/hostname", str(files / "red.png"), str(Path(__file__).resolve())):
        status = page.evaluate(f"fetch('gradio_api/file={path}').then(r => r.status)")
        assert status in (403, 404), path


def submit(url: str, dropped: dict[str, object]) -> dict[str, Any]:
    """Ask the server to colour a file after itself, without a page; return how that ended."""
    config = requests.get(f"{url}/config", timeout=120).json()
    (number,) = (d["id"] for d in config["dependencies"] if len(d["inputs"]) == 4)
    session = uuid4().hex
    asked = {"data": [dropped, dropped, "line art", 1.0], "fn_index": number}
    join = f"{url}/gradio_api/queue/join"
    requests.post(join, json=asked | {"session_hash": session}, timeout=120).raise_for_status()
    events = f"{url}/gradio_api/queue/data?session_hash={session}"
    with requests.get(events, stream=True, timeout=120) as answer:
        for line in answer.iter_lines():
            event = json.loads(line.removeprefix(b"data: ") or b"{}")
            if event.get("msg") == "process_completed":
                return dict(event)
    raise AssertionError("the server never said how it ended")


def test_only_files_that_were_dropped_are_opened(url: str, files: Path, tmp_path: Path) -> None:
    mark = {"_type": "gradio.FileData"}
    with (files / "sketch.png").open("rb") as file:
        uploaded = requests.post(f"{url}/gradio_api/upload", files={"files": file}, timeout=120)
    (path,) = uploaded.json()
    ended = submit(url, {"path": path, "meta": mark})
    assert ended["success"]
    assert "coloured.png" in json.dumps(ended["output"])
    private = tmp_path / "private.png"  # as good a sketch, but nobody gave it
    shutil.copy(files / "sketch.png", private)
    forgeries: list[dict[str, object]] = [
        {"path": str(private), "meta": mark},
        {"path": str(private)},
        {"path": "/etc/hostname", "meta": mark},
        {"path": "http://pictures.example/a.png", "meta": mark},
    ]
    for forged in forgeries:
        ended = submit(url, forged)
        refused = not ended["success"] or "was not dropped" in json.dumps(ended["output"])
        assert refused, (forged, ended["output"])
