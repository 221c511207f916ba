"""What a plan may say: checked wherever one is read, for it may be a stranger's.

One comes in with a work folder that somebody else made, and shard by shard out of a ``--store``,
where others may write. ``plan`` reads them all, and asks here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.counts import fates_of
from pipeline.errors import DamagedError
from pipeline.recipe import RATINGS
from pipeline.records import Fate, Status
from pipeline.removals import TAKEN_DOWN
from pipeline.shards.rows import read_info
from pipeline.shards.shard import parse_shard_name

_FATES = {str(Fate(Status.PLANNED)), str(TAKEN_DOWN)}
_LEAST = {"post_id": 1, "family": 1, "parent_id": 0, "width": 0, "height": 0, "shard": 0}


class _About(msgspec.Struct):
    recipe: dict[str, Any]
    counts: dict[str, int]
    num_records: int
    malformed: list[str] = []
    limit: int | None = None
    fingerprint: str = ""
    content: str = ""


def read_about(path: Path) -> dict[str, Any]:
    """Return what a work folder's plan says about all its posts.

    Raises:
        DamagedError: where it does not say that.
    """
    about = read_info(path)
    try:
        msgspec.convert(about, _About)
    except msgspec.ValidationError as error:
        raise DamagedError(f"{path}: damaged, or not written by this program: {error}.") from error
    return about


def check_planned(path: Path, name: str, posts: pa.Table) -> None:
    """Check every column of a shard's planned posts that anything is decided by.

    Tags and characters may be any words. Which hosts a post's URL may name is the source's affair.

    Raises:
        DamagedError: naming the first thing that the program would never have planned.
    """
    for what, holds in _promises(name, posts):
        if not holds:
            raise DamagedError(f"{path}: {name}: {what}; `fetch` plans nothing of the kind.")


def _promises(name: str, posts: pa.Table) -> Iterator[tuple[str, bool]]:
    """Yield each fault that posts may have, and whether they are free of it.

    A check may rely on those before it.
    """
    split, shard = parse_shard_name(name)
    yield "holds no posts", len(posts) > 0
    yield from promises_of_posts(posts)
    is_its_own = words_of(posts, "split") == [split] and set(posts["shard"].to_pylist()) == {shard}
    yield "holds posts of another shard", is_its_own
    ids = posts["post_id"].to_numpy()
    yield "is not in the order of its posts, or holds one twice", bool((np.diff(ids) > 0).all())
    fates = fates_of(posts).unique().to_pylist()
    yield "has a fate that no planned post has", set(fates) <= _FATES
    is_md5 = pc.match_substring_regex(posts["md5"], r"\A([0-9a-f]{32})?\z")
    yield "has an md5 that is none", pc.all(is_md5).as_py()


def promises_of_posts(posts: pa.Table) -> Iterator[tuple[str, bool]]:
    """Yield, in the same way, the checks that plans and locks share; there must be a post."""
    for name, value in _LEAST.items():
        yield f"{name} is under {value}", pc.min(posts[name]).as_py() >= value
    is_rating = set(words_of(posts, "rating")) <= set(RATINGS)
    yield f"rating is not one of {', '.join(RATINGS)}", is_rating


def words_of(posts: pa.Table, name: str) -> list[str]:
    """Return the words that occur in a column, each once."""
    return list(posts[name].cast(pa.string()).unique().to_pylist())
