"""Pictures for the benchmarks: a folder in Danbooru2021's 512px layout, and a record for each."""

from collections.abc import Iterator
from pathlib import Path

import orjson

from pipeline.dolls import write_dolls
from pipeline.records import Post


def ensure_pictures(pictures: Path | None, scratch: Path) -> Path:
    """Return ``pictures``, or a folder of drawn dolls in ``scratch`` where there is none."""
    if pictures is None:
        write_dolls(scratch)
        return scratch / "512px"
    if not any(pictures.glob("*/*.jpg")):
        raise SystemExit(f"{pictures}: no pictures like 0XXX/ID.jpg in it")
    return pictures


def posts_of(pictures: Path) -> Iterator[Post]:
    """Yield a plain post for each picture of a folder."""
    for path in sorted(pictures.glob("*/*.jpg")):
        yield Post(
            id=int(path.stem),
            md5="",
            rating="s",
            ext="jpg",
            width=0,
            height=0,
            file_size=path.stat().st_size,
            parent_id=0,
            tags=frozenset(),
            characters=(),
            is_deleted=False,
            is_banned=False,
        )


def write_records(pictures: Path, path: Path) -> int:
    """Write a record of the 2021 schema for each picture; return how many there are."""
    keys = ({"id": post.id, "rating": "s", "file_ext": "jpg"} for post in posts_of(pictures))
    lines = [orjson.dumps({**key, "tag_string": "white_background"}) for key in keys]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return len(lines)
