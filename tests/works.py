"""Small work folders for tests: posts, their pictures on disk, and the plan."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from pipeline.counts import Fates
from pipeline.planning.plan import hash_table, plan_posts, planned_shards, write_plan
from pipeline.recipe import PrepareSettings, Recipe, SelectSettings, SourceSettings, SplitSettings
from pipeline.records import Post
from pipeline.run import fetch, prepare
from pipeline.settings import to_table
from pipeline.stages.fetch import FetchStage
from pipeline.work import Work
from tests.pictures import draw_picture, encoded, letterboxed

POST = Post(
    id=1,
    md5="",
    rating="s",
    ext="jpg",
    width=300,
    height=400,
    parent_id=0,
    tags=frozenset({"solo", "smile"}),
    characters=("miku",),
    is_deleted=False,
    is_banned=False,
)

Draw = Callable[[int], bytes | None]


def draw_original(post_id: int) -> bytes:
    """Return a letterboxed JPEG that no other post has."""
    return encoded(letterboxed(draw_picture(post_id, 400, 300)), "jpeg", quality=92)


def make_work(root: Path, num_posts: int = 20, draw: Draw = draw_original) -> tuple[Work, Recipe]:
    """Write pictures to ``root/512px`` and the plan of posts 1 to ``num_posts`` to ``root/work``.

    A post for which ``draw`` returns None has no file.
    """
    (root / "512px").mkdir(parents=True, exist_ok=True)
    for post_id in range(1, num_posts + 1):
        data = draw(post_id)
        path = root / "512px" / f"{post_id % 1000:04d}" / f"{post_id}.jpg"
        if data is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    recipe = Recipe(
        name="test",
        source=SourceSettings(images=f"{root}/512px/{{bucket}}/{{id}}.jpg", rate=0),
        prepare=PrepareSettings(size=64),
        split=SplitSettings(shard_size=10),
    )
    work = Work(root / "work")
    plan_work(work, recipe, num_posts)
    return work, recipe


def plan_work(work: Work, recipe: Recipe, num_posts: int) -> None:
    """Write the plan of posts 1 to ``num_posts``."""
    posts = [replace(POST, id=post_id) for post_id in range(1, num_posts + 1)]
    table = plan_posts(posts, recipe.split)
    counts = {"planned": num_posts}
    info = {"counts": counts, "num_records": num_posts, "recipe": to_table(recipe)}
    write_plan(work.plan_path, table, {**info, "content": hash_table(table)})


def make_source(root: Path, num_posts: int = 20, draw: Draw = draw_original) -> Recipe:
    """Write pictures to ``root/512px`` and their records, with one unwanted, to ``root/metadata``.

    Returns:
        The recipe that names both.
    """
    _, recipe = make_work(root, num_posts, draw)
    shutil.rmtree(root / "work")
    lines = []
    for post_id in range(1, num_posts + 2):
        md5 = hashlib.md5(str(post_id).encode(), usedforsecurity=False).hexdigest()
        record = {
            "id": post_id,
            "md5": md5,
            "rating": "s",
            "file_ext": "jpg",
            "file_url": f"https://cdn.example/{md5}.jpg",
            "image_width": 300,
            "image_height": 400,
            "parent_id": post_id - 1 if post_id % 7 == 0 else None,
            "tag_string_general": "solo smile" if post_id <= num_posts else "smile",
            "tag_string_character": "miku" if post_id % 2 else "",
        }
        lines.append(json.dumps(record) + "\n")
    path = root / "metadata" / "posts.json"
    path.parent.mkdir()
    path.write_text("".join(lines))
    return replace(
        recipe,
        select=SelectSettings(tags=("solo",)),
        source=replace(recipe.source, metadata=str(path.parent)),
    )


def odd_original(post_id: int) -> bytes | None:
    if post_id == 2:
        return None
    if post_id == 4:
        return draw_original(4)[:6000]
    if post_id == 6:
        return encoded(np.zeros((512, 512, 3), np.uint8))
    return draw_original(1 if post_id == 8 else post_id)


EXPECTED = {
    "kept": 26,
    "missing/no_file": 1,
    "corrupt/truncated": 1,
    "blank/flat": 1,
    "duplicate/same_pixels": 1,
}


def build(root: Path, num_posts: int = 30, draw: Draw = odd_original) -> tuple[Work, Recipe]:
    """Write posts' metadata and pictures, fetch and prepare them into ``root/work``."""
    work, recipe = Work(root / "work"), make_source(root, num_posts, draw)
    fetch(recipe, work, Console(quiet=True))
    prepare(recipe, work, Console(quiet=True))
    return work, recipe


def fetch_all(work: Work, recipe: Recipe, **options: object) -> Fates:
    fates: Fates = Counter()
    stage = FetchStage(work, recipe.source)
    stage = replace(stage, **options)  # type: ignore[arg-type]
    for name in planned_shards(work.plan_path):
        fates += stage(name, lambda num_posts: None)
    return fates
