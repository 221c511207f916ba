"""The command line: parse, call one function, print. Heavy imports stay inside the commands."""

import atexit
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from model import commands_use
from model.commands import evaluate, print_table, runs, train
from pipeline import commands, commands_share
from pipeline.commands import (
    AnyWorkers,
    Executor,
    Overrides,
    Rank,
    RayAddress,
    RecipeName,
    StoreUrl,
    WorkDir,
    WorldSize,
    check_writable_name,
    console,
    fail,
    part_of,
    print_counts,
    recipe_of,
    work_of,
)
from pipeline.words import counted, harmless

if TYPE_CHECKING:
    from pipeline.executor import Summary
    from pipeline.hold import Part
    from pipeline.recipe import Recipe
    from pipeline.work import Work

app = typer.Typer(
    name="nurie",
    help="From Danbooru metadata to a model that colours sketches after a reference picture.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_STOPPED = "stopped; the same command begins anew."
_STOPPED_GOING_ON = dict.fromkeys(
    ("fetch", "prepare", "repair", "push", "pull", "takedown", "demo"),
    "stopped; the same command goes on from here.",
) | {
    "train": "stopped; with --resume the same command goes on from the last checkpoint, or begins "
    "anew where there is none.",
}
"""What to say after Ctrl-C, by the command, where the next one has something to go on from."""


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Set what all commands share."""
    if debug:
        os.environ["NURIE_DEBUG"] = "1"


def _start_lean() -> None:
    """Leave out of this process and its workers what takes long to start and is of no use to them.

    To be called before anything imports numpy, whose OpenBLAS starts a thread for every core, each
    of which spins for a while.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from pipeline.arrow import leave_pandas_out

    leave_pandas_out()


@app.command()
def fetch(
    recipe: RecipeName,
    metadata: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL",
            help="File or folder of Danbooru metadata, or an API's https://.../posts.json.",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE", help="URL or path with {id} {bucket} {ext} {md5}, or {file_url}."
        ),
    ] = None,
    work: WorkDir = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N wanted posts.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and touch nothing.")] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Ask again for what failed before, files that were not there, and hosts that were "
            "not allowed.",
        ),
    ] = False,
    locked: Annotated[
        bool,
        typer.Option("--locked", help="The posts of the lock beside the recipe; no metadata."),
    ] = False,
    replan: Annotated[
        bool, typer.Option("--replan", help="Plan anew, also in a folder that holds another plan.")
    ] = False,
    workers: AnyWorkers = None,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    store: StoreUrl = "",
    rank: Rank = None,
    world_size: WorldSize = None,
    overrides: Overrides = [],
) -> None:
    """Select posts, plan splits and shards, download the originals."""
    _start_lean()
    from dataclasses import replace

    from pipeline import planning, run
    from pipeline.errors import UserError
    from pipeline.executor import choose_runner
    from pipeline.lock import lock_beside, read_lock
    from pipeline.recipe import find_recipe
    from pipeline.removals import read_removals
    from pipeline.settled import count_unfetched

    chosen = recipe_of(recipe, overrides)
    source = chosen.source
    if metadata is not None:
        check_writable_name("--metadata", metadata)
        source = replace(source, metadata=metadata)
    if images is not None:
        check_writable_name("--images", images)
        source = replace(source, images=images)
    chosen = replace(chosen, source=source)
    place = work_of(work, chosen)
    part = part_of(rank, world_size)
    lock = None
    if locked:
        if metadata is not None or limit is not None:
            raise UserError("--locked takes the lock's posts: leave --metadata and --limit out.")
        lock = read_lock(lock_beside(find_recipe(recipe)))
    if dry_run:
        found = lock or planning.find_metadata(chosen, place, console(), keeps_pages=False)
        plan = planning.make_plan(chosen, limit, found, read_removals(place.removals_path))
        planning.say_what_is_cut(plan.malformed, console())
        print_counts("select", plan.counts, plan.num_records)
        num_unfetched = count_unfetched(place, plan.posts, source, retry_failed=retry_failed)
        print(f"{counted(num_unfetched, 'original')} would be fetched.")
        return
    runner, num_workers = choose_runner(executor, ray_address, workers)
    summary = run.fetch(
        chosen,
        place,
        console(),
        limit=limit,
        num_workers=num_workers,
        retry_failed=retry_failed,
        replan=replan,
        lock=lock,
        part=part,
        runner=runner,
        store=store,
    )
    _finish("fetch", summary, place, chosen, part)


@app.command()
def prepare(
    recipe: RecipeName,
    work: WorkDir = None,
    workers: AnyWorkers = None,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    store: StoreUrl = "",
    rank: Rank = None,
    world_size: WorldSize = None,
    overrides: Overrides = [],
) -> None:
    """Crop, resize, draw the sketch, and write shards of samples."""
    _start_lean()
    from pipeline import run
    from pipeline.executor import choose_runner

    chosen = recipe_of(recipe, overrides)
    place = work_of(work, chosen)
    part = part_of(rank, world_size)
    runner, num_workers = choose_runner(executor, ray_address, workers)
    summary = run.prepare(
        chosen,
        place,
        console(),
        num_workers=num_workers,
        part=part,
        runner=runner,
        store=store,
    )
    _finish("prepare", summary, place, chosen, part)


@app.command()
def demo(
    work: Annotated[
        Path, typer.Option("--work", help="Where everything that it makes goes.")
    ] = Path("data/demo"),
    characters: Annotated[
        int, typer.Option(min=24, help="How many to draw, in 8 poses each.")
    ] = 96,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="More colour better, and take longer.")
    ] = None,
) -> None:
    """Do the whole job on drawn dolls, offline, in a few minutes."""
    from model.crossing import judge_crossing
    from pipeline.dolls import doll_of, true_answer, write_dolls
    from pipeline.image import resize
    from pipeline.rows import telling_unwritable
    from pipeline.serve import serve_folder

    mirror = work / "mirror"
    recipe = recipe_of("dolls-64", [])
    epochs = epochs or recipe.train["epochs"]
    _keep_demo_options(mirror, {"characters": characters, "epochs": epochs})
    print("-- drawing dolls: pictures and records in Danbooru2021's shape, trouble included")
    with telling_unwritable(mirror):
        write_dolls(mirror, characters)
    with serve_folder(mirror) as url:
        images = f"{url}/512px/{{bucket}}/{{id}}.jpg"
        print(f"-- fetch, from {url}")
        fetch("dolls-64", metadata=str(mirror / "metadata"), images=images, work=work)
    print("-- prepare")
    prepare("dolls-64", work=work)
    print("-- train")
    train("dolls-64", work=work, run="demo", epochs=epochs, resume=True)
    print("-- eval")
    checkpoint = work / "runs" / "demo" / "best.safetensors"
    out = checkpoint.parent / "eval-test"  # where `export` looks for figures
    evaluate(checkpoint, work=work, out=out, reference=["character"])
    print("-- sketches after references of other characters, beside the true answers")
    found = judge_crossing(
        checkpoint,
        work / "samples",
        "test",
        lambda sketch, reference: resize(
            true_answer(doll_of(sketch), doll_of(reference)), recipe.prepare.size
        ),
        out / "crossing.png",
    )
    print_table(found, ("following", "chroma_error", "regional_error", "paper_error", "psnr"))
    print("-- what became of every record")
    commands.status(work)
    print(f"\nLook at {out / 'crossing.png'}: each sketch after other references (first row).")


def _keep_demo_options(mirror: Path, options: dict[str, int]) -> None:
    """Write down what a demo's folder is made with; other options make another demo.

    Raises:
        UserError: where it was made with others.
    """
    import orjson

    from pipeline.errors import UserError
    from pipeline.rows import replacing, telling_unwritable

    path = mirror / "options.json"
    if path.is_file():
        kept = orjson.loads(path.read_bytes())
        if kept != options:
            there = " ".join(f"--{name} {value}" for name, value in kept.items())
            raise UserError(
                f"{mirror.parent}: holds a demo with {there}. Give these options, or another "
                "--work."
            )
    elif not mirror.exists():  # what an older version began stays without
        with telling_unwritable(mirror), replacing(path) as temporary:
            temporary.write_bytes(orjson.dumps(options))


app.command()(train)
app.command("eval")(evaluate)
app.command()(commands_use.colorize)
app.command("app")(commands_use.show_app)
app.command()(commands_use.export)
for command in (commands.status, commands.verify, commands.repair, commands.report):
    app.command()(command)
app.command()(commands.lock)
app.command()(runs)
app.command()(commands_share.push)
app.command()(commands_share.pull)
app.command()(commands_share.takedown)


def _finish(stage: str, summary: "Summary", work: "Work", recipe: "Recipe", part: "Part") -> None:
    """Print a stage's fates; exit 1 where a rerun may mend something, or a lock is not kept.

    One rank of several cannot tell yet whether the lock is kept.
    """
    name = stage if part.is_whole else f"{stage}, {part}"
    print_counts(name, dict(summary.fates), summary.num_posts)
    for name, why in sorted(summary.errors.items()):
        print(harmless(f"shard {name} failed: {why}"), file=sys.stderr)
    num_failed = sum(count for fate, count in summary.fates.items() if fate.startswith("failed"))
    wrong = []
    if summary.errors:
        shards = counted(len(summary.errors), "shard is", "shards are")
        wrong.append(f"{shards} not done; run the same command again.")
    elif num_failed:
        posts = counted(num_failed, "post")
        wrong.append(f"{posts} failed; `fetch --retry-failed` asks again.")
    if num_astray := summary.fates["refused/host_not_allowed"]:
        posts = counted(num_astray, "post leads", "posts lead")
        advice = "name it: --set 'source.hosts=[\"HOST\"]' --retry-failed."
        print(f"{posts} to a host that may not be asked; {advice}", file=sys.stderr)
    if part.is_whole and work.lock_path.is_file():
        wrong += commands.compare(work.lock_path, work, recipe)
    if wrong:
        fail("\n".join(wrong), 1)


def main() -> None:
    """Run the command line; turn errors into sentences and exit codes."""
    from pipeline.errors import UserError

    try:
        app()
    except UserError as error:
        if os.environ.get("NURIE_DEBUG"):
            raise
        _leave(f"error: {error}", 2)
    except KeyboardInterrupt:
        _leave(_stopped(), 130)
    except SystemExit as end:
        if end.code == 130:  # Typer's way to pass Ctrl-C on
            _leave(_stopped(), 130)
        raise
    except BrokenPipeError:
        sys.exit(141)


def _stopped() -> str:
    """Return what to say after Ctrl-C; the first plain word is the command."""
    words = (word for word in sys.argv[1:] if not word.startswith("-"))
    return _STOPPED_GOING_ON.get(next(words, ""), _STOPPED)


def _leave(message: str, code: int) -> NoReturn:
    """Print a sentence and end at once, although threads may still wait for a server's answer.

    An ordinary exit would wait for these, for as long as their time-outs allow.
    """
    print(harmless(message), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)


if __name__ == "__main__":
    main()
