"""Draw docs/app.png: the page of `app` in a real browser, with a doll coloured after another.

    python -m docs.make_app CHECKPOINT

Needs Chromium and the extra ``app``.
"""

import argparse
import io
import tempfile
from pathlib import Path
from threading import Thread

from PIL import Image

from model.app.page import Studio, build_page
from model.app.server import bind, keep_gradio_home
from model.use.load import load_painter
from pipeline.dolls.data_set import draw_examples
from pipeline.pictures.sketch import SCALABLE, line_drawer
from tests.browser import open_browser

OUT = Path(__file__).with_name("app.png")
WIDTH = 1200


def main() -> None:
    """Serve, click, look, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    painter = load_painter(parser.parse_args().checkpoint, device="cpu")
    draw_lines = {m: line_drawer(m, painter.recipe.get("prepare", {})) for m in SCALABLE}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as profile:
        keep_gradio_home(Path(folder))
        sketches, references = draw_examples(draw_lines["dodge"], Path(folder))
        page = build_page(Studio(painter, draw_lines, Path(folder)), sketches, references)
        running = bind(page, "127.0.0.1", 0)
        thread = Thread(target=running.server.run, kwargs={"sockets": [running.socket]})
        thread.start()
        try:
            with open_browser(Path(profile)) as browser:
                browser.open(running.url, WIDTH)
                for place, number in (("sketch", 3), ("reference", 4)):
                    items = f"document.querySelector('#{place}')?.closest('.column')"
                    item = f"{items}?.querySelectorAll('.gallery-item')[{number}]"
                    browser.wait_for(item)
                    browser.evaluate(f"{item}.click()")
                    browser.wait_for(f"document.querySelector('#{place} img')")
                browser.wait_for("document.querySelector('#result img')?.complete")
                still = "document.getAnimations().every(a => !(a instanceof CSSTransition))"
                browser.wait_for(still)
                shot = browser.screenshot()
        finally:
            running.server.should_exit = True
            thread.join()
    with Image.open(io.BytesIO(shot)) as image:
        image.convert("RGB").save(OUT, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
