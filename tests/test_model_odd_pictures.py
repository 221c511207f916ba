"""Pictures thinner than a pixel once they are small, of other levels, and where none can go."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from model.use.colorize_files import colorize_many
from model.use.enlarge import resize_to_sketch
from model.use.picture_files import check_output, read_sketch
from model.use.pictures import fit, fit_sketch, open_picture
from pipeline.errors import UserError
from tests.painters import tinting_painter
from tests.pictures import encoded, overlapping_tags, with_chunks, with_comments, with_scans

QUIET = Console(quiet=True)
RAMP = np.linspace(0, 1, 16 * 16, dtype=np.float32).reshape(16, 16)


def write_sketch(path: Path, width: int, height: int) -> Path:
    """Write a dark line from the middle to the end of white paper."""
    pixels = np.full((height, width), 255, np.uint8)
    pixels[height // 2 :, width // 2 :] = 0
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def references(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.png" for name in ("red", "blue")]
    for path in paths:
        Image.new("RGB", (32, 32), path.stem).save(path)
    return paths


@pytest.mark.parametrize("recipe", [{}, {"prepare": {"fit": "pad"}}])
@pytest.mark.parametrize("size", [(16, 16_000), (16_000, 16)])
def test_a_thin_sketch_is_coloured(
    tmp_path: Path, references: list[Path], size: tuple[int, int], recipe: dict[str, object]
) -> None:
    sketch = write_sketch(tmp_path / "thin.png", *size)
    painter = tinting_painter(recipe=recipe)
    assert (
        colorize_many(
            painter, [sketch], references, tmp_path / "c", QUIET, read_sketch
        ).num_pictures
        == 2
    )
    for path in references:
        with Image.open(tmp_path / "c" / path.stem / "thin.png") as image:
            assert image.size == size
    assert (tmp_path / "c" / "contact-sheet-1.png").is_file()


def test_of_a_thin_picture_a_line_is_left() -> None:
    for size, shape in (((1, 900), (64, 1)), ((900, 1), (1, 64))):
        small = np.asarray(fit(Image.new("L", size, 0), (64, 64), pad=True))
        rows, columns = np.nonzero(small < 255)
        assert (len(set(rows)), len(set(columns))) == shape
    thin = Image.new("L", (16, 16_000), 0)
    seen = fit_sketch(thin, (64, 64), pad=True)
    assert resize_to_sketch(np.zeros((64, 64, 3), np.uint8), seen, thin, pad=True).size == thin.size


@pytest.mark.parametrize(
    "levels",
    [
        RAMP,
        RAMP * 255,
        RAMP * 65535,
        (RAMP * 255).astype(np.int32),
        (RAMP * 65535).astype(np.int32),
        (RAMP * 65535).astype(np.uint16),
    ],
)
def test_levels_are_scaled_from_their_range(tmp_path: Path, levels: np.ndarray) -> None:
    Image.fromarray(levels).save(tmp_path / "deep.tif")
    found = np.asarray(open_picture(tmp_path / "deep.tif"))[..., 0]
    assert found == pytest.approx(RAMP * 255, abs=1)


def test_a_dark_scan_of_sixteen_bits_stays_dark(tmp_path: Path) -> None:
    Image.fromarray((RAMP * 255).astype(np.uint16)).save(tmp_path / "dark.tif")
    assert np.asarray(open_picture(tmp_path / "dark.tif")).max() == 1


def test_levels_below_black_are_black(tmp_path: Path) -> None:
    """Enlarging in floats overshoots."""
    Image.fromarray(RAMP * 300 - 45).save(tmp_path / "over.tif")
    found = np.asarray(open_picture(tmp_path / "over.tif"))[..., 0]
    assert found == pytest.approx(np.maximum(RAMP * 300 - 45, 0), abs=0.51)


@pytest.mark.parametrize("highest", [np.nan, np.inf, 1e6])
def test_levels_of_no_known_range_are_refused(tmp_path: Path, highest: float) -> None:
    levels = RAMP.copy()
    levels[3, 5] = highest
    Image.fromarray(levels).save(tmp_path / "deep.tif")
    with pytest.raises(UserError, match=r"deep\.tif: .*levels"):
        open_picture(tmp_path / "deep.tif")


def test_a_jpeg_of_scans_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(with_scans(encoded(Image.new("RGB", (64, 64)), progressive=True), 500))
    with pytest.raises(
        UserError, match=r"a\.jpg: has more scans, chunks or comments than any encoder writes"
    ):
        open_picture(path)


def test_a_gif_of_comments_without_an_end_is_refused(tmp_path: Path) -> None:
    gif = encoded(Image.new("RGB", (64, 64)), "gif")
    for num, is_taken in ((1000, True), (10_000, False)):
        (tmp_path / "a.gif").write_bytes(with_comments(gif, num))
        if is_taken:
            assert open_picture(tmp_path / "a.gif").size == (64, 64)
            continue
        with pytest.raises(UserError, match=r"a\.gif: has more scans, chunks or comments than any"):
            open_picture(tmp_path / "a.gif")


def test_a_png_of_chunks_without_an_end_is_refused(tmp_path: Path) -> None:
    png = encoded(Image.new("RGB", (64, 64)), "png")
    (tmp_path / "a.png").write_bytes(with_chunks(png, 100_000))
    with pytest.raises(UserError, match=r"a\.png: has more scans, chunks or comments than any"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_tags_that_lie_over_one_another_are_refused(tmp_path: Path, suffix: str) -> None:
    tags = overlapping_tags(100)
    picture = tmp_path / f"a.{suffix}"
    if suffix == "png":
        Image.new("RGB", (64, 64)).save(picture, exif=tags)
    else:
        picture.write_bytes(tags)
    with pytest.raises(UserError, match="the values of its tags lie over one another"):
        open_picture(picture)


@pytest.mark.parametrize("name", ["c.ico", "c.ICNS"])
def test_icons_do_not_keep_a_pictures_size(name: str) -> None:
    with pytest.raises(UserError, match="icons have sizes of their own; name it .png"):
        check_output(Path(name))


def test_a_folder_in_a_contact_sheets_place_is_named(
    tmp_path: Path, references: list[Path]
) -> None:
    sketch = write_sketch(tmp_path / "s.png", 64, 64)
    (tmp_path / "c" / "contact-sheet-1.png").mkdir(parents=True)
    with pytest.raises(UserError, match=r"contact-sheet-1\.png: is a folder"):
        colorize_many(tinting_painter(), [sketch], references, tmp_path / "c", QUIET, read_sketch)


def test_a_pipe_is_no_picture_to_wait_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png: is no plain file; give the path of a file"):
        open_picture(tmp_path / "pipe.png")
