"""Drawing a doll: its character and pose give the lines, its palette the colours."""

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from pipeline.dolls.backdrops import draw_backdrop
from pipeline.dolls.canvas import (
    SUPERSAMPLING,
    Labels,
    Part,
    Pen,
    Points,
    Tone,
    Warp,
    curve,
    ellipse,
    paint,
    path,
    polygon,
    shape,
)
from pipeline.dolls.character import Character, Palette, Pose
from pipeline.dolls.face import draw_brows, draw_face
from pipeline.dolls.hair import draw_back_hair, draw_front_hair, sway
from pipeline.dolls.headwear import draw_headwear
from pipeline.dolls.outfits import OUTFITS, draw_limb
from pipeline.pictures.image import Picture


def draw_doll(
    character: Character, pose: Pose, palette: Palette, height: int, width: int
) -> Picture:
    """Draw a doll before its backdrop.

    Another palette changes no line and no region: those are ``draw_labels``'s.

    Returns:
        uint8 RGB, height x width x 3.

    Raises:
        KeyError: on a trait that its table does not hold.
    """
    return paint(draw_labels(character, pose, height, width), mix_colors(palette))


def mix_colors(palette: Palette) -> NDArray[np.uint8]:
    """Return the RGB of every label, uint8, N x 3."""
    colors: Points = np.full((len(Part), len(Tone), 3), 255.0)
    colors[Part.INK] = (58, 40, 52)
    colors[Part.WHITE, Tone.SHADE] = (220, 222, 240)
    colors[Part.MOUTH] = [(196, 84, 92), (150, 56, 70), (244, 150, 150), (120, 40, 60)]
    for field in fields(palette):
        name = field.name
        base = np.array(getattr(palette, name), np.float64)
        shade, deep = base * (0.76, 0.69, 0.82), base * (0.55, 0.45, 0.6)
        if name == "skin":
            shade, deep = base * (0.93, 0.79, 0.77), 0.72 * base + (68, 24, 28)
        if name == "eyes":
            shade, deep = base * (0.56, 0.5, 0.62), base * 0.24
        colors[Part[name.upper()]] = [base, shade, 0.5 * base + 127.5, deep]
    return colors.round().clip(0, 255).astype(np.uint8).reshape(-1, 3)


FRAMINGS = {
    "full_body": (-1.8, 3.6, 3.2),
    "cowboy_shot": (-1.7, 2.4, 3.0),
    "upper_body": (-1.6, 1.75, 2.8),
    "portrait": (-1.4, 1.2, 2.4),
}
"""Uppermost and lowest line, and width, of what each framing shows; the head is 2 high."""


def draw_labels(character: Character, pose: Pose, height: int, width: int) -> Labels:
    """Draw a doll without colours.

    Returns:
        uint8, (SUPERSAMPLING * height) x (SUPERSAMPLING * width): the label of each point.
    """
    labels = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    draw_backdrop(_canvas(labels), pose.backdrop)
    body = _frame(labels, pose).turned(pose.lean, 2.2)
    head = body.turned(pose.tilt, 0.85)
    face = head.warped(_turn_face(pose.turn, pose.nod))
    back = head.at(-0.35 * pose.turn, -0.2 * pose.nod).warped(sway(pose.wind))
    draw_back_hair(back, character.hair)
    _draw_body(body, character, pose)
    draw_face(face, character, pose)
    draw_front_hair(face, character, pose.wind)
    draw_brows(face, pose.brows)
    draw_headwear(face, character.headwear)
    _draw_arms(body, character, pose, raised=True)
    return labels


def _canvas(labels: Labels) -> Pen:
    """Return a pen whose unit is half the longer side, and its origin the middle."""
    height, width = labels.shape
    unit = max(height, width) / 2
    ink = 1.15 * SUPERSAMPLING
    return Pen(labels, ink, (np.array([(unit, 0), (0, unit), (width / 2, height / 2)]),))


def _frame(labels: Labels, pose: Pose) -> Pen:
    height, width = labels.shape
    top, bottom, across = FRAMINGS[pose.framing]
    unit = pose.zoom * min(height / (bottom - top), width / across)
    x = width * (0.5 + pose.shift[0])
    y = height * (0.5 + pose.shift[1]) - unit * (top + bottom) / 2
    ink = 1.15 * SUPERSAMPLING + 0.007 * unit
    flip = -1 if pose.flip else 1
    return Pen(labels, ink, (np.array([(unit * flip, 0), (0, unit), (x, y)]),))


def _turn_face(turn: float, nod: float) -> Warp:
    """Return the warp that moves a point by its height over a dome: the face turns or nods."""

    def warp(points: Points) -> Points:
        depth: Points = np.maximum(0, 1 - (points * points).sum(axis=1, keepdims=True) / 1.5)
        return points + depth * (turn, nod)

    return warp


ARMS = {
    "arm_at_side": ".62 1.5, .72 1.8, .76 2.08",
    "hand_on_own_hip": ".74 1.42, .98 1.66, .86 1.86, .58 1.94",
    "waving": ".7 1.42, .98 1.5, 1.14 1.28, 1.24 .98",
    "arm_up": ".74 1.16, 1 .98, 1.14 .72, 1.24 .4",
    "own_hands_together": ".6 1.46, .68 1.74, .5 1.9, .14 1.86",
    "hand_on_own_cheek": ".66 1.46, .9 1.54, .94 1.3, .72 .98",
    "outstretched_arm": ".72 1.34, 1.04 1.44, 1.38 1.42",
    "arm_behind_back": ".66 1.46, .76 1.7, .64 1.9, .4 1.96",
}
"""Elbow to hand of a right arm; its shoulder is at (0.44, 1.24)."""

_RAISED = {"waving", "arm_up", "own_hands_together", "hand_on_own_cheek"}

LEGWEAR = {
    "bare_legs": (1.0, Part.SKIN),
    "socks": (0.75, Part.WHITE),
    "kneehighs": (0.5, Part.ACCENT),
    "thighhighs": (0.2, Part.WHITE),
    "pantyhose": (0.0, Part.ACCESSORY),
}
"""Where along the leg it begins, and its part."""


def _draw_body(pen: Pen, character: Character, pose: Pose) -> None:
    outfit = OUTFITS[character.outfit]
    for half, arm in zip(pen.halves(), pose.arms, strict=True):
        if arm == "arm_behind_back":
            _draw_arm(half, character, arm)
    for half, side in zip(pen.halves(), (-1, 1), strict=True):
        _draw_leg(half, character, pose.stride * side)
    outfit.draw_back(pen)
    pen.fill(polygon("-.15 .8, .15 .8, .17 1.2, -.17 1.2"), Part.SKIN)
    pen.shade(polygon("-.2 .8, .2 .8, .2 1.06, -.2 1.12"), Part.SKIN)
    outfit.draw(pen)
    _draw_arms(pen, character, pose, raised=False)


def _draw_arms(pen: Pen, character: Character, pose: Pose, *, raised: bool) -> None:
    for half, arm in zip(pen.halves(), pose.arms, strict=True):
        if arm != "arm_behind_back" and (arm in _RAISED) == raised:
            _draw_arm(half, character, arm)


def _draw_arm(pen: Pen, character: Character, arm: str) -> None:
    outfit = OUTFITS[character.outfit]
    middle = path(".44 1.24, " + ARMS[arm])
    draw_limb(pen, middle, (0.13, 0.12, 0.1), Part.SKIN)
    x, y = middle[-1]
    pen.at(x, y + 0.02).fill(ellipse(0, 0, 0.13, 0.13), Part.SKIN)
    length = len(middle) - 3 if outfit.long_sleeves else 8
    outline = draw_limb(pen, middle[:length], outfit.widths, outfit.sleeve)
    pen.fill(outline[length - 2 : length + 2], outfit.cuff)


def _draw_leg(pen: Pen, character: Character, stride: float) -> None:
    """Draw a right leg; ``stride`` moves it out, or up where it is negative."""
    begin, part = LEGWEAR[character.legwear]
    foot = (0.26 + 0.14 * abs(stride), 3.24 + 0.22 * min(stride, 0))
    middle = curve(np.array([(0.23, 2.2), (0.24 + 0.06 * abs(stride), 2.7), foot]))
    draw_limb(pen, middle, (0.22, 0.18, 0.13), Part.SKIN)
    first = round(begin * (len(middle) - 1))
    if first < len(middle) - 1:
        start = 0.22 - 0.09 * begin
        draw_limb(pen, middle[first:], (start, 0.13), part)
    shoe = pen.at(*foot)
    shoe.fill(shape("-.15 -.1, .13 -.1, .2 .05, .25 .17, .1 .22, -.12 .2, -.18 .1"), Part.ACCESSORY)
    shoe.shade(polygon("-.3 .11, .3 .11, .3 .3, -.3 .3"), Part.ACCESSORY)
