"""Inventing dolls: traits, poses and palettes, each a pure function of a seed and indices."""

import colorsys
import random
from collections.abc import Sequence
from typing import TypeVar

from pipeline.dolls.backdrops import BACKDROPS
from pipeline.dolls.character import Backdrop, Character, Color, Palette, Pose
from pipeline.dolls.drawing import ARMS, FRAMINGS, LEGWEAR
from pipeline.dolls.face import BROWS, EYELIDS, EYES, MOUTHS
from pipeline.dolls.hair import FRINGES, HAIR, SIDELOCKS
from pipeline.dolls.headwear import HEADWEAR
from pipeline.dolls.outfits import OUTFITS

T = TypeVar("T")

# Fractions of irrational numbers that have no simple relation: their multiples fill the cube
# evenly, so every new palette keeps away from those before it.
_STEPS = tuple(root**0.5 % 1 for root in (2, 3, 7, 11, 13, 17, 19, 23, 29, 31))

_SKINS = ((255, 238, 226), (253, 224, 202), (240, 198, 168), (206, 154, 118), (150, 102, 76))

_ASPECTS = {
    "full_body": (0.625, 0.6875, 0.75),
    "cowboy_shot": (0.6875, 0.75, 0.875),
    "upper_body": (0.75, 0.875, 1.0, 1.1428),
    "portrait": (0.875, 1.0, 1.1428, 1.25),
}
"""Width by height of the pictures of each framing."""


_HEADWEAR = ("", "", "", *(style for style in HEADWEAR if style))
_EYELIDS = ("", "", "", *EYELIDS)  # open ones show their colour
_BROWS = ("", *BROWS)
_BACKDROPS = (*["white_background"] * 5, *BACKDROPS)


def invent_character(seed: int, index: int) -> Character:
    """Return the traits of character ``index``."""
    who = f"{seed} character"
    return Character(
        hair=_deal(f"{who} hair", index, [*HAIR]),
        fringe=_deal(f"{who} fringe", index, [*FRINGES]),
        sidelocks=_deal(f"{who} sidelocks", index, [*SIDELOCKS]),
        ahoge=_deal(f"{who} ahoge", index, [True, False, False, False]),
        eyes=_deal(f"{who} eyes", index, [*EYES]),
        outfit=_deal(f"{who} outfit", index, [*OUTFITS]),
        legwear=_deal(f"{who} legwear", index, [*LEGWEAR]),
        headwear=_deal(f"{who} headwear", index, _HEADWEAR),
        glasses=_deal(f"{who} glasses", index, [True, *[False] * 6]),
    )


def invent_pose(seed: int, index: int, pose: int) -> Pose:
    """Return pose number ``pose`` of character ``index``."""
    who = f"{seed} pose {index}"
    rng = random.Random(f"{who} {pose}")
    return Pose(
        framing=_deal(f"{who} framing", pose, [*FRAMINGS]),
        zoom=rng.uniform(0.88, 1.08),
        shift=(rng.uniform(-0.07, 0.07), rng.uniform(-0.03, 0.03)),
        flip=rng.random() < 0.5,
        tilt=rng.uniform(-14, 14),
        lean=rng.uniform(-8, 8),
        turn=rng.uniform(-0.35, 0.35),
        nod=rng.uniform(-0.12, 0.12),
        gaze=(rng.uniform(-1, 1), rng.uniform(-0.5, 0.7)),
        eyelids=_deal(f"{who} eyelids", pose, _EYELIDS),
        brows=_deal(f"{who} brows", pose, _BROWS),
        mouth=_deal(f"{who} mouth", pose, MOUTHS),
        blush=rng.random() < 0.6,
        arms=(
            _deal(f"{who} left arm", pose, [*ARMS]),
            _deal(f"{who} right arm", pose, [*ARMS]),
        ),
        stride=rng.uniform(-1, 1),
        wind=rng.uniform(-1, 1),
    )


def invent_backdrop(seed: int, index: int, pose: int) -> Backdrop:
    """Return what is behind character ``index`` in pose number ``pose``."""
    who = f"{seed} backdrop {index}"
    rng = random.Random(f"{who} {pose}")
    return Backdrop(
        kind=_deal(who, pose, _BACKDROPS),
        scale=rng.uniform(0.6, 1.3),
        angle=rng.uniform(-60, 60),
        shift=rng.uniform(-0.3, 0.3),
        outlined=rng.random() < 0.6,
    )


def invent_backdrop_colors(seed: int, index: int, pose: int) -> tuple[Color, Color]:
    """Return the colours of paper and of scenery, mostly pale and apart from each other."""
    rng = random.Random(f"{seed} backdrop colors {index} {pose}")
    hue = rng.random()
    paper = _from_hsv(hue, rng.uniform(0.05, 0.55), rng.uniform(0.65, 1))
    scenery = _from_hsv(hue + rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.7), rng.uniform(0.5, 1))
    return paper, scenery


def _deal(deck: str, index: int, options: Sequence[T]) -> T:
    """Return card ``index`` of shuffled packs of ``options``: each comes up once in a pack."""
    pack = [*options]
    random.Random(f"{deck} {index // len(pack)}").shuffle(pack)
    return pack[index % len(pack)]


def invent_size(seed: int, index: int, pose: int) -> tuple[int, int]:
    """Return width and height of a picture, the longer one 512 pixels, the other one even."""
    framing = invent_pose(seed, index, pose).framing
    aspect = random.Random(f"{seed} size {index} {pose}").choice(_ASPECTS[framing])
    short = 2 * round(256 * min(aspect, 1 / aspect))
    return (short, 512) if aspect < 1 else (512, short)


def invent_palette(seed: int, index: int) -> Palette:
    """Return the colours of character ``index``, well apart from those of its neighbours."""
    starts = random.Random(f"{seed} palettes")
    t = [(starts.random() + step * index) % 1 for step in _STEPS]
    clothes_hue = t[4]
    return Palette(
        hair=_hair_color(t[0], t[1], t[2]),
        eyes=_from_hsv(t[3], 0.6 + 0.25 * t[9], 0.85),
        skin=_between(_SKINS, t[5] ** 1.5),
        clothes=_from_hsv(clothes_hue, 0.3 + 0.45 * t[6], 0.42 + 0.52 * t[7]),
        accent=_from_hsv(clothes_hue + 0.25 + 0.5 * t[8], 0.7, 0.88),
        accessory=_from_hsv(t[9], 0.6, 0.65 + 0.3 * t[6]),
    )


def _hair_color(hue: float, kind: float, depth: float) -> Color:
    """Return brown to blond for a quarter of all kinds, then some silver and near-black ones."""
    if kind < 0.25:
        return _from_hsv(0.03 + 0.1 * depth, 0.6 - 0.15 * depth, 0.45 + 0.5 * depth)
    if kind < 0.33:
        return _from_hsv(hue, 0.08, 0.75 + 0.17 * depth)
    if kind < 0.42:
        return _from_hsv(hue, 0.3, 0.34 + 0.08 * depth)
    return _from_hsv(hue, 0.25 + 0.4 * (kind - 0.42) / 0.58, 0.62 + 0.34 * depth)


def _from_hsv(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _between(colors: Sequence[Color], position: float) -> Color:
    """Return the colour at ``position``, 0 to 1, along a row of colours."""
    scaled = position * (len(colors) - 1)
    index = min(int(scaled), len(colors) - 2)
    share = scaled - index
    pairs = zip(colors[index], colors[index + 1], strict=True)
    red, green, blue = (round(a + (b - a) * share) for a, b in pairs)
    return red, green, blue
