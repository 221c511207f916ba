"""The whole of fetch, from every kind of metadata."""

import gzip
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline.errors import UserError
from pipeline.maintenance.status import read_status
from pipeline.planning.make import find_metadata, make_plan
from pipeline.recipe import SelectSettings
from pipeline.run import fetch
from pipeline.work import Work
from tests.indexed_tars import write_tars
from tests.metadata_records import lines_of, make_post, new_record
from tests.sources import PICTURES, POSTS, originals, recipe_of

QUIET = Console(quiet=True)


def records_of_2023() -> list[dict[str, Any]]:
    """Records as the site wrote them in 2023: six to keep, one each to filter."""
    posts = [replace(post, rating="g") for post in POSTS]
    odd = make_post(5, "solo")
    changed = [
        replace(odd, id=11, rating="s"),  # sensitive by then
        replace(odd, id=12, rating="q"),
        replace(odd, id=13, rating="g", is_deleted=True),
        replace(odd, id=14, rating="g", is_banned=True),
        replace(odd, id=15, rating="g", ext="mp4"),
        replace(odd, id=16, rating="g", tags=frozenset({"solo_focus"})),
    ]
    blank = {"parent_id": None, "is_deleted": False, "is_banned": False, "bit_flags": 0}
    dates = {"created_at": "2023-03-17T03:50:48.762-04:00", "pixiv_id": None, "up_score": 0}
    return [{**blank, **dates, **new_record(post)} for post in [*posts, *changed]]


def write_lines(path: Path) -> None:
    path.write_bytes(lines_of(records_of_2023()))


def write_list(path: Path) -> None:
    path.write_bytes(orjson.dumps(records_of_2023(), option=orjson.OPT_INDENT_2))


def write_packed(path: Path) -> None:
    path.write_bytes(gzip.compress(lines_of(records_of_2023())))


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(records_of_2023()), path, row_group_size=4)


def write_sqlite(path: Path) -> None:
    """KBlueLeaf's shape: ratings and the tags' types are numbers, tags are linked."""
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript("""
            CREATE TABLE post (id INTEGER PRIMARY KEY, md5 TEXT, rating INTEGER, file_ext TEXT,
                image_width INTEGER, image_height INTEGER, file_size INTEGER, parent_id INTEGER,
                is_deleted INTEGER, is_banned INTEGER, file_url TEXT, created_at TEXT);
            CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT, type INTEGER);
            CREATE TABLE posttagrelation (post_id INTEGER, tag_id INTEGER);
        """)
        names = sorted({tag for r in records_of_2023() for tag in r["tag_string"].split()})
        database.executemany("INSERT INTO tag VALUES (?, ?, 0)", list(enumerate(names, 1)))
        for record in records_of_2023():
            columns = ("md5", "file_ext", "image_width", "image_height", "file_size")
            database.execute(
                "INSERT INTO post VALUES (?,?,?,?,?,?,?,NULL,?,?,NULL,?)",
                [
                    record["id"],
                    record["md5"],
                    "gsqe".index(record["rating"]),
                    *(record[column] for column in columns[1:]),
                    int(record["is_deleted"]),
                    int(record["is_banned"]),
                    record["created_at"],
                ],
            )
            links = [(record["id"], names.index(t) + 1) for t in record["tag_string"].split()]
            database.executemany("INSERT INTO posttagrelation VALUES (?, ?)", links)


WRITERS = {
    "posts.json": write_lines,
    "list.json": write_list,
    "posts.jsonl.gz": write_packed,
    "metadata.parquet": write_parquet,
    "danbooru2023.db": write_sqlite,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_metadata_gives_the_same_data_set(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    write_tars(tmp_path / "tars", [(n, "jpg", data) for n, data in PICTURES.items()])
    recipe = recipe_of(tmp_path / name, f"{tmp_path}/tars/{{bucket}}.tar#{{id}}.{{ext}}")
    recipe = replace(recipe, select=SelectSettings(snapshot=2023, tags=("solo",)))
    work = Work(tmp_path / "work")
    assert fetch(recipe, work, QUIET).fates == {"fetched": 6}
    assert originals(work) == PICTURES
    status = read_status(work)
    assert status.num_records == 12
    assert status.select == {
        "planned": 6,
        "filtered/rating": 2,
        "filtered/deleted": 1,
        "filtered/banned": 1,
        "filtered/not_a_picture": 1,
        "filtered/tag_missing": 1,
    }


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("snapshot", "rating", "num_wanted", "message"),
    [
        (2021, ("safe",), 0, "is rated g, which came in 2022"),
        (2022, ("safe",), 0, "may mean safe or sensitive"),
        (2022, ("g",), 6, ""),
        (2022, ("s",), 1, ""),
        (2023, ("safe", "s"), 7, ""),
    ],
)
def test_the_rating_policy_holds_for_every_kind(
    name: str, snapshot: int, rating: tuple[str, ...], num_wanted: int, message: str, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path / name)
    select = SelectSettings(snapshot=snapshot, rating=rating, tags=("solo",))
    recipe = replace(recipe_of(tmp_path / name, "{id}"), select=select)
    if message:
        with pytest.raises(UserError, match=message):
            make_plan(recipe, None, tmp_path / name)
    else:
        assert len(make_plan(recipe, None, tmp_path / name).posts) == num_wanted


def test_metadata_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names no metadata: give --metadata"):
        find_metadata(recipe_of("", "{id}"), Work(tmp_path), QUIET)
    with pytest.raises(UserError, match=r"--metadata .*/a\.json: no such file or folder"):
        find_metadata(recipe_of(tmp_path / "a.json", "{id}"), Work(tmp_path), QUIET)
