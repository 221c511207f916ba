"""report: a work folder as one page to look at, that needs neither network nor scripts.

What it shows was made by strangers. So every value is escaped, cut and rid of control characters,
every picture is encoded anew, and the page forbids itself scripts and connections.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.disk import check_writable, telling_unwritable, write_whole
from pipeline.errors import UserError
from pipeline.lockfile.differences import effective_recipe
from pipeline.maintenance.status import read_status
from pipeline.planning.plan import planned_shards
from pipeline.planning.plan_check import read_about
from pipeline.records import Status
from pipeline.removals import read_removals
from pipeline.report.distributions import measure
from pipeline.report.funnel import (
    FateTable,
    Place,
    build_funnel,
    count_splits,
    find_straddling_characters,
    read_fate_table,
)
from pipeline.report.pictures import ShownPost, build_wall, show_posts
from pipeline.schema import SPLITS
from pipeline.settings import Table
from pipeline.words import noun, sized
from pipeline.work import Work

_NUM_SAMPLES = 6  # of a split
_NUM_LEFT_OUT = 6  # of a fate, and of disagreeing letterboxes
_NUM_PAIRS = 4  # of a reason
_MAX_LINES = 10  # of malformed records, and of families and characters in two splits
_MAX_ROWS = 40  # of a table of the recipe, and tables of the recipe
_MAX_TEXT = 300


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A fate by which posts were left out, and a few of them."""

    fate: str
    num_posts: int
    posts: list[ShownPost]


@dataclass(frozen=True, slots=True)
class Pair:
    """A post that repeats an earlier one; None where that one is not there."""

    later: ShownPost
    earlier: ShownPost | None

    @property
    def reason(self) -> str:
        """Why the later one is left out."""
        return str(self.later.row["reason"])

    @property
    def num_bits(self) -> int | None:
        """Bits in which the perceptual hashes differ; None where one is not known."""
        rows = [shown.row for shown in (self.later, self.earlier) if shown is not None]
        hashes = [row["perceptual_hash"] for row in rows if "perceptual_hash" in row]
        return (hashes[0] ^ hashes[1]).bit_count() if len(hashes) == 2 else None


def write_report(work: Work, path: Path) -> None:
    """Write the page about a work folder: one HTML file of a few megabytes at most.

    Reads columns and some dozens of pictures, never whole shards. The same folder gives the same
    bytes.

    Args:
        work: a work folder with a plan; what comes after it may not be there yet.
        path: of the page; replaced as a whole.

    Raises:
        UserError: where the folder holds no plan or damaged shards, the page cannot be written, or
            posts are taken down meanwhile, which it may show; it is removed then.
    """
    planned_shards(work.plan_path)  # where there is no plan, that is what to say
    check_writable(path)
    before = read_removals(work.removals_path)
    page = render_report(work)
    with telling_unwritable(path):
        write_whole(path, page)
    if read_removals(work.removals_path) != before:
        path.unlink(missing_ok=True)
        raise UserError(f"{work.root}: posts were taken down meanwhile; run `report` again.")


def render_report(work: Work) -> str:
    """Return the page about a work folder as HTML.

    Raises:
        UserError: as ``write_report``.
    """
    planned = planned_shards(work.plan_path)
    info = read_about(work.plan_path)
    status = read_status(work)
    fate_table = read_fate_table(work, list(planned))
    funnel = build_funnel(status, planned, fate_table)
    statistics = measure(work, fate_table)
    splits, straddling = count_splits(fate_table)
    recipe = effective_recipe(work)
    is_by_character = recipe.get("split", {}).get("by") == "character"
    characters = find_straddling_characters(work, fate_table) if is_by_character else []
    template = _environment().get_template("page.html.j2")
    return template.render(
        name=recipe.get("name") or work.root.resolve().name,
        description=recipe.get("description", ""),
        recipe=_tables({k: v for k, v in recipe.items() if k not in ("name", "description")}),
        status=status,
        num_planned=sum(planned.values()),
        num_with_rows=len(fate_table.names),
        funnel=funnel,
        adds_up=status.adds_up and all(stage.adds_up for stage in funnel),
        splits=splits,
        straddling=straddling[:_MAX_LINES],
        num_straddling=len(straddling),
        is_by_character=is_by_character,
        characters=characters[:_MAX_LINES],
        num_characters=len(characters),
        statistics=statistics,
        wall=build_wall(statistics.colours.all_means()),
        in_store=bool(work.store),
        malformed=info.get("malformed", [])[:_MAX_LINES],
        num_malformed=status.select.get("filtered/malformed", 0),
        **_show_pictures(work, fate_table, statistics.disagreeing),
    )


def _show_pictures(work: Work, fate_table: FateTable, disagreeing: list[int]) -> dict[str, Any]:
    """Choose posts to show, and read all of them at once: shards are opened once or twice."""
    gone = [fate for fate in fate_table.fates() if fate not in (Status.FETCHED, Status.KEPT)]
    repeated = [fate for fate in gone if fate.startswith(Status.DUPLICATE)]
    places: dict[str, list[Place]] = {
        **{split: fate_table.choose(Status.KEPT, _NUM_SAMPLES, split) for split in SPLITS},
        **{f: fate_table.choose(f, _NUM_PAIRS if f in repeated else _NUM_LEFT_OUT) for f in gone},
        "disagreeing": fate_table.find(disagreeing)[:_NUM_LEFT_OUT],
    }
    found = show_posts(work, {place for some in places.values() for place in some})
    shown = {title: [found[place.post_id] for place in some] for title, some in places.items()}
    later = [post for fate in repeated for post in shown[fate] if "duplicate_of" in post.row]
    earlier = show_posts(work, fate_table.find([post.row["duplicate_of"] for post in later]))
    return {
        "samples": {split: shown[split] for split in SPLITS},
        "left_out": [
            LeftOut(fate, fate_table.count(fate), shown[fate])
            for fate in gone
            if fate not in repeated
        ],
        "pairs": [Pair(post, earlier.get(post.row["duplicate_of"])) for post in later],
        "disagreeing": shown["disagreeing"],
    }


def _tables(recipe: Table, path: str = "") -> list[tuple[str, list[tuple[str, str]]]]:
    """Return a recipe as flat tables: the path of each, and its keys and values as text."""
    rows = [
        (key, json.dumps(value, ensure_ascii=False))
        for key, value in recipe.items()
        if not isinstance(value, dict)
    ]
    tables = [(path or "recipe", rows[:_MAX_ROWS])] if rows else []
    for key, value in recipe.items():
        if isinstance(value, dict):
            tables += _tables(value, f"{path}.{key}" if path else key)
    return tables[:_MAX_ROWS]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clip": clip, "noun": noun, "percent": percent, "sized": sized}
    return environment


def clip(text: object, length: int = _MAX_TEXT) -> str:
    """Return a stranger's text fit to be shown: printable, in one line, and not too long."""
    start = str(text)[: length + 1]
    shown = "".join(letter if letter.isprintable() else "�" for letter in start)
    return shown if len(shown) <= length else shown[:length] + "…"


def percent(share: float) -> str:
    """Return a share as text that never rounds something to nothing, or nearly all to all."""
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{share:.1%}"
