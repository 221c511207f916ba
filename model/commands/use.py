"""The commands that use a model: colorize, app, export."""

from pathlib import Path
from typing import Annotated

import typer

from model.commands.common import Checkpoint, Device, Guidance, StyleWeights, work_around
from pipeline.commands.common import console, fail, named_path, path_option
from pipeline.words import counted, sized

Model = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        parser=named_path,
        help="A run's folder, a .safetensors, or an .onnx that `export` wrote.",
    ),
]


def colorize(
    checkpoint: Model,
    sketch: Annotated[
        list[Path],
        path_option(
            metavar="PATH", help="Dark lines on light paper, any size; or a folder. Repeatable."
        ),
    ],
    reference: Annotated[
        list[Path],
        path_option(metavar="PATH", help="A coloured picture, any size; or a folder. Repeatable."),
    ],
    out: Annotated[
        Path,
        path_option(
            metavar="PATH",
            help="The picture to write, in the format of its suffix; a folder for several.",
        ),
    ],
    extract_lines: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Turn colour pictures into sketches first, with soft lines (dodge) or ink lines "
            "(xdog); none takes them as they are.",
        ),
    ] = None,
    guidance: Guidance = 1.0,
    device: Device = "auto",
    style_weights: StyleWeights = "",
) -> None:
    """Colour sketches after reference pictures."""
    from functools import partial

    from model.use.colorize_files import colorize_many, colorize_one
    from model.use.load import load_painter
    from model.use.picture_files import find_pictures, read_sketch
    from pipeline.pictures.sketch import line_drawer

    painter = load_painter(checkpoint, device=device, style_weights=style_weights)
    draw_lines = None
    if extract_lines not in (None, "none"):
        draw_lines = line_drawer(extract_lines, painter.recipe.get("prepare", {}))
    read = partial(read_sketch, draw_lines=draw_lines, check=extract_lines != "none")
    if len(sketch) == len(reference) == 1 and not sketch[0].is_dir() and not reference[0].is_dir():
        size = colorize_one(painter, sketch[0], reference[0], out, console(), read, guidance)
        print(f"{out}: {size[0]} x {size[1]}")
        return
    sketches, references = map(find_pictures, (sketch, reference))
    done = colorize_many(painter, sketches, references, out, console(), read, guidance)
    drawn = counted(done.num_sketches, "sketch", "sketches")
    after = counted(done.num_references, "reference")
    print(f"{out}: {counted(done.num_pictures, 'picture')} of {drawn} after {after}")
    if done.left_out:
        fail("\n".join(f"left out: {why}" for why in done.left_out))


def show_app(
    checkpoint: Model,
    work: Annotated[
        Path | None,
        path_option(
            "--work",
            metavar="WORK",
            help="Folder whose samples the page offers as examples; dolls by default.",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen; the default is open to this machine only.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, metavar="PORT", help="Where to listen; 0: any free one."),
    ] = 7860,
    device: Device = "auto",
    style_weights: StyleWeights = "",
) -> None:
    """Open a page to colour on, in the browser."""
    from functools import partial

    from model.app.server import serve
    from model.use.load import load_painter
    from pipeline.pictures.sketch import SCALABLE, line_drawer

    painter = load_painter(checkpoint, device=device, style_weights=style_weights)
    prepare = painter.recipe.get("prepare", {})
    draw_lines = {method: line_drawer(method, prepare) for method in SCALABLE}
    if work is not None:
        from model.app.examples import take_examples
        from pipeline.work import Work

        place = Work(work)
        place.check_store()
        find_examples = partial(take_examples, place.samples_dir)
    else:
        from pipeline.dolls.data_set import draw_examples

        find_examples = partial(draw_examples, draw_lines["dodge"])
    serve(painter, draw_lines, find_examples, host, port, console())


def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, path_option("--out", metavar="DIR", help="Where the files go.")],
    lock: Annotated[
        Path | None,
        path_option(
            metavar="FILE",
            help="The data set's lock, for the card; by default the one that `pull` or "
            "`fetch --locked` left.",
        ),
    ] = None,
    metrics: Annotated[
        list[Path],
        path_option(
            metavar="FILE", help="metrics.json for the card; by default the run's. Repeatable."
        ),
    ] = [],
    onnx: Annotated[
        bool, typer.Option("--onnx/--no-onnx", help="Write an ONNX file as well.")
    ] = True,
    style_weights: StyleWeights = "",
) -> None:
    """Write a model to carry away: safetensors, ONNX and a card."""
    from model.checkpoint import run_dir_of
    from model.use.export import export as run_export

    if lock is None and (work := work_around(run_dir_of(checkpoint))) is not None:
        lock = work.lock_path if work.lock_path.is_file() else None
    found = run_export(
        checkpoint,
        out,
        lock_path=lock,
        metrics_paths=metrics,
        style_weights=style_weights,
        onnx=onnx,
    )
    for name, size in found.files.items():
        print(f"{out / name}: {sized(size)}")
    if found.difference is not None:
        print(
            f"ONNX: differs from the model by at most {found.difference:.1e}, of values in 0 to 1"
        )
    for path in found.passed_over:
        print(f"{path}: is of another checkpoint, and not in the card")
    if lock is None:
        print("the card names no lock: run `lock`, and give --lock FILE")
    if not found.evaluations:
        print("the card has no figures: run `eval` first, or give --metrics FILE")
