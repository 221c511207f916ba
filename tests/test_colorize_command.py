"""colorize, as the command line calls it."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.checkpoint import load_checkpoint, save_checkpoint
from pipeline.errors import UserError
from pipeline.pictures.sketch import dodge
from tests.calls import call
from tests.model_checkpoints import write_checkpoint
from tests.pictures import draw_picture


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best.safetensors", "reference")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(draw_picture(1, 96, 80)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def sketch(tmp_path: Path) -> Path:
    Image.fromarray(dodge(draw_picture(2, 70, 50), 3.5)).save(tmp_path / "sketch.png")
    return tmp_path / "sketch.png"


def test_one_after_one(checkpoint: Path, sketch: Path, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    done = call("colorize", checkpoint, "--sketch", sketch, "--reference", picture, "--out", out)
    assert done.exit_code == 0, done.output
    assert done.output == f"{out}: 50 x 70\n"
    assert Image.open(out).size == (50, 70)


def test_guidance_is_for_models_that_know_it(
    checkpoint: Path, sketch: Path, picture: Path, tmp_path: Path
) -> None:
    arguments = ("--sketch", sketch, "--reference", picture, "--out", tmp_path / "out.png")
    found = call("colorize", checkpoint, *arguments, "--guidance", 2)
    assert "guidance needs a model that was trained to do without" in str(found.exception)
    assert not (tmp_path / "out.png").exists()
    tensors, info = load_checkpoint(checkpoint)
    train = dataclasses.replace(info.train, drop_reference=0.1)
    guided = tmp_path / "guided.safetensors"
    save_checkpoint(guided, tensors, dataclasses.replace(info, train=train))
    pictures = []
    for guidance in (0, 1, 3):
        assert call("colorize", guided, *arguments, "--guidance", guidance).exit_code == 0
        pictures.append(np.asarray(Image.open(tmp_path / "out.png")))
    assert all((a != b).any() for a, b in pairwise(pictures))


def test_many_after_many(checkpoint: Path, sketch: Path, picture: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sketches"
    folder.mkdir()
    sketch.rename(folder / "a.png")
    Image.fromarray(dodge(draw_picture(3), 3.5)).save(folder / "b.png")
    Image.fromarray(draw_picture(4)).save(tmp_path / "other.png")
    references = ("--reference", picture, "--reference", tmp_path / "other.png")
    done = call("colorize", checkpoint, "--sketch", folder, *references, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.output == f"{tmp_path}/out: 4 pictures of 2 sketches after 2 references\n"
    (tmp_path / "other.png").write_text("torn")
    some = call("colorize", checkpoint, "--sketch", folder, *references, "--out", tmp_path / "some")
    assert some.exit_code == 1
    assert some.stdout == f"{tmp_path}/some: 2 pictures of 2 sketches after 1 reference\n"
    assert some.stderr.startswith(f"left out: {tmp_path}/other.png: is not a picture")
    Image.fromarray(draw_picture(4)).save(tmp_path / "other.png")
    one = call(
        "colorize", checkpoint, "--sketch", folder / "a.png", *references, "--out", tmp_path / "one"
    )
    assert one.output == f"{tmp_path}/one: 2 pictures of 1 sketch after 2 references\n"
    found = sorted(
        str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/**/*.png")
    )
    assert found == [
        *("contact-sheet-1.png", "other/a.png", "other/b.png", "picture/a.png", "picture/b.png")
    ]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--sketch", "cannot be read as a picture: Too many levels of symbolic links."),
        ("--reference", "cannot be read as a picture: Too many levels of symbolic links."),
        ("--out", "no known picture format; name it .png, .jpg or .webp."),
    ],
)
def test_a_link_to_itself_is_a_sentence(
    checkpoint: Path, sketch: Path, picture: Path, tmp_path: Path, option: str, said: str
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    given = {"--sketch": sketch, "--reference": picture, "--out": tmp_path / "c.png"}
    arguments = [word for pair in (given | {option: loop}).items() for word in pair]
    error = call("colorize", checkpoint, *arguments).exception
    assert isinstance(error, UserError), error
    assert str(error) == f"{loop}: {said}"
    several = call("colorize", checkpoint, *arguments, "--sketch", picture.parent).exception
    assert isinstance(several, UserError), several


def test_a_colour_picture_wants_its_lines_drawn(
    checkpoint: Path, picture: Path, tmp_path: Path
) -> None:
    arguments = (checkpoint, "--sketch", picture, "--reference", picture)
    plain = call("colorize", *arguments, "--out", tmp_path / "plain.png")
    assert isinstance(plain.exception, UserError)
    assert "is a colour picture, not a sketch. Draw its lines" in str(plain.exception)
    pictures = []
    for method in ("dodge", "xdog", "none"):
        out = tmp_path / f"{method}.png"
        done = call("colorize", *arguments, "--extract-lines", method, "--out", out)
        assert done.exit_code == 0, done.output
        pictures.append(np.asarray(Image.open(out)))
    assert all((a != b).any() for a, b in pairwise(pictures))
    unknown = call(
        "colorize", *arguments, "--extract-lines", "crayon", "--out", tmp_path / "out.png"
    )
    assert "lines cannot be drawn by 'crayon'" in str(unknown.exception)
