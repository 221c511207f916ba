import base64
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from pipeline.errors import UserError
from pipeline.maintenance.status import read_status
from pipeline.planning.plan import plan_posts, planned_shards, read_planned, write_plan
from pipeline.planning.plan_check import read_about
from pipeline.report import distributions
from pipeline.report.funnel import read_fate_table
from pipeline.report.page import clip, percent, render_report, write_report
from pipeline.report.pictures import MAX_BYTES, SIDE
from pipeline.run import prepare
from pipeline.settings import to_table
from pipeline.shards.rows import read_info
from pipeline.shards.shard import rows_path, tar_path
from pipeline.work import Work
from tests.plurals import plurals_of_one
from tests.report_folder import HOSTILE, NUM_POSTS, Reader, draw, make_folder
from tests.works import POST, fetch_all, make_work, plan_work


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("report"))[0].root.parent


def images_in(page: str) -> Iterator[bytes]:
    for uri in re.findall(r'src="([^"]*)"', page):
        assert uri.startswith(("data:image/webp;base64,", "data:image/png;base64,"))
        yield base64.b64decode(uri.partition(",")[2], validate=True)


@pytest.mark.slow
def test_the_numbers_are_those_of_status_and_they_add_up(work: Work) -> None:
    numbers = Reader(render_report(work)).numbers
    status = read_status(work)
    assert status.adds_up
    assert numbers["stage-select"] == status.select
    assert numbers["stage-fetch"] == status.stages["fetch"].fates
    carried = ("missing", "rejected", "failed", "refused")
    own = {
        fate: count
        for fate, count in status.stages["prepare"].fates.items()
        if not fate.startswith(carried)
    }
    assert numbers["stage-prepare"] == own
    assert set(own) == {
        *("kept", "corrupt/truncated", "corrupt/undecodable", "blank/flat"),
        *("too_small/after_crop", "duplicate/same_pixels", "duplicate/near"),
    }
    assert sum(numbers["stage-select"].values()) == status.num_records
    assert sum(numbers["stage-fetch"].values()) == numbers["stage-select"]["planned"]
    assert sum(numbers["stage-prepare"].values()) == numbers["stage-fetch"]["fetched"]
    assert sum(numbers["stage-split"].values()) == numbers["stage-prepare"]["kept"]
    assert numbers["families"] == numbers["stage-split"]


def test_one_of_each_is_said_as_one(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 1)
    fetch_all(work, recipe)
    prepare(recipe, work, Console(quiet=True))
    text = " ".join(Reader(render_report(work).partition("<body>")[2]).text.split())
    for words in ("1 sample kept", "Of the 1 post that is still in.", "the 1 shard that is there"):
        assert words in text
    assert plurals_of_one(text) == []


def test_every_fate_that_ended_a_way_is_shown_with_its_posts(work: Work) -> None:
    page = render_report(work)
    headings = re.findall(r"<h3>(\w+/\w+)</h3>", page)
    ended = {fate for stage in read_status(work).stages.values() for fate in stage.fates}
    assert set(headings) == {fate for fate in ended if "/" in fate and "duplicate" not in fate}
    left_out = page.partition('<section id="left-out">')[2].partition("</section>")[0]
    assert set(re.findall(r"<b>(\d+)</b>", left_out)) == {*"234567", "12", "14"}
    shown = {alt["alt"] for alt in Reader(left_out).attributes("img")}
    assert shown == {f"What came for post {post_id}" for post_id in (5, 7, 12)}


def test_duplicates_stand_beside_what_they_repeat(work: Work) -> None:
    page = render_report(work).partition('<section id="duplicates">')[2].partition("</section>")[0]
    pairs = re.findall(r"<b>(\d+)</b> <span>repeats</span> <b>(\d+)</b> <span>(\d+) of 64", page)
    assert [(later, earlier) for later, earlier, _ in pairs] == [("10", "9"), ("8", "1")]
    assert pairs[1][2] == "0"
    assert len(Reader(page).attributes("img")) == 4


def test_the_frame_lies_where_the_crop_was(work: Work) -> None:
    page = render_report(work)
    frame = re.compile(r'alt="Original of post (\d+)">\s*<span class="crop" style="([^"]*)">')
    frames = dict(frame.findall(page))
    assert frames.pop("13") == "left:0.0%;top:12.5%;width:100.0%;height:75.0%"  # not by its record
    assert set(frames.values()) == {"left:12.5%;top:0.0%;width:75.0%;height:100.0%"}
    assert Reader(page).numbers["agreement"]["disagrees"] == 1


def test_strangers_words_stay_words(work: Work) -> None:
    page = render_report(work)
    reader = Reader(page)
    known = {"html", "head", "meta", "title", "style", "body", "header", "main", "section", "nav"}
    known |= {"p", "h1", "h2", "h3", "div", "span", "bdi", "data", "b", "i", "strong", "code", "a"}
    known |= {"table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "ul", "ol"}
    known |= {"li", "figure", "figcaption", "img", "details", "summary", "footer"}
    assert {tag for tag, _ in reader.elements} <= known
    names = {name for _, attributes in reader.elements for name in attributes}
    assert not [name for name in names if name.startswith("on")]
    assert "<b>bold</b>" in reader.text
    assert "posts<i>.json:3: not JSON" in reader.text
    assert set(reader.numbers["top-tags"]) == {"solo", *map(clip, HOSTILE)}
    assert list(reader.numbers["top-characters"]) == [HOSTILE[0]]
    assert not [letter for letter in page if not letter.isprintable() and letter != "\n"]


def test_the_page_asks_for_nothing_and_runs_nothing(work: Work) -> None:
    page = render_report(work)
    reader = Reader(page)
    (policy,) = (m for m in reader.attributes("meta") if "http-equiv" in m)
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in str(policy["content"])
    assert "://" not in page
    assert "url(" not in page
    assert all(str(link["href"]).startswith("#") for link in reader.attributes("a"))
    targets = {str(attributes.get("id")) for _, attributes in reader.elements}
    assert {str(link["href"])[1:] for link in reader.attributes("a")} <= targets


@pytest.mark.slow
def test_every_picture_is_encoded_anew_and_described(work: Work) -> None:
    page = render_report(work)
    originals = {data for post_id in range(1, NUM_POSTS + 1) if (data := draw(post_id))}
    for data in images_in(page):
        assert data not in originals
        assert len(data) <= MAX_BYTES
        with Image.open(io.BytesIO(data)) as image:
            assert max(image.size) <= SIDE
            assert not image.info.get("exif")
    assert all(image["alt"] for image in Reader(page).attributes("img"))


def test_the_same_folder_gives_the_same_small_page(work: Work, made: Path, tmp_path: Path) -> None:
    write_report(work, tmp_path / "a" / "report.html")
    write_report(Work(made / "work"), tmp_path / "b.html")
    page = (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a" / "report.html").read_bytes() == page
    assert len(page) < 1_000_000


def test_what_does_not_add_up_is_said(work: Work) -> None:
    assert "not add up" not in render_report(work)
    info = read_info(work.plan_path)
    counts = {**info["counts"], "filtered/rating": 6}
    _, recipe = make_work(work.root / "other", 1)
    posts = plan_posts([replace(POST, id=i) for i in range(1, NUM_POSTS + 1)], recipe.split)
    write_plan(work.plan_path, posts, {**info, "counts": counts})
    page = render_report(work)
    assert "but <data value" in page.partition('id="stage-select"')[2].partition("</div>")[0]
    assert "The numbers do not add up" in page


def test_characters_are_in_one_split_where_the_recipe_wants_that(tmp_path: Path) -> None:
    def told(work: Work) -> str:
        section = render_report(work).partition('id="splits"')[2].partition("</section>")[0]
        return " ".join(Reader(section).text.split())

    work, recipe = make_work(tmp_path, 30)  # all of one character
    fetch_all(work, recipe)
    assert "haracter" not in told(work)
    wanted = replace(recipe, split=replace(recipe.split, by="character"))
    info = read_about(work.plan_path) | {"recipe": to_table(wanted)}
    names = planned_shards(work.plan_path)
    write_plan(
        work.plan_path, pa.concat_tables([read_planned(work.plan_path, n) for n in names]), info
    )
    assert "1 character lies in more than one split: miku." in told(work)
    other = Work(tmp_path / "other")
    plan_work(other, wanted, 30)
    fetch_all(other, wanted)
    assert "No character lies in two splits." in told(other)


def test_a_folder_on_its_way_is_shown_as_far_as_it_is(work: Work) -> None:
    planned = planned_shards(work.plan_path)
    last = list(planned)[-1]
    for path in (rows_path(work.samples_dir, last), tar_path(work.samples_dir, last)):
        path.unlink()
    numbers = Reader(page := render_report(work)).numbers
    assert numbers["stage-prepare"]["waiting"] > 0
    assert "not add up" not in page
    for path in (rows_path(work.raw_dir, last), tar_path(work.raw_dir, last)):
        path.unlink()
    numbers = Reader(page := render_report(work)).numbers
    assert numbers["stage-fetch"]["waiting"] == planned[last]
    assert "waiting" not in numbers["stage-prepare"]
    assert "not add up" not in page
    shutil.rmtree(work.samples_dir)
    assert "None yet" in render_report(work)
    shutil.rmtree(work.raw_dir)
    assert set(Reader(page := render_report(work)).numbers) == {"stage-select", "families"}
    assert "not add up" not in page


def test_that_nothing_was_kept_is_not_said_to_be_to_come(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 3, lambda _: b"no picture")
    fetch_all(work, recipe)
    assert "None yet" in render_report(work)
    prepare(recipe, work, Console(quiet=True))
    page = render_report(work)
    assert "None was kept." in page
    assert "None yet" not in page


def test_samples_without_their_originals_are_shown_alone(work: Work) -> None:
    shutil.rmtree(work.raw_dir)
    reader = Reader(page := render_report(work))
    assert reader.numbers["stage-prepare"] == read_status(work).stages["prepare"].fates
    assert "not add up" not in page
    shown = {str(image["alt"]).partition(" of ")[0] for image in reader.attributes("img")}
    assert shown == {"Colour picture", "Sketch"}
    assert "nothing to show" in reader.text


def test_the_recipe_is_the_one_that_made_the_samples(tmp_path: Path) -> None:
    work, recipe = make_work(tmp_path, 5)
    fetch_all(work, recipe)
    smaller = replace(recipe, prepare=replace(recipe.prepare, size=48))
    size = re.compile(r'<th scope="row">size</th><td class="words"><bdi>(\d+)</bdi>')
    assert size.findall(render_report(work)) == ["64"]
    prepare(smaller, work, Console(quiet=True))
    page = render_report(work)
    assert size.findall(page) == ["48"]
    assert '<th scope="row">shard_size</th><td class="words"><bdi>10</bdi>' in page


def test_distributions_come_from_a_few_shards_and_say_so(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(planned_shards(work.plan_path))
    assert "random sample of its split" not in render_report(work)
    monkeypatch.setattr(distributions, "MAX_SHARDS", 2)
    page = render_report(work)
    assert "random sample of its split" in page
    some = read_fate_table(work, [names[0], names[len(names) // 2]])
    assert Reader(page).numbers["top-tags"]["solo"] == some.count("kept")
    assert some.count("kept") < read_fate_table(work, names).count("kept")


def test_wrong_use_is_named(work: Work, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"selection\.parquet"):
        write_report(Work(tmp_path / "nowhere"), tmp_path / "report.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder: is a folder; give the path of a file"):
        write_report(work, tmp_path / "folder")


@given(st.floats(0, 1))
def test_a_share_is_never_rounded_to_none_or_all(share: float) -> None:
    assert (percent(share) == "0.0%") == (share == 0)
    assert (percent(share) == "100.0%") == (share == 1)


@given(st.text(), st.integers(1, 50))
def test_clipped_text_is_short_and_printable(text: str, length: int) -> None:
    shown = clip(text, length)
    assert len(shown) <= length + 1
    assert shown.isprintable()
    assert len(text) > length or len(shown) == len(text)
