"""What a work folder records of how it was made: its source, and its samples' recipes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.errors import DamagedError, UserError
from pipeline.planning.plan import planned_recipe, planned_shards
from pipeline.recipe import Recipe, SourceSettings
from pipeline.recipe_shared import content_settings
from pipeline.run import make_prepare_stage
from pipeline.settings import Table, convert, name_differences
from pipeline.shards.rows import check_seal, read_info
from pipeline.shards.shard import list_shards, rows_path
from pipeline.stages.originals import check_source
from pipeline.stages.prepare import PrepareStage
from pipeline.work import Work


def recorded_source(work: Work, images: str) -> SourceSettings:
    """Return the source settings that a plan records, with ``images`` as template unless it is "".

    Raises:
        UserError: where they name no pictures, or not those of the shards that are there.
    """
    source = planned_recipe(work.plan_path).source
    source = replace(source, images=images or source.images)
    check_source(source)
    wanted = content_settings(source)
    for name, info in _sound_infos(work.raw_dir):
        settings = info.get("settings", {})
        if settings != wanted:
            odd = "; ".join(name_differences(settings, wanted, f"that of {name}", "source."))
            remedy = "run `fetch` with the settings that are to hold, to its end"
            if settings.get("images") != wanted["images"]:
                remedy = "give the --images that they came from"
            raise UserError(f"{work.raw_dir}: came by other settings: {odd}; {remedy}.")
    return source


def _sound_infos(directory: Path) -> Iterator[tuple[str, Table]]:
    """Yield what the rows of shards say about themselves, of those whose rows are sound."""
    for name in list_shards(directory):
        path = rows_path(directory, name)
        try:
            check_seal(path)
            info = read_info(path)
        except DamagedError:
            continue
        yield name, info


def stages_of(work: Work, recipes: dict[str, Table]) -> Iterator[tuple[PrepareStage, list[str]]]:
    """Yield a stage for each recipe that a folder's samples record, with the shards that do."""
    planned = planned_shards(work.plan_path)
    fetched = [name for name in planned if rows_path(work.raw_dir, name).is_file()]
    waiting = list(recipes)
    while waiting:
        recipe = recipes[waiting[0]]
        some = [name for name in waiting if recipes[name] == recipe]
        waiting = [name for name in waiting if recipes[name] != recipe]
        made_by = convert(recipe, Recipe, str(work.samples_dir))
        yield make_prepare_stage(made_by, work, fetched), some


def recorded_recipes(work: Work) -> dict[str, Table]:
    """Return the recipes in the rows of the shards of samples, where these are sound.

    Samples whose originals are not here are left out: nothing can be made of them.
    """
    recipes = {}
    for name, info in _sound_infos(work.samples_dir):
        has_originals = rows_path(work.raw_dir, name).is_file()
        if info.get("shard") == name and "recipe" in info and has_originals:
            recipes[name] = info["recipe"]
    return recipes
