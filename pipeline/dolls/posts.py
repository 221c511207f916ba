"""Dolls as posts: a record in Danbooru's 2021 schema, a file, and every kind of trouble."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import cv2
import numpy as np
import orjson
import simplejpeg

from pipeline.dolls.character import Character, Color, Palette, Pose
from pipeline.dolls.drawing import draw_doll
from pipeline.pictures.image import Picture, encode_jpeg
from pipeline.pictures.letterbox import predict_box
from pipeline.records import Fate, Status

Record = dict[str, Any]

_SIDE = 512
_QUALITY = 92
_KEPT = Fate(Status.KEPT)


@dataclass(frozen=True, slots=True)
class Doll:
    """One drawn post of a character.

    Attributes:
        post_id: says which character and which pose; see ``data_set.doll_of``.
        character_name: its character tag, such as ``doll_0012_(nurie)``.
        character: what all posts of this name share.
        pose: this post's own.
        palette: the character's colours, and this post's backdrop's.
        width: of the picture in pixels; the longer side is 512.
        height: likewise.
    """

    post_id: int
    character_name: str
    character: Character
    pose: Pose
    palette: Palette
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class DollPost:
    """What the folder holds of one post.

    Attributes:
        record: in the 2021 schema.
        content: the file's bytes, None for no file.
        fate: what must become of it.
        line: the record's line where it is not simply the record.
    """

    record: Record
    content: bytes | None
    fate: Fate = _KEPT
    line: bytes = b""

    @property
    def post_id(self) -> int:
        """The id that the record has, or had before it was damaged."""
        return int(self.record["id"])

    def to_line(self) -> bytes:
        """Return the record's line in the metadata."""
        return self.line or orjson.dumps(self.record, option=orjson.OPT_APPEND_NEWLINE)


def picture_of(doll: Doll) -> Picture:
    """Return a doll's own picture, uint8 RGB, height x width x 3."""
    return draw_doll(doll.character, doll.pose, doll.palette, doll.height, doll.width)


def post_doll(doll: Doll) -> DollPost:
    """Return the post of a doll, which is to be kept."""
    return _post(doll, picture_of(doll))


def _post(doll: Doll, picture: Picture, **changes: Any) -> DollPost:
    """Return the post of a picture, with a doll's tags and ``changes`` in its record."""
    content = encode_jpeg(_letterbox(picture), _QUALITY)
    return DollPost(_record_of(doll, picture, content) | changes, content)


def _letterbox(picture: Picture) -> Picture:
    """Return a picture scaled to the long side and centred on black, as the 512px layout does."""
    box = predict_box(_SIDE, picture.shape[1], picture.shape[0])
    canvas = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    scaled = cv2.resize(picture, (box.width, box.height), interpolation=cv2.INTER_CUBIC)
    canvas[box.top : box.bottom, box.left : box.right] = scaled
    return canvas


def _record_of(doll: Doll, picture: Picture, content: bytes) -> Record:
    general = " ".join(sorted(_general_tags(doll)))
    rng = random.Random(doll.post_id)
    return {
        "id": doll.post_id,
        "created_at": f"2021-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d} 12:00:00 UTC",
        "uploader_id": 1,
        "score": rng.randint(-2, 60),
        "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
        "rating": "s",
        "image_width": picture.shape[1],
        "image_height": picture.shape[0],
        "file_ext": "jpg",
        "file_size": len(content),
        "tag_string": f"{general} nurie nurie_dolls {doll.character_name}",
        "tag_string_general": general,
        "tag_string_artist": "nurie",
        "tag_string_copyright": "nurie_dolls",
        "tag_string_character": doll.character_name,
    }


_HAIR_COLORS: dict[str, Color] = {
    "black_hair": (75, 65, 75),
    "grey_hair": (200, 195, 200),
    "brown_hair": (140, 90, 60),
    "blonde_hair": (235, 200, 115),
    "orange_hair": (235, 150, 80),
    "red_hair": (200, 75, 75),
    "pink_hair": (230, 150, 180),
    "purple_hair": (160, 110, 200),
    "blue_hair": (105, 135, 215),
    "aqua_hair": (110, 205, 210),
    "green_hair": (125, 190, 110),
}


def _general_tags(doll: Doll) -> set[str]:
    character, pose = doll.character, doll.pose
    hair = np.array(doll.palette.hair)
    color = min(_HAIR_COLORS, key=lambda name: float(np.abs(hair - _HAIR_COLORS[name]).sum()))
    tags = {
        *("1girl", "chibi", "doll", "solo", color, pose.backdrop.kind),
        *(character.hair, character.fringe, character.sidelocks, character.eyes),
        *(character.outfit, character.legwear, character.headwear),
        *(pose.framing, pose.eyelids, pose.brows, pose.mouth, *pose.arms),
        "ahoge" if character.ahoge else "",
        "glasses" if character.glasses else "",
        "blush" if pose.blush else "",
        "simple_background" if pose.backdrop.kind == "white_background" else "",
    }
    return tags - {""}


_RECORD_TROUBLE: tuple[tuple[str, Record], ...] = (
    ("rating", {"rating": "q"}),
    ("rating", {"rating": "e"}),
    ("deleted", {"is_deleted": True}),
    ("banned", {"is_banned": True}),
    ("not_a_picture", {"file_ext": "gif"}),
    ("not_a_picture", {"file_ext": "mp4"}),
    ("nsfw_id", {}),
)
"""Reason for which a recipe leaves a post out, and what in its record is the reason."""

_NOT_FOUND = b"<!DOCTYPE html>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"

_FILE_TROUBLE: tuple[tuple[Fate, Callable[[bytes], bytes | None]], ...] = (
    (Fate(Status.MISSING, "http_404"), lambda content: None),
    (Fate(Status.REJECTED, "empty"), lambda content: b""),
    (Fate(Status.REJECTED, "not_an_image"), lambda content: _NOT_FOUND),
    (Fate(Status.CORRUPT, "truncated"), lambda content: content[: len(content) // 2]),
)
"""Fate of a post, and what happened to its file."""


def make_trouble(dolls: Sequence[Doll], spares: Iterator[Doll], repeats: int) -> Iterator[DollPost]:
    """Yield posts with something the matter, each kind ``repeats`` times.

    Args:
        dolls: what the folder holds, for duplicates.
        spares: dolls that it does not hold, with ids of their own above those of ``dolls``.
        repeats: how many of each kind.
    """
    for turn in range(repeats):
        for reason, changes in _RECORD_TROUBLE:
            post = post_doll(next(spares))
            record, fate = post.record | changes, Fate(Status.FILTERED, reason)
            yield replace(post, record=record, fate=fate)
        for fate, damage in _FILE_TROUBLE:
            post = post_doll(next(spares))
            yield replace(post, content=damage(post.content or b""), fate=fate)
        yield _without_tag(next(spares))
        yield from _malformed(next(spares), next(spares))
        yield _thin(next(spares))
        yield _black(next(spares))
        yield _grey(next(spares))
        yield _dark_edges(next(spares))
        original = dolls[turn % len(dolls)]
        yield _same(original, next(spares))
        yield _smaller(dolls[(turn + repeats) % len(dolls)], next(spares))
        yield _recolored(original, [next(spares) for _ in range(5)])


def _without_tag(doll: Doll) -> DollPost:
    """A tag that only looks like the wanted one."""
    post = post_doll(doll)
    record = {
        key: " ".join("doll_joints" if tag == "doll" else tag for tag in value.split())
        if key in ("tag_string", "tag_string_general")
        else value
        for key, value in post.record.items()
    }
    return replace(post, record=record, fate=Fate(Status.FILTERED, "tag_missing"))


def _malformed(cut: Doll, nameless: Doll) -> Iterator[DollPost]:
    """A line that breaks off after the tags, and a record without an id."""
    fate = Fate(Status.FILTERED, "malformed")
    post = post_doll(cut)
    whole = post.to_line()
    yield replace(post, fate=fate, line=whole[: whole.index(b'"tag_string_general"')] + b"\n")
    post = post_doll(nameless)
    record = {key: value for key, value in post.record.items() if key != "id"}
    yield replace(post, fate=fate, line=orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


def _thin(doll: Doll) -> DollPost:
    middle = doll.height // 2
    post = _post(doll, picture_of(doll)[middle - 60 : middle + 60])
    return replace(post, fate=Fate(Status.TOO_SMALL, "after_crop"))


def _black(doll: Doll) -> DollPost:
    black = np.zeros((doll.height, doll.width, 3), np.uint8)
    return replace(_post(doll, black), fate=Fate(Status.BLANK, "flat"))


def _grey(doll: Doll) -> DollPost:
    """A JPEG of one channel."""
    picture = picture_of(doll)
    grey = cv2.cvtColor(_letterbox(picture), cv2.COLOR_RGB2GRAY)[..., None]
    content = simplejpeg.encode_jpeg(grey, _QUALITY, "GRAY")
    return DollPost(_record_of(doll, picture, content), content)


def _dark_edges(doll: Doll) -> DollPost:
    """A square picture whose own black edges are no letterbox."""
    square = draw_doll(doll.character, doll.pose, doll.palette, _SIDE, _SIDE)
    square[:, :40] = square[:, -40:] = (8, 6, 10)
    return _post(doll, square)


def _same(original: Doll, doll: Doll) -> DollPost:
    """The original's pixels in a file that differs, by a JPEG comment only."""
    post = _post(doll, picture_of(original), parent_id=original.post_id)
    content = post.content or b""
    content = content[:2] + b"\xff\xfe\x00\x09another" + content[2:]
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    record = post.record | {"md5": md5, "file_size": len(content)}
    return DollPost(record, content, Fate(Status.DUPLICATE, "same_pixels"))


def _smaller(original: Doll, doll: Doll) -> DollPost:
    """The original at half its size, which the 512px layout brings back; no parent is named."""
    half = (original.width // 2, original.height // 2)
    picture = cv2.resize(picture_of(original), half, interpolation=cv2.INTER_AREA)
    post = _post(doll, cast(Picture, picture))
    return replace(post, fate=Fate(Status.DUPLICATE, "near"))


def _recolored(original: Doll, others: Sequence[Doll]) -> DollPost:
    """A child with its parent's lines in the colours least like them, which is no duplicate."""

    def distance(doll: Doll) -> int:
        pairs = zip(doll.palette.hair, original.palette.hair, strict=True)
        return sum(abs(a - b) for a, b in pairs)

    other = max(others, key=distance)
    child = replace(
        original,
        post_id=other.post_id,
        character_name=other.character_name,
        palette=other.palette,
    )
    return _post(child, picture_of(child), parent_id=original.post_id)
