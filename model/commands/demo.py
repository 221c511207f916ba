"""The command that does the whole job on drawn dolls: demo."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from model.commands.judge import evaluate, print_table
from model.commands.train import train
from pipeline.commands.common import path_option
from pipeline.commands.folder import status
from pipeline.commands.make import fetch, prepare


def demo(
    work: Annotated[
        Path, path_option("--work", metavar="WORK", help="Where everything goes.")
    ] = Path("data/demo"),
    characters: Annotated[
        int, typer.Option(min=24, metavar="N", help="How many to draw, in 8 poses each.")
    ] = 96,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="More colour better and take longer; by default the recipe's."
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(metavar="RECIPE", help="dolls-64, dolls-128 or dolls-128-varied, or a copy."),
    ] = "dolls-64",
) -> None:
    """Do the whole job on drawn dolls, offline, in a few minutes."""
    from model.config import train_config
    from model.evaluation.crossing import judge_crossing
    from pipeline.disk import telling_unwritable
    from pipeline.dolls.data_set import doll_of, true_answer, write_dolls
    from pipeline.errors import UserError
    from pipeline.pictures.image import resize
    from pipeline.recipe_file import load_recipe
    from pipeline.web.serve import serve_folder

    mirror = work / "mirror"
    chosen = load_recipe(recipe)
    if "doll" not in chosen.select.tags:
        raise UserError(
            f"--recipe {recipe}: selects no drawn dolls. Give dolls-64, dolls-128 or "
            "dolls-128-varied."
        )
    backdrops = "white_background" not in chosen.select.tags
    doll = partial(doll_of, backdrops=backdrops)
    epochs = epochs or train_config(chosen.train, recipe).epochs
    _keep_options(mirror, {"recipe": recipe, "characters": characters, "epochs": epochs})
    print("-- drawing dolls: pictures and records in Danbooru2021's shape, trouble included")
    with telling_unwritable(mirror):
        write_dolls(mirror, characters, backdrops=backdrops)
    with serve_folder(mirror) as url:
        images = f"{url}/512px/{{bucket}}/{{id}}.jpg"
        print(f"-- fetch, from {url}")
        fetch(recipe, metadata=str(mirror / "metadata"), images=images, work=work)
    print("-- prepare")
    prepare(recipe, work=work)
    print("-- train")
    train(recipe, work=work, run="demo", epochs=epochs, resume=True)
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
            true_answer(doll(sketch), doll(reference)),
            chosen.prepare.size,
            chosen.prepare.fit,
        ),
        out / "crossing.png",
    )
    print_table(found, ("following", "chroma_error", "regional_error", "paper_error", "psnr"))
    print("-- what became of every record")
    status(work)
    print(f"\nLook at {out / 'crossing.png'}: each sketch after other references (first row).")


def _keep_options(mirror: Path, options: dict[str, int | str]) -> None:
    """Write down what a demo's folder is made with; other options make another demo.

    Raises:
        UserError: where it was made with others, or is no demo's.
    """
    import orjson

    from pipeline.disk import telling_unwritable, write_whole
    from pipeline.errors import UserError
    from pipeline.work import Work

    path = mirror / "options.json"
    if path.is_file():
        kept = {"recipe": "dolls-64"} | orjson.loads(path.read_bytes())  # once the only one
        if kept != options:
            there = " ".join(f"--{name} {value}" for name, value in kept.items())
            raise UserError(
                f"{mirror.parent}: holds a demo with {there}. Give these options, or another "
                "--work."
            )
    elif not mirror.exists():  # what an older version began stays without
        if Work(mirror.parent).plan_path.exists():
            raise UserError(
                f"{mirror.parent}: holds a data set, but no demo's drawings. Give another --work."
            )
        with telling_unwritable(mirror):
            write_whole(path, orjson.dumps(options))
