"""The command line: parse, call one function, print. Heavy imports stay inside the commands."""

import atexit
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from model.commands import runs
from pipeline import commands, commands_share
from pipeline.commands import (
    AnyWorkers,
    Executor,
    Overrides,
    Rank,
    RayAddress,
    RecipeName,
    WorkDir,
    WorldSize,
    console,
    fail,
    part_of,
    print_counts,
)

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

_STOPPED = "stopped; the same command goes on from here."

Checkpoint = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A .safetensors of a training run.")
]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Set what all commands share."""
    if debug:
        os.environ["NURIE_DEBUG"] = "1"


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
        bool, typer.Option("--retry-failed", help="Ask again for what failed before.")
    ] = False,
    locked: Annotated[
        bool,
        typer.Option("--locked", help="The posts of the lock beside the recipe; no metadata."),
    ] = False,
    replan: Annotated[
        bool, typer.Option("--replan", help="Plan anew in a folder that holds another plan.")
    ] = False,
    workers: AnyWorkers = None,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    rank: Rank = None,
    world_size: WorldSize = None,
    overrides: Overrides = [],
) -> None:
    """Select posts from the metadata, plan splits and shards, download the originals."""
    from dataclasses import replace

    from pipeline import planning, run
    from pipeline.errors import UserError
    from pipeline.executor import choose_runner
    from pipeline.lock import lock_beside, read_lock
    from pipeline.recipe import find_recipe
    from pipeline.removals import read_removals

    chosen = _recipe(recipe, overrides)
    source = chosen.source
    if metadata is not None:
        source = replace(source, metadata=metadata)
    if images is not None:
        source = replace(source, images=images)
    chosen = replace(chosen, source=source)
    place = _work(work, chosen)
    part = part_of(rank, world_size)
    lock = None
    if locked:
        if metadata is not None or limit is not None:
            raise UserError("--locked takes the lock's posts: leave --metadata and --limit out.")
        lock = read_lock(lock_beside(find_recipe(recipe)))
    if dry_run:
        found = lock or planning.find_metadata(chosen, place, console(), keeps_pages=False)
        plan = planning.make_plan(chosen, limit, found, read_removals(place.removals_path))
        print_counts("select", plan.counts, plan.num_records)
        print(f"{planning.count_unfetched(place, plan.posts)} originals would be fetched.")
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
    )
    _finish("fetch", summary, place, chosen, part)


@app.command()
def prepare(
    recipe: RecipeName,
    work: WorkDir = None,
    workers: AnyWorkers = None,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    rank: Rank = None,
    world_size: WorldSize = None,
    overrides: Overrides = [],
) -> None:
    """Crop the letterbox, resize, draw the sketch, and write shards of samples."""
    from pipeline import run
    from pipeline.executor import choose_runner

    chosen = _recipe(recipe, overrides)
    place = _work(work, chosen)
    part = part_of(rank, world_size)
    runner, num_workers = choose_runner(executor, ray_address, workers)
    summary = run.prepare(
        chosen, place, console(), num_workers=num_workers, part=part, runner=runner
    )
    _finish("prepare", summary, place, chosen, part)


@app.command()
def train(
    recipe: RecipeName,
    work: WorkDir = None,
    run: Annotated[
        str, typer.Option("--run", metavar="NAME", help="Name of the run in WORK/runs.")
    ] = "default",
    model: Annotated[
        str | None,
        typer.Option(help="zhang2017, batchnorm, inception, reference; the recipe's if not given."),
    ] = None,
    gan: Annotated[str | None, typer.Option(help="acgan, paper, patch or none.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    best_by: Annotated[
        str | None, typer.Option(help="mse, chroma_error, regional_error or following.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1.")] = None,
    style_weights: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|imagenet|random", help="Of the style network; random for tests."
        ),
    ] = None,
    style_train: Annotated[
        bool,
        typer.Option("--style-train", help="Train the style network as well; by default frozen."),
    ] = False,
    shards: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Stream a data set that was pushed there; no pull."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where streamed shards are kept; WORK/cache by default."),
    ] = None,
    cache_size: Annotated[
        float, typer.Option(min=0.0, metavar="GB", help="What the cache holds at most.")
    ] = 20.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    overrides: Overrides = [],
) -> None:
    """Train a model on a work folder's samples, or on a data set that was pushed elsewhere."""
    from model.config import train_config
    from model.train import train as run_training
    from pipeline.recipe import recipe_table
    from pipeline.share.stream import RemoteShards

    chosen = _recipe(recipe, overrides)
    flags = {
        "model": model,
        "gan": gan,
        "epochs": epochs,
        "batch_size": batch_size,
        "best_by": best_by,
        "device": device,
        "style_weights": style_weights,
        "style_train": style_train or None,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    config = train_config(chosen.train | given, f"recipe {chosen.name!r}, [train]")
    place = _work(work, chosen)
    run_dir = place.runs_dir / _run_name(run)
    with ExitStack() as stack:
        source: Path | RemoteShards = place.samples_dir
        if shards is not None:
            place.root.mkdir(parents=True, exist_ok=True)
            source = RemoteShards(shards, cache or place.root / "cache", int(cache_size * 1e9))
            stack.callback(source.close)
            if os.environ.get("RANK", "0") == "0":
                print(source.describe(config.shuffle_shards))
        result = run_training(
            config,
            source,
            run_dir,
            style_dir=place.root / "style",
            recipe=recipe_table(chosen) if shards is None else None,  # or the samples' own
            resume=resume,
        )
    state = "finished" if result.finished else "stopped; --resume goes on"
    best = "none yet" if result.best is None else f"{result.best:.4f}"
    print(f"{run_dir}: {state} after {result.step} steps, best by {config.best_by}: {best}")


@app.command("eval")
def evaluate(
    checkpoint: Checkpoint,
    work: Annotated[Path, typer.Option("--work", help="The work folder with the samples.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Beside the checkpoint by default.")
    ] = None,
    fid_weights: Annotated[
        str, typer.Option(metavar="PATH", help="Inception weights for FID and KID.")
    ] = "",
    lpips_weights: Annotated[
        str, typer.Option(metavar="PATH", help="AlexNet weights for LPIPS.")
    ] = "",
    guidance: Annotated[
        float, typer.Option(help="How far references are followed; 1 as in training.")
    ] = 1.0,
    style_weights: Annotated[
        str, typer.Option(metavar="PATH", help="Where the style network's weights are now.")
    ] = "",
    reference: Annotated[
        list[str],
        typer.Option(
            help="self: each after itself; same: in other colours, after itself warped; "
            "character: after another drawing of its character; any: after any other picture; "
            "or the path of a picture. Repeat it for several."
        ),
    ] = ["self"],
    overrides: Overrides = [],
) -> None:
    """Judge a checkpoint: metrics.json, rows.parquet, grid.png."""
    from model.config import EvalConfig
    from model.evaluate import evaluate as run_evaluation
    from pipeline.settings import apply_overrides, convert

    flags = {
        "fid_weights": fid_weights,
        "lpips_weights": lpips_weights,
        "guidance": guidance,
        "style_weights": style_weights,
        "reference": reference,
    }
    table = apply_overrides({"eval": flags}, overrides)["eval"]
    config = convert(table, EvalConfig, "--set eval")
    out_dir = out if out is not None else checkpoint.parent / f"eval-{split}"
    metrics = run_evaluation(checkpoint, Path(work) / "samples", split, out_dir, config)
    for block in metrics["settings"].values():
        _print_metrics(metrics["model"], split, block)
    grids = (path.name for path in sorted(out_dir.glob("grid*.png")))
    print(f"{out_dir}: {', '.join(['metrics.json', 'rows.parquet', *grids])}")


@app.command()
def colorize(
    checkpoint: Checkpoint,
    sketch: Annotated[
        list[Path], typer.Option(help="Dark lines on light paper, any size; or a folder.")
    ],
    reference: Annotated[
        list[Path], typer.Option(help="A coloured picture, any size; or a folder.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="The picture, its suffix being the format; of several, their folder."),
    ],
    extract_lines: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Colour pictures as sketches: draw their lines by dodge or xdog; none takes them "
            "as they are.",
        ),
    ] = None,
    guidance: Annotated[
        float,
        typer.Option(help="How far to follow the reference: 0 not at all, 1 as trained, to 3."),
    ] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    style_weights: Annotated[
        str, typer.Option(metavar="PATH", help="Where the style network's weights are now.")
    ] = "",
) -> None:
    """Colour sketches after reference pictures; several of either give a contact sheet too."""
    from functools import partial

    from model import colorize_files
    from model.painter import load_painter
    from pipeline.sketch import line_drawer

    painter = load_painter(checkpoint, device=device, style_weights=style_weights)
    draw_lines = None
    if extract_lines not in (None, "none"):
        draw_lines = line_drawer(extract_lines, painter.recipe.get("prepare", {}))
    read = partial(colorize_files.read_sketch, draw_lines=draw_lines, check=extract_lines is None)
    if len(sketch) == len(reference) == 1 and not sketch[0].is_dir() and not reference[0].is_dir():
        size = colorize_files.colorize_one(
            painter, sketch[0], reference[0], out, console(), read, guidance
        )
        print(f"{out}: {size[0]} x {size[1]}")
        return
    sketches, references = map(colorize_files.find_pictures, (sketch, reference))
    num = colorize_files.colorize_many(
        painter, sketches, references, out, console(), read, guidance
    )
    print(f"{out}: {num} pictures of {len(sketches)} sketches after {len(references)} references")


@app.command("app")
def show_app(
    checkpoint: Checkpoint,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Its samples are pictures to begin with; dolls if not given."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; on loopback only this machine can look.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 7860,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    style_weights: Annotated[
        str, typer.Option(metavar="PATH", help="Where the style network's weights are now.")
    ] = "",
) -> None:
    """Open a page to colour on: drop a sketch and a reference, see the result, download it."""
    from functools import partial

    from model.app_server import serve
    from model.painter import load_painter
    from pipeline.sketch import SCALABLE, line_drawer

    painter = load_painter(checkpoint, device=device, style_weights=style_weights)
    prepare = painter.recipe.get("prepare", {})
    draw_lines = {method: line_drawer(method, prepare) for method in SCALABLE}
    if work is not None:
        from model.app_examples import take_examples

        find_examples = partial(take_examples, work / "samples")
    else:
        from pipeline.dolls import draw_examples

        find_examples = partial(draw_examples, draw_lines["dodge"])
    serve(painter, draw_lines, find_examples, host, port, console())


@app.command()
def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")],
    lock: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The data set's lock; the work folder's if not given."),
    ] = None,
    metrics: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="metrics.json for the card; the run's if not given."),
    ] = [],
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="With an ONNX file.")] = True,
    style_weights: Annotated[
        str, typer.Option(metavar="PATH", help="Where the style network's weights are now.")
    ] = "",
) -> None:
    """Write a model to carry away: safetensors, ONNX, and a card that says what it is."""
    from model.export import export as run_export
    from pipeline.work import Work

    run_dir = checkpoint if checkpoint.is_dir() else checkpoint.parent
    kept = Work(run_dir.resolve().parent.parent).lock_path
    found = run_export(
        checkpoint,
        out,
        lock_path=lock or (kept if kept.is_file() else None),
        metrics_paths=metrics,
        style_weights=style_weights,
        onnx=onnx,
    )
    for name, size in found.files.items():
        print(f"{out / name}: {size / 1e6:.2f} MB")
    if found.difference is not None:
        print(
            f"ONNX: differs from the model by at most {found.difference:.1e}, of values in 0 to 1"
        )
    for path in found.passed_over:
        print(f"{path}: is of another checkpoint, and not in the card")
    if not found.evaluations:
        print("the card has no figures: run `eval` first, or give --metrics FILE")


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
    """Do the whole job on drawn dolls, offline, in about two minutes on two cores."""
    from model.crossing import judge_crossing
    from pipeline.dolls import doll_of, true_answer, write_dolls
    from pipeline.image import resize
    from pipeline.serve import serve_folder

    mirror = work / "mirror"
    print("-- drawing dolls: pictures and records in Danbooru2021's shape, trouble included")
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
    out = work / "eval"
    evaluate(checkpoint, work=work, out=out, reference=["character"])
    print("-- sketches after references of other characters, beside the true answers")
    size = _recipe("dolls-64", []).prepare.size
    found = judge_crossing(
        checkpoint,
        work / "samples",
        "test",
        lambda sketch, reference: resize(true_answer(doll_of(sketch), doll_of(reference)), size),
        out / "crossing.png",
    )
    _print_table(found, ("following", "chroma_error", "regional_error", "paper_error", "psnr"))
    print("-- what became of every record")
    commands.status(work)
    print(f"\nLook at {out / 'crossing.png'}: each sketch after four references (first row).")


for command in (commands.status, commands.verify, commands.repair, commands.report):
    app.command()(command)
app.command()(commands.lock)
app.command()(runs)
app.command()(commands_share.push)
app.command()(commands_share.pull)
app.command()(commands_share.takedown)


def _recipe(name: str, overrides: list[str]) -> "Recipe":
    from pipeline.recipe import load_recipe

    return load_recipe(name, overrides)


def _work(path: Path | None, recipe: "Recipe") -> "Work":
    from pipeline.work import Work

    return Work(path if path is not None else Path("data") / recipe.name)


def _run_name(name: str) -> str:
    from pipeline.errors import UserError

    if not name or Path(name).name != name or name.startswith("."):
        raise UserError(f"--run {name!r}: a plain name, not a path.")
    return name


def _print_metrics(model: str, split: str, metrics: dict[str, Any]) -> None:
    """Print one setting's figures, of the model and the baselines, and what is not there."""
    seen = ("following", "chroma_error", "regional_error", "paper_error")
    names = ("mse", "psnr", "ssim", "lpips", "fid", "kid", *seen)
    columns = [name for name in names if metrics.get(name) is not None]
    print(f"{metrics['num_samples']} {split} samples, reference: {metrics['reference']}")
    _print_table({model: metrics, **metrics["baselines"]}, columns)
    for name, why in metrics["unavailable"].items():
        print(f"no {name}: {why}")


def _print_table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> None:
    print(" " * 12 + "".join(f"{name:>16}" for name in columns))
    for name, values in rows.items():
        cells = (values.get(column) for column in columns)
        print(
            f"{name:12}" + "".join(f"{c:16.4f}" if c is not None else f"{'-':>16}" for c in cells)
        )


def _finish(stage: str, summary: "Summary", work: "Work", recipe: "Recipe", part: "Part") -> None:
    """Print a stage's fates; exit 1 where a rerun may mend something, or a lock is not kept.

    One rank of several cannot tell yet whether the lock is kept.
    """
    name = stage if part.is_whole else f"{stage}, {part}"
    print_counts(name, dict(summary.fates), summary.num_posts)
    for name, why in sorted(summary.errors.items()):
        print(f"shard {name} failed: {why}", file=sys.stderr)
    num_failed = sum(count for fate, count in summary.fates.items() if fate.startswith("failed"))
    wrong = []
    if summary.errors:
        wrong.append(f"{len(summary.errors)} shards are not done; run the same command again.")
    elif num_failed:
        wrong.append(f"{num_failed} posts failed; `fetch --retry-failed` asks again for them.")
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
        _leave(_STOPPED, 130)
    except SystemExit as end:
        if end.code == 130:  # Typer's way to pass Ctrl-C on
            _leave(_STOPPED, 130)
        raise
    except BrokenPipeError:
        sys.exit(141)


def _leave(message: str, code: int) -> NoReturn:
    """Print a sentence and end at once, although threads may still wait for a server's answer.

    An ordinary exit would wait for these, for as long as their time-outs allow.
    """
    print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)


if __name__ == "__main__":
    main()
