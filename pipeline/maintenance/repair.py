"""repair: what verify finds broken is made anew, and nothing else is touched.

Sound parts of a damaged shard are kept: of a damaged shard of originals only the posts whose bytes
are gone are asked for again, with the source settings that the plan records. Nothing is removed
before what replaces it is whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from pipeline.counts import count_failed
from pipeline.disk import commit, temporary_path
from pipeline.errors import DamagedError, UserError
from pipeline.executor import run_stage
from pipeline.hold import WHOLE
from pipeline.lockfile.lock import Lock, read_lock
from pipeline.maintenance.recorded import recorded_recipes, recorded_source, stages_of
from pipeline.maintenance.verify import check_is_repairable, verify
from pipeline.maintenance.verify_shards import Problem
from pipeline.metadata.listing import Listing
from pipeline.pictures.sketch import pin_sketches
from pipeline.planning.make import find_metadata, make_plan
from pipeline.planning.plan import planned_recipe, planned_shards, write_plan
from pipeline.planning.plan_check import read_about
from pipeline.recipe import Recipe, SketchSettings
from pipeline.removals import read_removals
from pipeline.run import limit_workers
from pipeline.shards.rows import read_seal
from pipeline.shards.shard import remove_shard, rows_path
from pipeline.stages.fetch import FetchStage
from pipeline.web.shared import close_shared_clients
from pipeline.work import Work


@dataclass(slots=True)
class Damage:
    """What verify found, by what mends it.

    Attributes:
        plan: the plan is damaged.
        raw: shards of originals to make anew, with their ledgers.
        samples: shards of samples to make anew.
        stale: shards of samples that are whole, and whose originals have changed since.
    """

    plan: bool = False
    raw: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Repaired:
    """What a repair came to.

    Attributes:
        problems: that are left.
        num_failed: posts of rebuilt shards whose originals did not come; a retry may mend that.
        stale: shards of samples whose originals have changed since.
        removed: shards of samples that are gone until ``prepare`` makes them, since nothing here
            says with which settings they were made.
    """

    problems: list[Problem] = field(default_factory=list)
    num_failed: int = 0
    stale: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def sort_damage(work: Work, problems: Iterable[Problem]) -> Damage:
    """Return what has to be made anew to mend ``problems``."""
    damage = Damage()
    for problem in problems:
        shards = damage.samples if problem.path.parent == work.samples_dir else damage.raw
        shards = damage.stale if problem.is_stale else shards
        if problem.path == work.plan_path:
            damage.plan = True
        elif problem.shard and problem.shard not in shards:  # others, as foreign files, stay
            shards.append(problem.shard)
    return damage


def repair(work: Work, console: Console, *, images: str = "", num_workers: int = 1) -> Repaired:
    """Make anew what verify finds broken in a work folder.

    ``images`` is the template of the originals where they have moved; by default it is the plan's.

    Raises:
        UserError: where the plan cannot be rebuilt, or the source is not that of what is there.
    """
    repaired = Repaired()
    check_is_repairable(work)  # before a lock is left there
    with work.lock():
        damage = sort_damage(work, verify(work.root))
        if damage.plan:
            _rebuild_plan(work, console)
            damage = sort_damage(work, verify(work.root))  # which needs the plan to see all
        is_whole = not damage.raw or _rebuild_raw(
            work, damage.raw, images, num_workers, repaired, console
        )
        if damage.samples and is_whole:
            _rebuild_samples(work, damage.samples, num_workers, repaired, console)
        stale = _find_stale(work) if damage.raw and is_whole else []
        found = verify(work.root)
        repaired.problems = [problem for problem in found if not problem.is_stale]
        repaired.stale = sorted({*stale, *sort_damage(work, found).stale})
    return repaired


def _rebuild_plan(work: Work, console: Console) -> None:
    """Plan anew from the recorded recipe; only the very same plan is put in place."""
    path = work.plan_path
    try:
        info = read_about(path)
        seal = read_seal(path)
    except DamagedError as error:
        raise UserError(
            f"{path}: too damaged to be rebuilt; delete it and run the same `fetch` command as "
            "before: what is fetched is used again."
        ) from error
    console.print(f"{path.name}: planning anew")
    recipe = planned_recipe(path)
    taken_down = read_removals(work.removals_path).post_ids
    plan = make_plan(recipe, info.get("limit"), _find_records(recipe, work, console), taken_down)
    rebuilt = temporary_path(path)
    write_plan(rebuilt, plan.posts, info)
    if read_seal(rebuilt) != seal:
        rebuilt.unlink()
        raise UserError(
            f"{path}: the metadata no longer gives this plan, or the plan is too damaged to tell; "
            "run the same `fetch` command as before with --replan: what is fetched is used again."
        )
    commit(rebuilt, path)


def _find_records(recipe: Recipe, work: Work, console: Console) -> Path | Listing | Lock:
    """Return what the folder's plan was made of."""
    remedy = "put the lock that the plan was made by there, and run `repair` again."
    if not work.lock_path.is_file():
        if not recipe.source.metadata:
            raise UserError(f"{work.lock_path}: is not there; {remedy}")
        return find_metadata(recipe, work, console)
    try:
        return read_lock(work.lock_path)
    except DamagedError as error:
        raise UserError(f"{error} The plan is, too: {remedy}") from error


def _rebuild_raw(
    work: Work,
    names: list[str],
    images: str,
    num_workers: int,
    repaired: Repaired,
    console: Console,
) -> bool:
    """Make shards of originals anew; returns whether all could be made."""
    source = recorded_source(work, images)
    planned = planned_shards(work.plan_path)
    num_workers = limit_workers(source, num_workers, WHOLE, console)
    console.print(f"{work.raw_dir}: making anew {', '.join(names)}, from {source.images}")
    stage = FetchStage(work, source, num_workers, rebuild=True)
    sizes = {name: planned[name] for name in names}
    try:
        summary = run_stage(stage, sizes, num_workers, "repair raw", console)
    finally:
        close_shared_clients()
    for name, why in summary.errors.items():
        console.print(f"{name}: {why}")
    repaired.num_failed = count_failed(summary.fates)
    return not summary.errors


def _rebuild_samples(
    work: Work, names: list[str], num_workers: int, repaired: Repaired, console: Console
) -> None:
    """Make shards of samples anew, each with the recipe that it or all the others record.

    Samples that came without their originals stay as they are.
    """
    names = [name for name in names if rows_path(work.raw_dir, name).is_file()]
    planned = planned_shards(work.plan_path)
    recipes = recorded_recipes(work)
    agreed = next(iter(recipes.values()), None)
    is_agreed = all(recipe == agreed for recipe in recipes.values())
    for name in set(names) - recipes.keys():
        if agreed is not None and is_agreed:
            recipes[name] = agreed
        else:
            remove_shard(work.samples_dir, name)
            repaired.removed.append(name)
    for stage, some in stages_of(work, {n: recipes[n] for n in names if n in recipes}):
        console.print(f"{work.samples_dir}: making anew {', '.join(some)}")
        try:
            sketches = stage.recipe.prepare.map_sketches(partial(_with_network, work))
            recipe = replace(stage.recipe, prepare=pin_sketches(sketches))
        except UserError as error:
            console.print(f"{', '.join(some)}: {error}")
            continue
        sizes = {name: planned[name] for name in some}
        rebuild = replace(stage, recipe=recipe, rebuild=True)
        summary = run_stage(rebuild, sizes, num_workers, "repair samples", console)
        for name, why in summary.errors.items():
            console.print(f"{name}: {why}")


def _with_network(work: Work, member: str, sketch: SketchSettings) -> SketchSettings:
    """Return a sketch that rows record with the path of its network, out of the plan's recipe.

    Rows may come from elsewhere, and so may a plan whose recipe names no pictures: on the word of
    neither any file of this machine is opened.
    """
    if sketch.method != "onnx":
        return sketch
    recipe = planned_recipe(work.plan_path)
    wanted = Path(sketch.onnx.model).name
    for own in recipe.prepare.sketch_members.values():
        if recipe.source.images and Path(own.onnx.model).name == wanted:
            return replace(sketch, onnx=replace(sketch.onnx, model=own.onnx.model))
    raise UserError(
        f"{member} was drawn by {wanted}, which the recipe that the folder was fetched by does not "
        "name. Remove their .parquet, and `prepare` by one that does makes them anew."
    )


def _find_stale(work: Work) -> list[str]:
    stages = stages_of(work, recorded_recipes(work))
    return [name for stage, some in stages for name in some if not stage.is_done(name)]
