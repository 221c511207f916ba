"""Random posts, and the records that each schema of Danbooru's metadata makes of them."""

import json
from random import Random
from typing import Any

from hypothesis import strategies as st

from pipeline.records import Post

LOOK_ALIKES = ("white_background", "white_background_removed", "off_white_background", "background")

# Everything but the space, which divides tags, and surrogates, which no UTF-8 holds.
_TOKENS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" "), min_size=1)
TAGS = st.sampled_from([*LOOK_ALIKES, 'a"b', "fate/zero", "\\m/", "初音ミク", ":d", "1"]) | _TOKENS


@st.composite
def posts(draw: st.DrawFn) -> Post:
    """Draw any post that the schemas can tell of."""
    tags = draw(st.frozensets(TAGS, max_size=6))
    post_id = draw(st.integers(1, 2**63 - 1))
    parent_id = draw(st.integers(0, 2**63 - 1) | st.integers(0, 3))
    return Post(
        id=post_id,
        md5=draw(st.sampled_from(["", "9a0f9e0f08907d12b7d08e46047ae4d8"])),
        rating=draw(st.sampled_from("gsqe")),
        ext=draw(st.sampled_from(["jpg", "png", "mp4"])),
        width=draw(st.integers(0, 2**31 - 1)),
        height=draw(st.integers(0, 2**31 - 1)),
        parent_id=0 if parent_id == post_id else parent_id,
        tags=tags,
        characters=tuple(sorted(draw(st.sets(st.sampled_from(sorted(tags)))) if tags else [])),
        is_deleted=draw(st.booleans()),
        is_banned=draw(st.booleans()),
        file_url=draw(st.sampled_from(["", "https://cdn.example/original/a.jpg?b"])),
    )


def make_post(post_id: int, *tags: str) -> Post:
    """Return a safe post with these tags that nothing is wrong with."""
    return Post(
        id=post_id,
        md5=f"{post_id:032x}",
        rating="s",
        ext="jpg",
        width=700,
        height=800,
        parent_id=0,
        tags=frozenset(tags),
        characters=(),
        is_deleted=False,
        is_banned=False,
    )


def new_record(post: Post) -> dict[str, Any]:
    """Return a post's record in the newer schema, where empty keys are absent."""
    record = {
        "id": post.id,
        "md5": post.md5,
        "rating": post.rating,
        "file_ext": post.ext,
        "image_width": post.width,
        "image_height": post.height,
        "file_size": 9000,
        "parent_id": post.parent_id,
        "tag_string": " ".join(sorted(post.tags)),
        "tag_string_character": " ".join(post.characters),
        "is_deleted": post.is_deleted,
        "is_banned": post.is_banned,
        "file_url": post.file_url,
    }
    return {key: value for key, value in record.items() if value}


def old_record(post: Post) -> dict[str, Any]:
    """Return a post's record in the older schema, where numbers are strings."""
    tags = [
        {"id": "1", "name": tag, "category": "4" if tag in post.characters else "0"}
        for tag in sorted(post.tags)
    ]
    return {
        "id": str(post.id),
        "created_at": "2008-06-10 03:08:07.34205 UTC",
        "md5": post.md5,
        "rating": post.rating,
        "image_width": str(post.width),
        "image_height": str(post.height),
        "file_ext": post.ext,
        "parent_id": str(post.parent_id),
        "file_size": "9000",
        "is_deleted": post.is_deleted,
        "is_banned": post.is_banned,
        "tags": tags,
        "file_url": post.file_url,
    }


def write_json(value: Any, random: Random) -> str:
    r"""Return one of the JSON texts that mean a value: any character may be written \uXXXX."""
    if isinstance(value, dict):
        fields = (f"{write_json(k, random)}:{write_json(v, random)}" for k, v in value.items())
        return "{" + ",".join(fields) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(write_json(element, random) for element in value) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    return '"' + "".join(_write_character(character, random) for character in value) + '"'


def _write_character(character: str, random: Random) -> str:
    plain = json.dumps(character, ensure_ascii=False)[1:-1]
    ways = [*[plain] * 20, json.dumps(character)[1:-1]]
    if character.isascii():
        ways += [f"\\u{ord(character):04x}", f"\\u{ord(character):04X}"]
    return random.choice([*ways, "\\/"] if character == "/" else ways)


def lines_of(records: list[dict[str, Any]]) -> bytes:
    """Return records as JSON lines."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


POSTS = [make_post(i, "solo", f"tag_{i}") for i in range(1, 41)]
LINES = lines_of([new_record(post) for post in POSTS])
