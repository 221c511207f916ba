import dataclasses
import io
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from model.use.colorize_files import colorize_many, colorize_one
from model.use.picture_files import (
    check_output,
    find_pictures,
    name_files,
    read_sketch,
    save_picture,
)
from pipeline.errors import UserError
from pipeline.pictures.sketch import dodge, line_drawer
from tests.painters import tinting_painter
from tests.pictures import draw_picture, encoded

PAINTER = tinting_painter()
QUIET = Console(quiet=True)
COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}


@pytest.fixture
def sketches(tmp_path: Path) -> Path:
    folder = tmp_path / "sketches"
    folder.mkdir()
    for number in range(3):
        lines = dodge(draw_picture(number, 90, 100 + number), 3.5)
        (folder / f"{number}.png").write_bytes(encoded(lines, "png"))
    return folder


@pytest.fixture
def references(tmp_path: Path) -> Path:
    folder = tmp_path / "references"
    folder.mkdir()
    for name, color in COLORS.items():
        Image.new("RGB", (30, 60), color).save(folder / f"{name}.png")
    return folder


def paper_of(path: Path) -> tuple[int, ...]:
    """Return a picture's most frequent level in each channel."""
    pixels = np.asarray(Image.open(path)).reshape(-1, 3)
    return tuple(int(np.bincount(channel).argmax()) for channel in pixels.T)


def listening() -> tuple[Console, io.StringIO]:
    heard = io.StringIO()
    return Console(file=heard, width=500), heard


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_one_picture_has_the_sketchs_size(
    sketches: Path, references: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / "new" / f"out{suffix}"
    paths = sketches / "2.png", references / "red.png"
    assert colorize_one(PAINTER, *paths, out, QUIET, read_sketch) == (102, 90)
    with Image.open(out) as image:
        assert (image.size, image.mode) == ((102, 90), "RGB")
    assert paper_of(out) == pytest.approx(COLORS["red"], abs=4)
    assert not list(out.parent.glob(".*"))


def test_wrong_files_leave_nothing_behind(sketches: Path, references: Path, tmp_path: Path) -> None:
    sketch, reference = sketches / "0.png", references / "red.png"
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    cases = {
        (text, reference, "out.png"): "text.png: is not a picture",
        (sketch, text, "out.png"): "text.png: is not a picture",
        (tmp_path / "none.png", reference, "out.png"): "none.png: no such file",
        (sketch, reference, "out.xyz"): "no known picture format",
        (sketch, reference, "out"): "no known picture format",
        (sketch, reference, "out.psd"): "no known picture format",
        (reference, reference, "out.png"): "red.png: is blank",
    }
    for (one, other, name), message in cases.items():
        with pytest.raises(UserError, match=message):
            colorize_one(PAINTER, one, other, tmp_path / name, QUIET, read_sketch)
        assert not (tmp_path / name).exists()


def test_what_a_format_cannot_hold_is_said(
    sketches: Path, references: Path, tmp_path: Path
) -> None:
    wide = np.full((16, 70_000), 255, np.uint8)
    wide[8] = 0
    (tmp_path / "wide.png").write_bytes(encoded(wide, "png"))
    with pytest.raises(UserError, match=r"out\.jpg: cannot be written"):
        paths = tmp_path / "wide.png", references / "red.png", tmp_path / "out.jpg"
        colorize_one(PAINTER, *paths, QUIET, read_sketch)
    assert not (tmp_path / "out.jpg").exists()


def test_a_folder_of_sketches_keeps_its_names(
    sketches: Path, references: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    paths = find_pictures([sketches]), [references / "green.png"]
    assert colorize_many(PAINTER, *paths, out, QUIET, read_sketch).num_pictures == 3
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png", "2.png"]
    for number in range(3):
        with Image.open(out / f"{number}.png") as image:
            assert image.size == (100 + number, 90)
        assert paper_of(out / f"{number}.png") == pytest.approx(COLORS["green"], abs=4)


def test_many_sketches_are_guided_as_one_is(
    sketches: Path, references: Path, tmp_path: Path
) -> None:
    paths = find_pictures([sketches]), [references / "red.png"]
    colorize_many(PAINTER, *paths, tmp_path / "out", QUIET, read_sketch, guidance=0.0)
    for number in range(3):
        assert paper_of(tmp_path / "out" / f"{number}.png") == (255, 255, 255)


def test_several_references_give_folders_and_a_sheet(
    sketches: Path, references: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    paths = find_pictures([sketches]), find_pictures([references])
    assert colorize_many(PAINTER, *paths, out, QUIET, read_sketch).num_pictures == 9
    assert sorted(path.name for path in out.iterdir()) == [
        *("blue", "contact-sheet-1.png", "green", "red")
    ]
    for name, color in COLORS.items():
        assert paper_of(out / name / "1.png") == pytest.approx(color, abs=4)
    sheet = np.asarray(Image.open(out / "contact-sheet-1.png"))
    assert sheet.shape == (
        20 + 4 * 260,
        4 + 4 * 260,
        3,
    )  # with a column of sketches and a row above
    for column, name in enumerate(sorted(COLORS), start=1):
        middle = sheet[20 + 128, 4 + 260 * column + 128]
        assert middle.tolist() == list(COLORS[name])
        cell = sheet[20 + 260 : 20 + 516, 4 + 260 * column : 4 + 260 * column + 256]
        assert (np.abs(cell.astype(int) - COLORS[name]).max(axis=2) < 6).mean() > 0.3


def test_the_head_of_a_sheet_shows_the_references_as_they_are(
    sketches: Path, references: Path, tmp_path: Path
) -> None:
    """Neither stretched nor at the size that the model, of 64 pixels, sees them at."""
    stripes = np.zeros((256, 128, 3), np.uint8)
    stripes[::2] = (250, 120, 20)
    Image.fromarray(stripes).save(references / "stripes.png")
    paths = find_pictures([sketches]), find_pictures([references])
    colorize_many(PAINTER, *paths, tmp_path / "out", QUIET, read_sketch)
    sheet = np.asarray(Image.open(tmp_path / "out" / "contact-sheet-1.png"))
    head = sheet[20:276, -260:-4]  # the last column
    np.testing.assert_array_equal(head[:, 64:192], stripes)
    assert (np.delete(head, np.s_[64:192], axis=1) == 255).all()


def test_a_large_sheet_is_divided_and_its_cells_shrink(
    sketches: Path, references: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.use.colorize_files._SHEET_ROWS", 2)
    monkeypatch.setattr("model.use.colorize_files._SHEET_SIDE", 400)
    paths = find_pictures([sketches]), find_pictures([references])
    colorize_many(PAINTER, *paths, tmp_path, QUIET, read_sketch)
    sizes = [Image.open(tmp_path / f"contact-sheet-{n}.png").size for n in (1, 2)]
    assert sizes == [(4 + 4 * 104, 20 + 3 * 104), (4 + 4 * 104, 20 + 2 * 104)]
    assert not (tmp_path / "contact-sheet-3.png").exists()


@pytest.mark.parametrize("torn", ["sketches/1.png", "references/green.png", "both"])
def test_bad_pictures_among_many_are_named_and_the_rest_is_done(
    sketches: Path, references: Path, tmp_path: Path, torn: str
) -> None:
    out, bad = tmp_path / "out", [sketches / "1.png", references / "green.png"]
    bad = [path for path in bad if torn in (str(path.relative_to(tmp_path)), "both")]
    for path in bad:
        path.write_bytes(b"torn")
    (sketches / "notes.txt").write_text("mine")
    given = find_pictures([sketches]), find_pictures([references])
    names = [[path.stem for path in paths if path not in bad] for paths in given]
    done = colorize_many(PAINTER, *given, out, QUIET, read_sketch)
    assert (done.num_sketches, done.num_references) == tuple(map(len, names))
    assert len(done.left_out) == len(bad)
    for path in bad:
        assert any(why.startswith(f"{path}: is not a picture of a") for why in done.left_out)
    assert {str(path.relative_to(out)) for path in out.rglob("*.png")} == {
        "contact-sheet-1.png",
        *(f"{reference}/{sketch}.png" for sketch in names[0] for reference in names[1]),
    }
    sheet = np.asarray(Image.open(out / "contact-sheet-1.png"))
    for column, name in enumerate(names[1], start=1):
        assert sheet[20 + 128, 4 + 260 * column + 128].tolist() == list(COLORS[name])


@pytest.mark.parametrize("which", ["sketches", "references"])
def test_where_nothing_can_be_coloured_nothing_is_left(
    sketches: Path, references: Path, tmp_path: Path, which: str
) -> None:
    for path in (tmp_path / which).iterdir():
        path.write_bytes(b"torn")
    paths = find_pictures([sketches]), find_pictures([references])
    with pytest.raises(UserError, match=r"^nothing is coloured:\n.*\.png: is not(.|\n)*WebP\.$"):
        colorize_many(PAINTER, *paths, tmp_path / "out", QUIET, read_sketch)
    assert not (tmp_path / "out").exists()


def test_several_pictures_do_not_go_into_a_folder_with_a_pictures_name(
    sketches: Path, references: Path, tmp_path: Path
) -> None:
    paths = find_pictures([sketches]), [references / "red.png"]
    with pytest.raises(UserError, match=r"c\.png: is a picture's name, and several"):
        colorize_many(PAINTER, *paths, tmp_path / "c.png", QUIET, read_sketch)
    (tmp_path / "c.png").mkdir()  # whoever has such a folder may have it filled
    assert colorize_many(PAINTER, *paths, tmp_path / "c.png", QUIET, read_sketch).num_pictures == 3


def test_one_picture_needs_a_name_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; name the picture in it, such as .*/c\.png"):
        save_picture(Image.new("RGB", (8, 8)), tmp_path)
    with pytest.raises(UserError, match=r"x\.png: cannot be written: File exists\."):
        (tmp_path / "file").touch()
        save_picture(Image.new("RGB", (8, 8)), tmp_path / "file" / "x.png")


@pytest.mark.parametrize("num_references", [1, 3])
def test_a_place_that_cannot_be_written_is_found_before_the_work(
    sketches: Path, references: Path, tmp_path: Path, num_references: int
) -> None:
    painter = dataclasses.replace(PAINTER, answer=fail)
    after = find_pictures([references])[:num_references]
    sketch = sketches / "0.png"
    with pytest.raises(UserError, match=r"^/proc: cannot be written: No such file"):
        colorize_one(painter, sketch, after[0], Path("/proc/new/c.png"), QUIET, read_sketch)
    out = tmp_path / "out"
    in_the_way = out / "2.png" if num_references == 1 else out / "red" / "2.png"
    in_the_way.mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{in_the_way}: is a folder; give the path of a file"):
        colorize_many(painter, find_pictures([sketches]), after, out, QUIET, read_sketch)


def fail(*pictures: object) -> NoReturn:
    raise AssertionError("the work began")


def test_several_pictures_need_a_folder(sketches: Path, references: Path, tmp_path: Path) -> None:
    (tmp_path / "out.png").touch()
    with pytest.raises(UserError, match=r"out\.png: is a file"):
        paths = find_pictures([sketches]), find_pictures([references])
        colorize_many(PAINTER, *paths, tmp_path / "out.png", QUIET, read_sketch)


def test_what_was_given_is_never_replaced(sketches: Path, references: Path) -> None:
    one, other = sketches / "0.png", references / "red.png"
    before = {path: path.read_bytes() for path in (one, other)}
    for out in before:
        with pytest.raises(UserError, match="would be replaced"):
            colorize_one(PAINTER, one, other, out, QUIET, read_sketch)
    with pytest.raises(UserError, match="holds the sketches, which would be replaced"):
        out_dir = sketches / ".." / "sketches"
        colorize_many(PAINTER, find_pictures([sketches]), [other], out_dir, QUIET, read_sketch)
    assert {path: path.read_bytes() for path in before} == before


def test_a_reference_without_colour_and_a_dark_sketch_are_remarked_on(
    sketches: Path, tmp_path: Path
) -> None:
    dark = tmp_path / "dark.png"
    lines = Image.open(sketches / "0.png")
    Image.eval(lines, lambda level: 255 - level).save(dark)
    Image.fromarray(draw_picture(7)).convert("L").save(tmp_path / "grey.png")
    console, heard = listening()
    colorize_one(PAINTER, dark, tmp_path / "grey.png", tmp_path / "o.png", console, read_sketch)
    assert "grey.png: has no colour, so what is coloured after it has none." in heard.getvalue()
    assert "dark.png: is mostly dark" in heard.getvalue()
    levels = np.asarray(Image.open(tmp_path / "o.png"))
    assert (levels == levels[..., :1]).all()


def test_a_colour_picture_is_a_sketch_once_its_lines_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture = draw_picture(3, 128, 96)
    path.write_bytes(encoded(picture, "png"))
    with pytest.raises(
        UserError, match=r"picture\.png: is a colour picture.*--extract-lines dodge"
    ):
        read_sketch(path)
    assert np.array_equal(np.asarray(read_sketch(path, check=False)), picture)
    drawn = read_sketch(path, line_drawer("dodge", {"size": 64, "sketch": {"sigma": 1.5}}))
    assert (np.asarray(drawn)[..., 1] == dodge(picture, 3.0)).all()


def test_the_names_of_many_files_are_different() -> None:
    paths = [Path(p) for p in ("a/x.png", "b/x.png", "b/x.jpg", "x-2.png", "y.tar.png", "X.png")]
    assert list(name_files(paths).values()) == ["x", "x-2", "x-3", "x-2-2", "y.tar", "X-4"]


def test_no_file_is_named_as_a_folder_above() -> None:
    paths = [Path("a/...png"), Path("b/...png"), Path("....jpg"), Path(".x.png")]
    assert list(name_files(paths).values()) == ["picture", "picture-2", "picture-3", ".x"]


def test_folders_give_their_pictures_and_must_have_some(sketches: Path, tmp_path: Path) -> None:
    (sketches / "a.txt").touch()
    (sketches / "B.JPG").touch()
    (sketches / "._0.png").touch()  # as macOS has beside 0.png on other disks
    (sketches / "layers.psd").mkdir()
    (sketches / "below").mkdir()
    named = tmp_path / "picture.dat"
    found = find_pictures([sketches, named])
    assert [path.name for path in found] == ["0.png", "1.png", "2.png", "B.JPG", "picture.dat"]
    with pytest.raises(UserError, match="below: there are no pictures in it"):
        find_pictures([sketches / "below"])


def test_a_file_that_is_given_twice_is_coloured_once(sketches: Path) -> None:
    once = find_pictures([sketches])
    assert find_pictures([once[0], sketches, once[0]]) == once


def test_the_suffix_is_the_format() -> None:
    assert [check_output(Path(name)) for name in ("a.png", "a.JPEG")] == ["PNG", "JPEG"]


def test_no_picture_and_no_sheet_replaces_what_was_given(
    sketches: Path, references: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.use.colorize_files._SHEET_ROWS", 2)
    lines, red = (sketches / "0.png").read_bytes(), (references / "red.png").read_bytes()
    given = {
        "refs/0.png": red,  # has a sketch's name, and goes where the pictures go
        "a/0.png": lines,
        "r/a.png": red,  # its pictures go into a folder that holds the sketches
        "r/b.png": red,
        "refs/contact-sheet-2.png": red,
    }
    for name, content in given.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    many = find_pictures([sketches])
    cases: list[tuple[list[Path], list[str], str, str]] = [
        (many, ["refs/0.png"], "refs", r"refs/0\.png: is a reference, which would be replaced"),
        ([tmp_path / "a/0.png"], ["r/a.png", "r/b.png"], "", r"a/0\.png: is a sketch, which"),
        (many, ["r/a.png", "refs/contact-sheet-2.png"], "refs", r"contact-sheet-2\.png: is a ref"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for some, names, out, message in cases:
        looked_at = [tmp_path / name for name in names]
        with pytest.raises(UserError, match=message):
            colorize_many(PAINTER, some, looked_at, tmp_path / out, QUIET, read_sketch)
    assert sorted(tmp_path.rglob("*")) == before
    assert {name: (tmp_path / name).read_bytes() for name in given} == given
