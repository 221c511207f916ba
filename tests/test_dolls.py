"""Drawing dolls, and the cast of them."""

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.dolls.backdrops import BACKDROPS
from pipeline.dolls.canvas import Part, Tone, label_of
from pipeline.dolls.character import Backdrop, Character, Palette, Pose
from pipeline.dolls.data_set import (
    MAX_POSES,
    Doll,
    doll_of,
    make_dolls,
    picture_of,
    true_answer,
)
from pipeline.dolls.drawing import ARMS, FRAMINGS, LEGWEAR, draw_doll, draw_labels, mix_colors
from pipeline.dolls.face import BROWS, EYELIDS, EYES, MOUTHS
from pipeline.dolls.hair import FRINGES, HAIR, SIDELOCKS
from pipeline.dolls.headwear import HEADWEAR
from pipeline.dolls.outfits import OUTFITS
from pipeline.pictures.image import Picture, perceptual_hash, resize
from pipeline.recipe_file import load_recipe

DAY = Palette(
    (230, 120, 160), (40, 160, 90), (250, 222, 200), (60, 90, 170), (220, 60, 50), (240, 200, 60)
)
NIGHT = Palette(
    (90, 70, 200), (200, 140, 30), (150, 102, 76), (40, 120, 60), (30, 180, 190), (150, 40, 140)
)
DRESSED = Character(
    "twintails", "bangs", "sidelocks", True, "", "overalls", "kneehighs", "hair_bow", True
)
STANDING = Pose("full_body")

Mask = NDArray[np.bool_]


def shows(picture: Picture, color: tuple[int, int, int]) -> Mask:
    """Return where a picture has exactly this colour."""
    mask: Mask = (picture == np.array(color, np.uint8)).all(axis=2)
    return mask


def color_of(palette: Palette, part: Part, tone: Tone = Tone.BASE) -> tuple[int, int, int]:
    red, green, blue = mix_colors(palette)[label_of(part, tone)].tolist()
    return red, green, blue


# Drawing


def test_the_same_doll_is_drawn_to_the_byte() -> None:
    first, second = make_dolls(3, 2, seed=1), make_dolls(3, 2, seed=1)
    assert first == second
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(picture_of(a), picture_of(b))


@pytest.mark.parametrize("doll", make_dolls(3, 3, seed=2), ids=lambda doll: str(doll.post_id))
def test_a_palette_touches_no_line_and_no_region(doll: Doll) -> None:
    labels = draw_labels(doll.character, doll.pose, doll.height, doll.width)
    blocks = labels.reshape(doll.height, 2, doll.width, 2).swapaxes(1, 2)
    flat = blocks.min(axis=(2, 3)) == blocks.max(axis=(2, 3))
    assert 0.7 < flat.mean() < 1
    for palette in (DAY, NIGHT):
        picture = draw_doll(doll.character, doll.pose, palette, doll.height, doll.width)
        assert picture.dtype == np.uint8
        assert picture.shape == (doll.height, doll.width, 3)
        colors = mix_colors(palette)[blocks]
        assert np.array_equal(picture[flat], colors[flat][:, 0, 0])
        assert np.abs(picture - colors.mean(axis=(2, 3))).max() <= 0.5
    assert (labels == label_of(Part.INK)).mean() > 0.005
    assert {part for part in Part if (labels // len(Tone) == part).any()} >= {Part.HAIR, Part.SKIN}


def test_the_true_answer_has_the_lines_of_one_doll_and_the_colours_of_the_other() -> None:
    sketch, reference = make_dolls(2, 1, seed=3)
    answer = true_answer(sketch, reference)
    own = picture_of(sketch)
    assert np.array_equal(true_answer(sketch, sketch), own)
    assert answer.shape == own.shape
    hair = shows(own, sketch.palette.hair)
    assert hair.sum() > 1000
    assert np.array_equal(shows(answer, reference.palette.hair), hair)
    assert not shows(answer, sketch.palette.hair).any()


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("hair", HAIR),
        ("fringe", FRINGES),
        ("sidelocks", SIDELOCKS),
        ("ahoge", (False, True)),
        ("eyes", EYES),
        ("outfit", OUTFITS),
        ("legwear", LEGWEAR),
        ("headwear", HEADWEAR),
        ("glasses", (False, True)),
    ],
)
def test_every_trait_shows(field: str, options: list[object]) -> None:
    characters = [replace(DRESSED, **{field: option}) for option in options]  # type: ignore[arg-type]
    drawn = {draw_labels(character, STANDING, 256, 160).tobytes() for character in characters}
    assert len(drawn) == len(options) > 1


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("framing", list(FRAMINGS)),
        ("zoom", [0.9, 1.1]),
        ("shift", [(0.0, 0.0), (0.05, 0.0), (0.0, 0.05)]),
        ("flip", [False, True]),
        ("tilt", [-10.0, 0.0, 10.0]),
        ("lean", [-5.0, 0.0, 5.0]),
        ("turn", [-0.3, 0.0, 0.3]),
        ("nod", [-0.1, 0.0, 0.1]),
        ("gaze", [(-1.0, 0.0), (0.0, 0.0), (0.0, 0.7)]),
        ("eyelids", list(EYELIDS)),
        ("brows", list(BROWS)),
        ("mouth", list(MOUTHS)),
        ("blush", [False, True]),
        ("arms", [(arm, "arm_at_side") for arm in ARMS]),
        ("stride", [-1.0, 0.0, 1.0]),
        ("wind", [-1.0, 0.0, 1.0]),
        ("backdrop", [Backdrop(kind) for kind in BACKDROPS]),
        ("backdrop", [Backdrop("outdoors", outlined=outlined) for outlined in (False, True)]),
        ("backdrop", [Backdrop("outdoors", scale=scale) for scale in (0.7, 1.0)]),
        ("backdrop", [Backdrop("outdoors", shift=shift) for shift in (-0.3, 0.0, 0.3)]),
        ("backdrop", [Backdrop("striped_background", angle=angle) for angle in (-40, 0, 40)]),
        ("backdrop", [Backdrop("indoors", angle=angle) for angle in (-40, 40)]),
    ],
)
def test_every_part_of_a_pose_shows(field: str, options: list[object]) -> None:
    poses = [replace(STANDING, **{field: option}) for option in options]  # type: ignore[arg-type]
    drawn = {draw_labels(DRESSED, pose, 256, 160).tobytes() for pose in poses}
    assert len(drawn) == len(options) > 1


def test_a_flipped_pose_is_the_mirror_image() -> None:
    pose = replace(STANDING, tilt=7.0, wind=0.5)
    plain, flipped = (
        resize(draw_doll(DRESSED, replace(pose, flip=flip), DAY, 512, 320), 32).astype(int)
        for flip in (False, True)
    )
    assert np.abs(plain - flipped[:, ::-1]).mean() < 3
    assert np.abs(plain - flipped).mean() > 10


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**64),
    index=st.integers(0, 79_999),
    pose=st.integers(0, MAX_POSES - 1),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    backdrops=st.booleans(),
)
def test_drawing_never_fails(
    seed: int, index: int, pose: int, height: int, width: int, backdrops: bool
) -> None:
    doll = doll_of(1_000_000 + MAX_POSES * index + pose, seed, backdrops=backdrops)
    assert draw_doll(doll.character, doll.pose, doll.palette, height, width).shape == (
        height,
        width,
        3,
    )
    assert max(doll.width, doll.height) == 512
    assert min(doll.width, doll.height) >= 288
    picture = picture_of(doll)
    if doll.pose.backdrop.kind == "white_background":
        assert 0.02 < shows(picture, (255, 255, 255)).mean() < 0.9  # a close-up has little paper
    assert shows(picture, color_of(doll.palette, Part.INK)).any()


# The cast


def test_more_dolls_change_none_of_those_before() -> None:
    few, many = make_dolls(5, 3, seed=7), make_dolls(9, 6, seed=7)
    assert set(few) < set(many)
    assert len(many) == len({doll.post_id for doll in many}) == 54
    assert not set(few) & set(make_dolls(5, 3, seed=8))


def test_a_post_id_and_the_seed_recall_the_doll() -> None:
    for doll in make_dolls(3, 3, seed=4):
        assert doll_of(doll.post_id, seed=4) == doll
    assert doll_of(1_001_203).character_name == "doll_0012_(nurie)"
    for other in (0, 999_999, 9_000_000):
        with pytest.raises(ValueError, match="no doll"):
            doll_of(other)


def test_backdrops_change_nothing_else() -> None:
    plain, varied = make_dolls(6, 13), make_dolls(6, 13, backdrops=True)
    for one, other in zip(plain, varied, strict=True):
        assert doll_of(other.post_id, backdrops=True) == other
        assert replace(other.pose, backdrop=Backdrop()) == one.pose
        palette = replace(other.palette, paper=one.palette.paper, scenery=one.palette.scenery)
        assert replace(other, pose=one.pose, palette=palette) == one
        white = other.pose.backdrop.kind == "white_background"
        assert (other.palette == one.palette) == white
        assert white or min(shows(picture_of(other), other.palette.paper).sum(), 99) > 20
    kinds = Counter(doll.pose.backdrop.kind for doll in varied)
    assert kinds == {kind: 6 * (6 if kind == "white_background" else 1) for kind in BACKDROPS}
    assert {doll.pose.backdrop.kind for doll in plain} == {"white_background"}


def test_the_true_answer_has_the_backdrop_of_one_picture_and_its_colours_of_the_other() -> None:
    dolls = make_dolls(2, 13, backdrops=True)
    striped, checkered, white = (
        next(doll for doll in dolls if doll.pose.backdrop.kind == kind)
        for kind in ("striped_background", "checkered_background", "white_background")
    )
    own = picture_of(striped)
    for reference in (checkered, white):
        answer = true_answer(striped, reference)
        for part in (Part.PAPER, Part.SCENERY):
            there = shows(own, color_of(striped.palette, part))
            assert there.sum() > 1000
            assert shows(answer, color_of(reference.palette, part))[there].all()
    paper = shows(picture_of(white), (255, 255, 255))
    assert paper.sum() > 1000
    assert shows(true_answer(white, striped), (255, 255, 255))[paper].all()


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0), (80_001, 1), (1, MAX_POSES + 1)])
def test_numbers_that_ids_have_no_room_for_are_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 of each"):
        make_dolls(*numbers)


def test_posts_of_a_character_share_all_but_the_pose() -> None:
    dolls = make_dolls(3, 8, seed=0)
    for name in {doll.character_name for doll in dolls}:
        posts = [doll for doll in dolls if doll.character_name == name]
        assert len({(doll.character, doll.palette) for doll in posts}) == 1
        assert len({doll.pose for doll in posts}) == len(posts) == 8
        assert {doll.pose.framing for doll in posts} == set(FRAMINGS)


def test_palettes_are_spread_and_skins_natural() -> None:
    palettes = [doll.palette for doll in make_dolls(96, 1)]
    assert len(set(palettes)) == 96
    for name in ("hair", "clothes", "accent", "accessory", "eyes"):
        colors = np.array([[getattr(palette, name) for palette in palettes]], np.uint8)
        hues = cv2.cvtColor(colors, cv2.COLOR_RGB2HSV)[0, :, 0] // 15
        assert len(set(hues.tolist())) == 12, f"{name} misses a twelfth of the wheel"
    for palette in palettes:
        red, green, blue = palette.skin
        assert 255 >= red > green > blue >= 70


@pytest.mark.slow
def test_different_dolls_look_different_to_the_search_for_duplicates() -> None:
    dolls = make_dolls(25, 8, seed=0)
    hashes = np.array([perceptual_hash(picture_of(doll)) for doll in dolls], np.uint64)
    first, second = np.triu_indices(len(hashes), k=1)
    bits = np.bitwise_count(hashes[first] ^ hashes[second])
    assert (bits > 6).mean() > 0.9999
    assert bits.min() > load_recipe("dolls-64").prepare.near_duplicates
