"""Parquet and SQLite beyond what every kind of metadata has to do."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.recipe import SelectSettings
from pipeline.selection import Selection
from tests.test_metadata import malformed_in, posts_in, read

SELECT = SelectSettings(tags=("solo",), snapshot=2023, rating=("g",))


def write_database(path: Path, key: str, *ids: int | None) -> None:
    """Write posts of these ids, in this order, that are tagged solo, all but those over 100."""
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(f"""
            CREATE TABLE post (id INTEGER {key}, rating INTEGER, file_ext TEXT, is_deleted INTEGER);
            CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT, type INTEGER);
            CREATE TABLE links (post_id INTEGER, tag_id INTEGER);
            INSERT INTO tag VALUES (1, 'solo', 0), (2, 'smile', 0);
        """)
        rows = [(post_id, number) for number, post_id in enumerate(ids)]
        database.executemany("INSERT INTO post VALUES (?, 0, 'jpg', ? % 2)", rows)
        database.execute("INSERT INTO links SELECT DISTINCT id, 2 FROM post")
        database.execute("INSERT INTO links SELECT DISTINCT id, 1 FROM post WHERE id <= 100")


@pytest.mark.parametrize("tags", [(), ("solo",)])
def test_a_database_may_repeat_a_post(tags: tuple[str, ...], tmp_path: Path) -> None:
    write_database(tmp_path / "a.db", "", 7, 101, 5, None, 5, 5, 7)
    items = read(tmp_path, tags)
    found = [(post.id, post.is_deleted) for post in posts_in(items)]
    others = [] if tags else [(101, True)]
    assert sorted(found) == sorted(
        [(7, False), (5, False), (5, False), (5, True), (7, False), *others]
    )
    assert all("solo" in post.tags for post in posts_in(items) if post.id <= 100)
    assert len(malformed_in(items)) == (0 if tags else 1)
    chosen = Selection(tmp_path, SELECT)
    assert sorted(post.id for post in chosen) == [5, 7]
    assert chosen.counts == {
        "filtered/deleted": 1,
        "filtered/repeated_id": 2,
        "filtered/tag_missing": 2,
        "planned": 2,
    }


def write_parquet(path: Path, *ids: int) -> None:
    """Write what ``write_database`` does."""
    rows = [
        {"id": i, "rating": "g", "tag_string": "smile solo" if i <= 100 else "smile"} for i in ids
    ]
    pq.write_table(pa.Table.from_pylist([row | {"file_ext": "jpg"} for row in rows]), path)


@pytest.mark.parametrize("name", ["a.parquet", "a.db"])
def test_a_limit_counts_all_that_was_passed_over(name: str, tmp_path: Path) -> None:
    ids = [i + 100 if i in (1, 2, 3, 6, 7) else i for i in range(1, 9)]
    if name == "a.db":
        write_database(tmp_path / name, "", *ids)
        with closing(sqlite3.connect(tmp_path / name)) as database, database:
            database.execute("UPDATE post SET is_deleted = 0")
    else:
        write_parquet(tmp_path / name, *ids)
    for limit, num_passed in ((1, 3), (2, 3), (3, 5), (4, 5)):
        chosen = Selection(tmp_path, SELECT, limit=limit)
        assert [post.id for post in chosen] == [4, 5, 8][:limit]
        assert chosen.counts == {"filtered/tag_missing": num_passed, "planned": min(limit, 3)}
