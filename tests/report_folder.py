"""A work folder in which every fate occurs and every word is hostile, and a reader of its page."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from rich.console import Console

from pipeline.planning.plan import plan_posts, write_plan
from pipeline.recipe import Recipe
from pipeline.run import prepare
from pipeline.settings import to_table
from pipeline.work import Work
from tests.pictures import draw_picture, encoded, letterboxed
from tests.works import POST, draw_original, fetch_all, make_work

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"onerror="alert(1)',
    "</style><img/src=x>",
    "{{7*7}}",
    "turned\u202earound",
    "two\nlines",
)
NUM_POSTS = 40


def draw(post_id: int) -> bytes | None:
    """Draw a post's file, so that each fate that files can have occurs."""
    odd: dict[int, bytes | None] = {
        2: None,
        3: b"",
        4: b"<html>not found</html>",
        5: draw_original(5)[:6000],
        6: encoded(draw_picture(6, 400, 300), "png")[:41].ljust(50_000, b"\0"),
        7: encoded(np.zeros((512, 512, 3), np.uint8)),
        8: draw_original(1),
        9: encoded(letterboxed(draw_picture(10, 400, 300)), quality=60),
        12: encoded(letterboxed(draw_picture(12, 400, 100)), quality=92),
        13: encoded(letterboxed(draw_picture(13, 300, 400)), quality=92),
    }
    return odd[post_id] if post_id in odd else draw_original(post_id)


def make_folder(root: Path) -> tuple[Work, Recipe]:
    """Make a work folder in which every kind of thing occurs, fetched and prepared."""
    work, recipe = make_work(root, NUM_POSTS, draw)
    failing = root / "512px" / "0014" / "14.jpg"
    failing.unlink()
    failing.mkdir()  # reading it fails, as on a bad disk
    recipe = replace(recipe, name="<b>bold</b>", description="drawn & 'quoted'")
    posts = [
        replace(
            POST,
            id=post_id,
            width=100 if post_id == 12 else 300,
            parent_id=20 if 20 < post_id < 24 else 0,
            tags=frozenset({"solo", *HOSTILE} if post_id % 2 else {"solo"}),
            characters=(HOSTILE[0],) if post_id % 2 else (),
        )
        for post_id in range(1, NUM_POSTS + 1)
    ]
    info = {
        "counts": {"planned": NUM_POSTS, "filtered/rating": 5, "filtered/malformed": 12},
        "num_records": NUM_POSTS + 17,
        "malformed": [f"posts<i>.json:{line}: not JSON" for line in range(12)],
        "recipe": to_table(recipe),
    }
    write_plan(work.plan_path, plan_posts(posts, recipe.split), info)
    fetch_all(work, recipe)
    prepare(recipe, work, Console(quiet=True))
    return work, recipe


class Reader(HTMLParser):
    """What a browser would make of a page: elements with attributes, text, tables of numbers."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.numbers: dict[str, dict[str, int]] = {}
        self._table = self._label = ""
        self._in_label = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag == "table":
            self._table = found.get("id") or ""
        elif tag == "th" and found.get("scope") == "row":
            self._in_label, self._label = True, ""
        elif tag == "data" and self._label:
            row = self.numbers.setdefault(self._table, {})
            row.setdefault(self._label, int(found["value"] or ""))

    def handle_endtag(self, tag: str) -> None:
        self._in_label = self._in_label and tag != "th"
        self._label = "" if tag == "table" else self._label

    def handle_data(self, data: str) -> None:
        self.text += data
        self._label += data if self._in_label else ""

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
