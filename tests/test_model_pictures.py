import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.use.pictures import (
    fit,
    fit_sketch,
    has_color,
    is_blank,
    is_dark,
    is_line_art,
    open_picture,
    whiten,
)
from pipeline.dolls.data_set import make_dolls, picture_of
from pipeline.errors import UserError
from pipeline.pictures.image import decode
from pipeline.pictures.sketch import dodge
from tests.pictures import draw_picture, encoded, grey_png, swapped_profile

SMALL = {
    name: encoded(draw_picture(4, 24, 20), name)
    for name in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm")
}
DOLLS = [picture_of(doll) for doll in make_dolls(6, 1)]


def inked(lines: np.ndarray, ink: tuple[int, int, int], paper: tuple[int, int, int]) -> Image.Image:
    """Return line art, uint8 H x W, in other colours than black on white."""
    share = lines[..., None].astype(np.float32) / 255
    return Image.fromarray((share * paper + (1 - share) * ink).astype(np.uint8))


def test_transparent_and_turned_pictures_are_opened_as_seen(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (32, 16), (255, 0, 0, 0))
    clear.putpixel((0, 0), (0, 0, 255, 255))
    clear.save(tmp_path / "clear.png")
    opened = open_picture(tmp_path / "clear.png")
    assert (opened.mode, opened.getpixel((0, 0)), opened.getpixel((5, 2))) == (
        *("RGB", (0, 0, 255)),
        (255, 255, 255),
    )
    turned = Image.new("RGB", (32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").size == (16, 32)
    clear.convert("P").save(tmp_path / "palette.gif", save_all=True, append_images=[turned])
    assert open_picture(tmp_path / "palette.gif").mode == "RGB"
    turned.convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert open_picture(tmp_path / "cmyk.jpg").mode == "RGB"


def test_colours_are_those_that_the_profile_says(tmp_path: Path) -> None:
    """As training sees them; the profile has red and blue changed for each other."""
    data = encoded(draw_picture(4), "png", icc_profile=swapped_profile())
    (tmp_path / "swapped.png").write_bytes(data)
    opened = np.asarray(open_picture(tmp_path / "swapped.png"))
    assert (opened == decode(data)).all()
    assert np.abs(opened[..., ::-1].astype(int) - draw_picture(4)).mean() < 8


def test_the_grey_of_four_bits_that_is_none_is_opened_as_white(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(grey_png(np.full((16, 16), 9, np.uint8), 4, key=9))
    assert np.asarray(open_picture(tmp_path / "a.png")).min() == 255


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 20 * 20).astype(np.uint16).reshape(20, 20)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    opened = np.asarray(open_picture(tmp_path / "deep.png"))
    assert opened.shape == (20, 20, 3)
    assert np.abs(opened[..., 0] - levels / 257.0).max() <= 0.5


def test_the_grey_of_sixteen_bits_that_is_none_is_opened_as_white(tmp_path: Path) -> None:
    levels = np.full((20, 20), 30000, np.uint16)
    levels[:5] = 700
    Image.fromarray(levels).save(tmp_path / "a.png", transparency=700)
    assert np.unique(np.asarray(open_picture(tmp_path / "a.png"))).tolist() == [117, 255]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif", "gif", "bmp", "tiff", "ppm"])
def test_every_format_is_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(draw_picture(1, 40, 50)).save(path)
    assert open_picture(path).size == (50, 40)


def test_what_starts_other_programs_is_no_picture(tmp_path: Path) -> None:
    Image.fromarray(draw_picture(1, 40, 50)).save(tmp_path / "picture.eps")
    with pytest.raises(UserError, match=r"picture\.eps: is not a picture of a known format"):
        open_picture(tmp_path / "picture.eps")


def test_wrong_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "torn.jpg").write_bytes(encoded(draw_picture(2, 200, 100))[:900])
    (tmp_path / "empty.png").touch()
    Image.new("L", (15, 900)).save(tmp_path / "thin.png")
    cases = {
        "text.png": "is not a picture of a known format; save it as PNG, JPEG or WebP.",
        "empty.png": "is empty.",
        "torn.jpg": "cannot be read",
        "none.png": "no such file",
        "thin.png": "15 x 900 pixels are too few; each side has at least 16",
        "": "is a folder; give the path of a file",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            open_picture(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


@given(
    st.sampled_from(["png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm"]),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0, 1),
)
def test_whatever_the_bytes_it_is_a_picture_or_a_sentence(
    format_name: str, changes: list[tuple[int, int]], kept: float
) -> None:
    content = bytearray(SMALL[format_name])
    for place, value in changes:
        content[place % len(content)] = value
    with TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content[: max(1, int(len(content) * kept))])
        try:
            assert open_picture(path).mode == "RGB"
        except UserError as error:
            assert str(error).startswith(f"{path}: ")


def test_a_picture_that_is_too_large_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.use.pictures.MAX_PIXELS", 31)
    buffer = io.BytesIO()
    Image.new("L", (8, 4)).save(buffer, "png")
    path = tmp_path / "large.png"
    path.write_bytes(buffer.getvalue()[:60])  # no pixels in it: decoding would fail
    with pytest.raises(UserError, match="8 x 4 pixels are too many"):
        open_picture(path)


def test_colour_pictures_are_no_line_art() -> None:
    for picture in DOLLS:
        assert not is_line_art(Image.fromarray(picture))
        assert has_color(Image.fromarray(picture))
        grey = Image.fromarray(picture).convert("L")
        assert is_line_art(grey)
        assert not has_color(grey)


@pytest.mark.parametrize(
    ("num_pixels", "levels", "is_one"), [(201, 24, True), (200, 24, False), (201, 23, False)]
)
def test_a_little_colour_is_none(num_pixels: int, levels: int, is_one: bool) -> None:
    """Of 40,000 pixels over 0.5% differ from grey by 24 levels."""
    pixels = np.full((200, 200, 3), 128, np.uint8)
    pixels.reshape(-1, 3)[:num_pixels, 1] += levels
    assert has_color(Image.fromarray(pixels)) == is_one


@pytest.mark.parametrize("ink", [(0, 0, 0), (60, 110, 220), (150, 60, 40)])
@pytest.mark.parametrize("paper", [(255, 255, 255), (245, 232, 205), (180, 200, 220)])
def test_one_ink_on_one_paper_is_line_art(
    ink: tuple[int, int, int], paper: tuple[int, int, int]
) -> None:
    for picture in DOLLS:
        scan = io.BytesIO(encoded(np.asarray(inked(dodge(picture, 3.5), ink, paper))))
        assert is_line_art(Image.open(scan))


@pytest.mark.mirror
def test_real_pictures_and_their_sketches_are_told_apart(mirror: Path) -> None:
    paths = sorted(mirror.glob("512px/*/*.jpg"))[::40]
    told = []
    for path in paths:
        try:
            picture = np.asarray(open_picture(path))
        except UserError:
            continue  # the trouble among them
        told.append(is_line_art(Image.fromarray(picture)))
        assert is_line_art(inked(dodge(picture, 3.5), (60, 110, 220), (245, 232, 205)))
    assert len(told) > 80
    assert np.mean(told) < 0.05  # some are drawn in greys


def test_blank_and_dark_sketches_are_seen() -> None:
    paper = Image.new("RGB", (300, 200), "white")
    assert is_blank(paper)
    assert not is_dark(paper)
    lines = Image.fromarray(dodge(DOLLS[0], 3.5))
    assert not is_blank(lines)
    assert not is_dark(lines)
    assert is_dark(Image.eval(lines, lambda level: 255 - level))


def test_the_paper_of_a_scan_is_white_and_lines_stay() -> None:
    lines = Image.fromarray(dodge(DOLLS[0], 3.5))
    scan = inked(np.asarray(lines), (0, 0, 0), (238, 222, 176))
    assert np.abs(np.asarray(whiten(scan), int) - np.asarray(lines)).max() <= 2


def test_white_paper_with_tones_and_dark_paper_stay_as_they_are() -> None:
    pixels = np.full((100, 100), 180, np.uint8)
    pixels[:10] = 255
    for unchanged in (pixels, pixels // 4):
        assert (np.asarray(whiten(Image.fromarray(unchanged))) == unchanged).all()


def test_thin_lines_stay_dark_when_a_large_drawing_shrinks() -> None:
    large = np.full((2048, 2048), 255, np.uint8)
    large[:, 100::200] = 0
    large[:, 101::200] = 0
    plainly = Image.fromarray(large).resize((128, 128), Image.Resampling.LANCZOS)
    assert np.asarray(plainly).min() > 180
    seen = fit_sketch(Image.fromarray(large), (128, 128), pad=False)
    assert seen.min() < 80
    assert seen.max() == 255
    tone = np.full((2048, 2048), 255, np.uint8)
    tone[::2, 1024::2] = 0  # a quarter of the ink, evenly
    seen = fit_sketch(Image.fromarray(tone), (128, 128), pad=False)
    assert np.median(seen[:, 80:]) == pytest.approx(191, abs=2)
    small = Image.fromarray(dodge(DOLLS[1], 3.5)).crop((0, 0, 128, 128))
    assert (fit_sketch(small, (128, 128), pad=False) == np.asarray(small)).all()


def test_what_is_black_already_stays_black_where_thin_lines_are_made_darker() -> None:
    large = np.full((2048, 2048), 255, np.uint8)
    large[:, 100::200] = large[:, 101::200] = 0
    large[1000:1064, 1010:1074] = 0  # less than half a percent
    seen = fit_sketch(Image.fromarray(large), (128, 128), pad=False)
    assert seen[63:66, 64:66].max() < 20


def test_blank_paper_stays_blank() -> None:
    assert (fit_sketch(Image.new("L", (900, 600), 255), (64, 64), pad=True) == 255).all()


def test_padding_makes_no_line_darker() -> None:
    """What covers more than half a percent of a sketch may cover less with the bars."""
    sketch = np.full((32, 128), 255, np.uint8)
    sketch[8, 20:60], sketch[20, 20:60] = 150, 20
    seen = fit_sketch(Image.fromarray(sketch), (128, 128), pad=True)
    assert (seen[48:80] == sketch).all()


def test_a_padded_picture_fills_one_side() -> None:
    for sides, shape in (((300, 100), (32, 96)), ((100, 300), (64, 21))):
        rows, columns = np.nonzero(np.asarray(fit(Image.new("L", sides), (96, 64), pad=True)) < 128)
        assert (len(set(rows)), len(set(columns))) == shape
