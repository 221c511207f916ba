"""Dolls: drawn characters with records in Danbooru's shape, the data set that is always there.

Everything follows from a seed. Since lines and colours are drawn apart, the true answer is known
for any sketch and any reference: the sketch's doll in the reference's palette.
"""

import csv
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.dolls.posts import Doll, DollPost, make_trouble, picture_of, post_doll
from pipeline.dolls.traits import (
    invent_backdrop,
    invent_backdrop_colors,
    invent_character,
    invent_palette,
    invent_pose,
    invent_size,
)
from pipeline.pictures.image import Picture
from pipeline.records import Fate
from pipeline.words import counted

__all__ = [
    "Doll",
    "doll_of",
    "draw_examples",
    "make_dolls",
    "picture_of",
    "true_answer",
    "write_dolls",
]

MAX_POSES = 100
"""Most poses of a character: so many post ids are its own."""

_FIRST_ID = 1_000_000
_FIRST_TROUBLE_ID = 9_000_000  # after all dolls: of two like pictures the later one is left out
_MAX_CHARACTERS = (_FIRST_TROUBLE_ID - _FIRST_ID) // MAX_POSES
_NUM_OF_EACH_TROUBLE = 3


def doll_of(post_id: int, seed: int = 0, *, backdrops: bool = False) -> Doll:
    """Return the doll of a post, which its id and the data set's seed decide.

    The id is 1,000,000 + 100 x character + pose, and the character's tag ``doll_0012_(nurie)``.

    Args:
        post_id: see above.
        seed: another one gives other characters under the same names.
        backdrops: whether patterns and places are behind half of the dolls, or white paper behind
            all. The dolls are the same.

    Raises:
        ValueError: on the id of any other post, those with trouble included.
    """
    if not _FIRST_ID <= post_id < _FIRST_TROUBLE_ID:
        raise ValueError(f"post {post_id} is no doll's")
    index, pose = divmod(post_id - _FIRST_ID, MAX_POSES)
    doll = Doll(
        post_id,
        f"doll_{index:04d}_(nurie)",
        invent_character(seed, index),
        invent_pose(seed, index, pose),
        invent_palette(seed, index),
        *invent_size(seed, index, pose),
    )
    if not backdrops:
        return doll
    backdrop = invent_backdrop(seed, index, pose)
    doll = replace(doll, pose=replace(doll.pose, backdrop=backdrop))
    if backdrop.kind == "white_background":
        return doll
    paper, scenery = invent_backdrop_colors(seed, index, pose)
    return replace(doll, palette=replace(doll.palette, paper=paper, scenery=scenery))


def make_dolls(
    num_characters: int, num_poses: int, seed: int = 0, *, backdrops: bool = False
) -> list[Doll]:
    """Return dolls, character by character. More of either change none of those before.

    Args:
        num_characters: 1 to 80,000.
        num_poses: of each character, 1 to MAX_POSES.
        seed: see ``doll_of``.
        backdrops: likewise.

    Raises:
        ValueError: on other numbers.
    """
    if not (1 <= num_characters <= _MAX_CHARACTERS and 1 <= num_poses <= MAX_POSES):
        asked = f"{counted(num_characters, 'character')} in {counted(num_poses, 'pose')}"
        raise ValueError(f"{asked}: at least 1 of each, at most {_MAX_CHARACTERS} and {MAX_POSES}")
    indices = ((index, pose) for index in range(num_characters) for pose in range(num_poses))
    ids = [_FIRST_ID + MAX_POSES * index + pose for index, pose in indices]
    return [doll_of(post_id, seed, backdrops=backdrops) for post_id in ids]


def true_answer(sketch: Doll, reference: Doll) -> Picture:
    """Return what the sketch of one doll, coloured after another one, has to look like.

    White paper stays white; patterns and places take the reference's colours.

    Returns:
        uint8 RGB, height x width x 3 of the sketch's doll.
    """
    palette = reference.palette
    if sketch.pose.backdrop.kind == "white_background":
        palette = replace(palette, paper=sketch.palette.paper)
    return picture_of(replace(sketch, palette=palette))


def draw_examples(
    draw_lines: Callable[[Picture], NDArray[np.uint8]], directory: Path
) -> tuple[list[Path], list[Path]]:
    """Draw sketches to colour, and pictures of other characters to colour them after.

    They are the last characters that there are, which no data set of ordinary size has.

    Args:
        draw_lines: how a picture becomes a sketch, uint8 height x width.
        directory: where the files go, which are PNG.

    Returns:
        The paths of 4 sketches and of 8 pictures.
    """
    last = _FIRST_ID + MAX_POSES * (_MAX_CHARACTERS - 1)
    dolls = [doll_of(last - MAX_POSES * number) for number in range(12)]
    paths = [directory / f"{doll.character_name}.png" for doll in dolls]
    for path, doll in zip(paths, dolls, strict=True):
        picture = picture_of(doll)
        is_sketch = path in paths[:4]
        Image.fromarray(draw_lines(picture) if is_sketch else picture).save(path)
    return paths[:4], paths[4:]


def write_dolls(
    directory: Path,
    num_characters: int = 96,
    num_poses: int = 8,
    seed: int = 0,
    *,
    backdrops: bool = False,
) -> None:
    """Write a small Danbooru2021: pictures, records, and among them every kind of trouble.

    ``metadata/posts000000000000.json`` holds the records in the 2021 schema, ``512px/0XXX/ID.jpg``
    the pictures, letterboxed with black, and ``nsfw-ids.txt`` the ids to leave out.
    ``trouble.csv`` (``id,fate``) says of each unusual post what must become of it, by
    ``str(Fate)``; all others are to be kept. Equal arguments give equal bytes.

    Args:
        directory: made where it is absent; other files in it stay.
        num_characters: see ``make_dolls``.
        num_poses: likewise.
        seed: likewise.
        backdrops: likewise.

    Raises:
        ValueError: see ``make_dolls``.
    """
    dolls = make_dolls(num_characters, num_poses, seed, backdrops=backdrops)
    spares = _make_spares(num_characters, seed, backdrops)
    trouble = make_trouble(dolls, spares, _NUM_OF_EACH_TROUBLE)
    lines: list[bytes] = []
    fates: list[tuple[int, Fate]] = []
    for post in chain(map(post_doll, dolls), trouble):
        _write_picture(directory, post)
        lines.append(post.to_line())
        fates.append((post.post_id, post.fate))
    random.Random(seed).shuffle(lines)
    (directory / "metadata").mkdir(exist_ok=True)
    (directory / "metadata" / "posts000000000000.json").write_bytes(b"".join(lines))
    nsfw_ids = [f"{post_id}\n" for post_id, fate in fates if fate.reason == "nsfw_id"]
    (directory / "nsfw-ids.txt").write_text("".join(nsfw_ids), encoding="utf-8")
    with (directory / "trouble.csv").open("w", encoding="utf-8", newline="") as file:
        unusual = [(post_id, str(fate)) for post_id, fate in fates if post_id >= _FIRST_TROUBLE_ID]
        csv.writer(file, lineterminator="\n").writerows([("id", "fate"), *unusual])


def _make_spares(num_characters: int, seed: int, backdrops: bool) -> Iterator[Doll]:
    """Yield dolls of characters that ``make_dolls`` did not give, under ids for trouble."""
    for number in count():
        post_id = _FIRST_ID + MAX_POSES * (num_characters + number)
        doll = doll_of(post_id, seed, backdrops=backdrops)
        yield replace(doll, post_id=_FIRST_TROUBLE_ID + number)


def _write_picture(directory: Path, post: DollPost) -> None:
    path = directory / "512px" / f"{post.post_id % 1000:04d}" / f"{post.post_id}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    if post.content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(post.content)
