"""Recipes of small sources, the pictures that these have, and what was fetched of them."""

from pathlib import Path
from typing import Any

from pipeline.recipe import Recipe, SelectSettings, SourceSettings, SplitSettings
from pipeline.schema import RAW
from pipeline.shards.shard import Span, list_shards, read_shard, read_span, tar_path
from pipeline.work import Work
from tests.metadata_records import make_post
from tests.pictures import draw_picture, encoded

PICTURES = {n: encoded(draw_picture(n, 60, 80), "jpeg") for n in (1, 2, 3, 1001, 1002, 2001)}
POSTS = [make_post(post_id, "solo") for post_id in PICTURES]


def recipe_of(metadata: Path | str, images: str, **source: Any) -> Recipe:
    """A recipe for posts with the tag solo, in shards of about ten."""
    settings: dict[str, Any] = {"rate": 0, "attempts": 1, "layout": "original", **source}
    return Recipe(
        name="test",
        select=SelectSettings(tags=("solo",)),
        source=SourceSettings(metadata=str(metadata), images=images, **settings),
        split=SplitSettings(shard_size=10),
    )


def originals(work: Work) -> dict[int, bytes]:
    found = {}
    for name in list_shards(work.raw_dir):
        rows, _ = read_shard(work.raw_dir, name, RAW)
        with tar_path(work.raw_dir, name).open("rb") as tar:
            for row in rows.to_pylist():
                if row["offset"] is not None:
                    found[row["post_id"]] = read_span(tar, Span(row["offset"], row["size"]))
    return found
