"""What the page does, without a page."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from model.app.page import LIGHT_LINES, LINE_ART, Dropped, Studio, name_of, say
from pipeline.pictures.sketch import dodge, line_drawer
from tests.painters import tinting_painter
from tests.pictures import draw_picture


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tinting_painter(), {"dodge": line_drawer("dodge", {})}, tmp_path)


def drop(folder: Path, name: str, picture: Image.Image | np.ndarray | bytes) -> Dropped:
    """Return a file as Gradio hands it over: under a name of its own."""
    path = folder / f"upload-{len(list(folder.iterdir()))}"
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    if isinstance(picture, Image.Image):
        picture.save(path, "PNG")
    else:
        path.write_bytes(picture)
    return {"path": str(path), "orig_name": name, "url": None}


@pytest.fixture
def sketch(tmp_path: Path) -> Dropped:
    return drop(tmp_path, "my sketch.png", dodge(draw_picture(1, 90, 150), 3.5))


@pytest.fixture
def red(tmp_path: Path) -> Dropped:
    return drop(tmp_path, "red.jpg", Image.new("RGB", (40, 40), (220, 40, 40)))


def test_both_give_a_picture_with_a_name(studio: Studio, sketch: Dropped, red: Dropped) -> None:
    path, said = studio.color(sketch, red, LINE_ART)
    assert path is not None
    assert Path(path).name == "my sketch-coloured.png"
    with Image.open(path) as image:
        assert image.size == (150, 90)
    assert said == say("done", "150 x 90 pixels.")
    guided, _ = studio.color(sketch, red, LINE_ART, 0.0)
    assert guided is not None
    assert np.median(np.asarray(Image.open(guided))) == 255


def test_what_is_missing_is_named(studio: Studio, sketch: Dropped, red: Dropped) -> None:
    for one, other, name in (
        (None, None, "a sketch and a reference"),
        (None, red, "a sketch"),
        (sketch, None, "a reference"),
    ):
        found = studio.color(one, other, LINE_ART)
        assert found == (None, say("hint", f"Waiting for {name}."))


def test_wrong_files_are_said_by_their_own_names(
    studio: Studio, sketch: Dropped, red: Dropped, tmp_path: Path
) -> None:
    text = drop(tmp_path, "<b>notes.png", b"hello")
    tiny = drop(tmp_path, "tiny.png", Image.new("RGB", (3, 3)))
    for pair, message in (
        ((text, red), "&lt;b&gt;notes.png: is not a picture of a known format; save it as PNG"),
        ((sketch, text), "&lt;b&gt;notes.png: is not a picture of a known format; save it as PNG"),
        ((tiny, red), "tiny.png: 3 x 3 pixels are too few"),
        ((red, red), "red.jpg: is blank"),
    ):
        path, said = studio.color(*pair, LINE_ART)
        assert path is None
        assert 'class="said error"' in said
        assert message in said
        assert str(tmp_path) not in said


def test_a_colour_picture_is_a_sketch_once_its_lines_are_drawn(
    studio: Studio, red: Dropped, tmp_path: Path
) -> None:
    picture = drop(tmp_path, "picture.png", draw_picture(2))
    path, said = studio.color(picture, red, LINE_ART)
    assert path is None
    assert "picture.png: is a colour picture, not a sketch. Say below it" in said
    path, said = studio.color(picture, red, "dodge")
    assert path is not None
    assert "120 x 120" in said


def test_remarks_are_said_beside_the_result(
    studio: Studio, sketch: Dropped, tmp_path: Path
) -> None:
    grey = drop(tmp_path, "grey.png", Image.fromarray(draw_picture(3)).convert("L"))
    path, said = studio.color(sketch, grey, LINE_ART)
    assert path is not None
    assert said == say("remark", "grey.png: has no colour, so the result has none.")


def test_light_lines_are_inverted_where_that_is_said(
    studio: Studio, sketch: Dropped, red: Dropped, tmp_path: Path
) -> None:
    with Image.open(sketch["path"]) as image:
        board = drop(tmp_path, "board.png", ImageOps.invert(image.convert("RGB")))
    _, said = studio.color(board, red, LINE_ART)
    assert "board.png: is mostly dark" in said
    path, said = studio.color(board, red, LIGHT_LINES)
    assert path is not None
    assert said == say("done", "150 x 90 pixels.")
    plain, _ = studio.color(sketch, red, LINE_ART)
    assert plain is not None
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(plain)))


def test_only_what_was_dropped_is_opened(
    studio: Studio, sketch: Dropped, red: Dropped, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = drop(tmp_path_factory.mktemp("elsewhere"), "a.png", draw_picture(1))
    link = studio.home / "link.png"
    link.symlink_to(elsewhere["path"])
    for path in (elsewhere["path"], str(link), f"{studio.home}/../{Path(elsewhere['path']).name}"):
        found, said = studio.color({"path": path, "orig_name": "a.png"}, red, LINE_ART)
        assert found is None
        assert "a.png: was not dropped on this page." in said


def test_only_the_last_results_are_kept(
    studio: Studio, sketch: Dropped, red: Dropped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.app.page._NUM_KEPT", 3)
    paths = [Path(str(studio.color(sketch, red, LINE_ART, n / 4)[0])) for n in range(5)]
    assert [path.exists() for path in paths] == [False, False, True, True, True]
    assert len([path for path in studio.home.iterdir() if path.is_dir()]) == 3


def test_what_is_asked_twice_is_painted_once(studio: Studio, sketch: Dropped, red: Dropped) -> None:
    first, _ = studio.color(sketch, red, LINE_ART)
    assert studio.color(dict(sketch), red, LINE_ART)[0] == first
    assert studio.color(sketch, red, LINE_ART, 0.5)[0] != first
    again, _ = studio.color(sketch, red, LINE_ART)
    assert again is not None
    Path(again).unlink()  # as Gradio does after a day
    anew, _ = studio.color(sketch, red, LINE_ART)
    assert anew is not None
    assert Path(anew).exists()


def test_what_is_no_longer_kept_can_be_dropped_again(
    studio: Studio, sketch: Dropped, red: Dropped
) -> None:
    path = Path(sketch["path"])
    data = path.read_bytes()
    path.unlink()
    found, said = studio.color(sketch, red, LINE_ART)
    assert found is None
    assert "my sketch.png: is not kept for so long; drop it again." in said
    path.write_bytes(data)
    found, _ = studio.color(sketch, red, LINE_ART)
    assert found is not None


def test_names_are_short_and_plain() -> None:
    assert name_of({"path": "/tmp/x/a.png", "orig_name": None}) == "a.png"
    assert name_of({"path": "/tmp/x/a.png", "orig_name": "../../b.png"}) == "b.png"
    long = name_of({"path": "a.png", "orig_name": "n" * 300 + ".png"})
    assert len(long) == 57
    assert long.endswith("nnn.png")
