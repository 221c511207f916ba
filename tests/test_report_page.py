"""The report in a real browser: what it shows, at both ends of its widths, in both schemes."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pipeline.report.page import write_report
from pipeline.run import prepare
from tests.browser import READING, Page, open_browser
from tests.report_folder import make_folder
from tests.works import fetch_all, make_work

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="Chromium is not installed"
)

_MEASURE = """
(() => {
  const images = [...document.images];
  const crop = document.querySelector('.crop');
  const box = e => (({left, top, width, height}) => [left, top, width, height])
    (e.getBoundingClientRect());
  return {
    title: document.title,
    images: images.length,
    broken: images.filter(i => !(i.complete && i.naturalWidth > 0)).length,
    squeezed: images.filter(i => !i.closest('.wall') && Math.abs(
      i.clientWidth / i.clientHeight - i.naturalWidth / i.naturalHeight) > 0.05).length,
    scripts: document.scripts.length,
    bar: box(document.querySelector('#stage-fetch tbody tr'))[2],
    bars: [...document.querySelectorAll('#stage-fetch tbody th')]
      .map(e => parseFloat(getComputedStyle(e, '::after').width)),
    columns: [...document.querySelectorAll('#hues .columns i')].map(e => e.clientHeight),
    crop: box(crop), original: box(crop.parentElement.querySelector('img')),
    unseen: [...document.querySelectorAll('.unseen')].every(e => e.clientWidth <= 1),
  };
})()
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    work, _ = make_folder(root)
    write_report(work, root / "report.html")
    return root / "report.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1400, 2200])
def test_it_reads_well(page: Page, report: Path, width: int, scheme: str) -> None:
    page.open(report, width, scheme)
    read, found = page.evaluate(READING), page.evaluate(_MEASURE)
    assert read["overflow"] == 0
    assert read["outside"] == []
    assert read["faint"] == []
    assert read["smallest"] >= 13
    assert found["images"] > 30
    assert found["broken"] == found["squeezed"] == 0
    assert found["unseen"]


def test_bars_and_frames_are_as_long_as_their_numbers(page: Page, report: Path) -> None:
    page.open(report, 1400, "light")
    found = page.evaluate(_MEASURE)
    assert found["bars"][0] == pytest.approx(found["bar"] * 36 / 40, abs=1)  # fetched
    assert found["bars"][1] == pytest.approx(found["bar"] * 1 / 40, abs=1)
    assert len(found["columns"]) == 30
    assert max(found["columns"]) > 100
    left, top, width, height = found["original"]
    expected = [left + width / 8, top, width * 3 / 4, height]
    assert found["crop"] == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("selector", "part"), [("#stage-fetch tbody th", "::after"), ("#hues .columns i", None)]
)
def test_bars_are_there_in_print_and_in_forced_colours(
    page: Page, report: Path, selector: str, part: str | None
) -> None:
    page.open(report, 1400, "light")
    style = f"getComputedStyle(document.querySelector({selector!r}), {json.dumps(part)})"
    color = page.evaluate(f"{style}.backgroundColor")
    assert page.evaluate(f"{style}.printColorAdjust") == "exact"
    forced = [{"name": "forced-colors", "value": "active"}]
    page.send("Emulation.setEmulatedMedia", features=forced)
    assert page.evaluate("matchMedia('(forced-colors: active)').matches")
    assert page.evaluate(f"{style}.backgroundColor") == color


def test_links_jump_where_motion_is_not_wanted(page: Page, report: Path) -> None:
    page.open(report, 1400, "light")
    scrolling = "getComputedStyle(document.documentElement).scrollBehavior"
    assert page.evaluate(scrolling) == "smooth"
    still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.send("Emulation.setEmulatedMedia", features=still)
    assert page.evaluate(scrolling) == "auto"


def test_the_colour_of_one_picture_does_not_fill_the_window(page: Page, tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 1)
    fetch_all(work, recipe)
    prepare(recipe, work, Console(quiet=True))
    write_report(work, tmp_path / "report.html")
    page.open(tmp_path / "report.html", 1400, "light")
    assert 0 < page.evaluate("document.querySelector('.wall img').clientHeight") <= 144


def test_it_asks_for_nothing_and_runs_nothing(page: Page, report: Path) -> None:
    page.open(report, 1400, "light")
    found = page.evaluate(_MEASURE)
    assert found["title"] == "<b>bold</b>: data set report"
    assert found["scripts"] == 0
    addresses = [address for address in page.requests() if not address.startswith("data:image/")]
    assert addresses == [report.as_uri()]
    assert page.complaints() == []


def test_its_policy_forbids_what_it_does_not_need(page: Page, report: Path, tmp_path: Path) -> None:
    """A page into which something was smuggled still runs and loads nothing."""
    smuggled = '<script>document.title="owned"</script><img src="file:///etc/hostname">'
    harmed = report.read_text(encoding="utf-8").replace("<main>", f"<main>{smuggled}")
    (tmp_path / "harmed.html").write_text(harmed, encoding="utf-8")
    page.open(tmp_path / "harmed.html", 1400, "light")
    assert page.evaluate("document.title") == "<b>bold</b>: data set report"
    assert page.evaluate("document.images[0].naturalWidth") == 0
    assert any("Content Security Policy" in complaint for complaint in page.complaints())


@pytest.mark.slow
def test_light_and_dark_are_two(page: Page, report: Path) -> None:
    brightness = {}
    for scheme in ("light", "dark"):
        page.open(report, 1400, scheme)
        with Image.open(io.BytesIO(page.screenshot())) as image:
            assert image.width == 1400
            assert image.height > 3000  # the whole page, not one window of it
            brightness[scheme] = np.asarray(image.convert("L"))[:, :60].mean()
    assert brightness["light"] > 230
    assert brightness["dark"] < 40
