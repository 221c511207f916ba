"""The commands that share a data set, or take something out of it: push, pull, takedown."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.common import (
    WorkFolder,
    console,
    named_path,
    named_store,
    telling_what_mends,
)
from pipeline.words import counted, sized

if TYPE_CHECKING:
    from pipeline.share.summary import TransferSummary

Place = Annotated[
    str, typer.Argument(metavar="URL", help="A folder, s3://..., hf://datasets/OWNER/NAME, ...")
]


def push(
    work: WorkFolder,
    url: Place,
    recipe_only: Annotated[
        bool, typer.Option("--recipe-only", help="Share ids, hashes and recipe, no pictures.")
    ] = False,
    contact: Annotated[
        str,
        typer.Option(
            metavar="CONTACT", help="Whom to ask to take a picture down; goes on the card."
        ),
    ] = "",
) -> None:
    """Share samples, lock, recipe, card; only what differs travels."""
    from pipeline.share.push import push as send
    from pipeline.work import Work

    place = Work(work)
    with telling_what_mends(place):
        shared = send(place, url, console(), recipe_only=recipe_only, contact=contact)
    _print_moved(url, shared)


def pull(
    url: Annotated[str, typer.Argument(metavar="URL", help="As for push, or https://...")],
    work: Annotated[Path, typer.Argument(metavar="WORK", parser=named_path, help="A work folder.")],
    split: Annotated[
        str | None, typer.Option(metavar="train|val|test", help="Only this split.")
    ] = None,
    shards: Annotated[
        str | None, typer.Option(metavar="N-M", help="Only these of each split: 0-9 or 0,3,7-9.")
    ] = None,
) -> None:
    """Bring a shared data set, or a part, here; every byte is checked."""
    from pipeline.share.pull import parse_numbers
    from pipeline.share.pull import pull as download
    from pipeline.work import Work

    numbers = parse_numbers(shards) if shards is not None else None
    shared = download(url, Work(work), console(), split=split, numbers=numbers)
    _print_moved(url, shared)
    if not shared.has_samples:
        folder, recipe = shlex.quote(str(work)), shlex.quote(str(work / "share"))
        print(
            "no pictures are shared there; fetch them from where you may: "
            f"`fetch {recipe} --locked --work {folder} --images TEMPLATE`"
        )


def takedown(
    work: WorkFolder,
    post_ids: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="ID...",
            help="Post ids; leave them out to finish a takedown that was cut short.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            parser=named_store,
            help="The --store that `fetch` and `prepare` put WORK's shards into.",
        ),
    ] = None,
) -> None:
    """Take posts out of shards, rows, lock and card, for good."""
    from pipeline.maintenance.takedown import take_down
    from pipeline.work import Work

    done = take_down(Work(work), post_ids or (), store=store or "")
    posts, shards = counted(len(done.post_ids), "post"), counted(len(done.shards), "shard")
    is_rest = bool(done.shards) and not done.post_ids  # of a takedown that was cut short
    what = "the takedown is finished" if is_rest else f"{posts} taken down"
    print(f"{work}: {what}, {shards} written anew.")
    if done.also:
        print(f"among them, for they show the same picture: {', '.join(map(str, done.also))}")
    if done.left:
        print(f"left, though they show the same picture: {', '.join(map(str, done.left))}")
    if store:
        print(f"What was pushed to {store} is not complete until the next `push`.")
    print(
        "Run `push` again where it was shared, and `lock` where a lock is kept beside the recipe; "
        "runs/ is as it was."
    )


def _print_moved(url: str, shared: "TransferSummary") -> None:
    print(
        f"{url}: {counted(shared.num_files, 'file')}, {sized(shared.num_bytes)}; "
        f"{shared.num_moved} travelled, {sized(shared.num_moved_bytes)}"
    )
