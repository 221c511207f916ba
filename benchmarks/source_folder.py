"""Pictures for the benchmarks: a folder in Danbooru2021's 512px layout, to be fetched."""

from pathlib import Path

from rich.console import Console

from pipeline.dolls.data_set import write_dolls
from pipeline.executor import run_stage
from pipeline.metadata.record import parse_record
from pipeline.planning.plan import plan_posts, planned_shards, write_plan
from pipeline.recipe import Recipe, SourceSettings, SplitSettings
from pipeline.stages.fetch import FetchStage
from pipeline.work import Work

QUIET = Console(quiet=True)


def ensure_pictures(pictures: Path | None, scratch: Path) -> Path:
    """Return ``pictures``, or a folder of drawn dolls in ``scratch`` where there is none."""
    if pictures is None:
        write_dolls(scratch)
        return scratch / "512px"
    if not any(pictures.glob("*/*.jpg")):
        raise SystemExit(f"{pictures}: no pictures like 0XXX/ID.jpg in it")
    return pictures


def records_of(pictures: Path) -> list[dict[str, int | str]]:
    """Return a plain record of the 2021 schema for each picture of a folder."""
    common = {"rating": "s", "file_ext": "jpg", "tag_string": "white_background"}
    return [{"id": int(path.stem), **common} for path in sorted(pictures.glob("*/*.jpg"))]


def fetch_originals(
    pictures: Path, root: Path, shard_size: int, num_workers: int
) -> tuple[Recipe, Work]:
    """Plan and fetch all pictures of a folder into a work folder; return the recipe and it."""
    recipe = Recipe(
        name="bench",
        source=SourceSettings(images=f"{pictures}/{{bucket}}/{{id}}.jpg", rate=0),
        split=SplitSettings(shard_size=shard_size),
    )
    work = Work(root)
    posts = map(parse_record, records_of(pictures))
    write_plan(work.plan_path, plan_posts(posts, recipe.split), {})
    stage = FetchStage(work, recipe.source)
    run_stage(stage, planned_shards(work.plan_path), num_workers, "fetch", QUIET)
    return recipe, work
