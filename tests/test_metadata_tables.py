"""Metadata as Parquet and as SQLite."""

import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.metadata.files import read_posts
from pipeline.planning.selection import Selection
from pipeline.recipe import SelectSettings
from pipeline.records import Post
from tests.metadata_items import malformed_in, num_unparsed, posts_in, read
from tests.metadata_records import POSTS, new_record

SELECT = SelectSettings(tags=("solo",), snapshot=2023, rating=("g",))


def test_parquet_has_the_newer_schemas_columns(tmp_path: Path) -> None:
    records = [new_record(post) | {"score": 5, "parent_id": None} for post in POSTS]
    records[3]["rating"] = "?"
    records[4] = {"id": 5, "rating": "s", "tag_string_general": "tag_5"}
    table = pa.Table.from_pylist([{"tag_string_general": None} | record for record in records])
    index = table.column_names.index("tag_string")
    table = table.set_column(index, "tag_string", table["tag_string"].dictionary_encode())
    pq.write_table(table, tmp_path / "posts.parquet")
    items = read(tmp_path)
    assert len(posts_in(items)) == 39
    assert [(m.line, m.why) for m in malformed_in(items)] == [
        (4, "rating is '?', not one of g, s, q, e")
    ]
    items = read(tmp_path, ["solo", "tag_7"])
    assert [post.id for post in posts_in(items)] == [5, 7]  # 5 has no tag_string to search
    assert num_unparsed(items) == 38


def test_parquet_with_missing_columns_or_wrong_types_is_malformed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "tag_string": [[1], [2]]}), tmp_path / "a.parquet")
    assert [m.why for m in malformed_in(read(tmp_path))] == [
        "rating is '', not one of g, s, q, e"
    ] * 2
    twice = pa.Table.from_arrays([pa.array([1])] * 2, ["id", "id"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    assert malformed_in(read(tmp_path / "twice.parquet"))[0].line == 0
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-6])
    (last,) = malformed_in(read(tmp_path / "b.parquet", ["solo"]))
    assert (last.path, last.line) == (str(tmp_path / "b.parquet"), 0)


def test_a_row_of_parquet_that_is_no_text_is_malformed_alone(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([new_record(post) for post in POSTS[:4]])
    ratings = [text.encode() for text in table["rating"].to_pylist()]
    ratings[1] = b"\xff"
    unchecked = pa.array(ratings).view(pa.string())
    table = table.set_column(table.column_names.index("rating"), "rating", unchecked)
    pq.write_table(table, tmp_path / "a.parquet")
    items = read(tmp_path)
    assert posts_in(items) == [POSTS[0], *POSTS[2:4]]
    ((line, why),) = ((m.line, m.why) for m in malformed_in(items))
    assert line == 2
    assert why.startswith("a value that cannot be read")


def write_kblueleafs(path: Path, link: str = "posttagrelation") -> None:
    link = link.replace('"', '""')
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(f"""
            CREATE TABLE post (id INTEGER PRIMARY KEY, md5 TEXT, rating INTEGER, file_ext TEXT,
                image_width INTEGER, image_height INTEGER, file_size INTEGER, parent_id INTEGER,
                is_deleted INTEGER, is_banned INTEGER, score INTEGER);
            CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT, type INTEGER);
            CREATE TABLE "{link}" (id INTEGER PRIMARY KEY, post_id INTEGER, tag_id INTEGER);
            INSERT INTO tag VALUES (1, 'solo', 0), (2, 'miku', 2), (3, 'solo_focus', 0);
            INSERT INTO post VALUES (11, NULL, 0, 'jpg', 640, 480, 99, NULL, 0, 0, 3),
                (12, NULL, 1, 'png', 1, 2, 3, 11, 1, 0, 3),
                (13, NULL, 9, 'png', 1, 2, 3, 0, 0, 0, 3),
                (14, NULL, 3, 'png', 1, 2, 3, 0, 0, 1, 3);
            INSERT INTO "{link}" (post_id, tag_id) VALUES (11, 1), (11, 2), (12, 3), (13, 1);
        """)


@pytest.mark.parametrize("link", ["posttagrelation", "post_tags_through", 'odd "name"'])
def test_kblueleafs_database_is_read(link: str, tmp_path: Path) -> None:
    write_kblueleafs(tmp_path / "danbooru.db", link)
    both = frozenset({"solo", "miku"})
    expected = [
        Post(11, "", "g", "jpg", 640, 480, 0, both, ("miku",), False, False),
        Post(12, "", "s", "png", 1, 2, 11, frozenset({"solo_focus"}), (), True, False),
        Post(14, "", "e", "png", 1, 2, 0, frozenset(), (), False, True),
    ]
    items = read(tmp_path)
    assert posts_in(items) == expected
    assert [m.line for m in malformed_in(items)] == [13]
    items = read(tmp_path, ["solo", "miku"])
    assert posts_in(items) == expected[:1]
    assert num_unparsed(items) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["danbooru.db"]


def test_another_database_is_the_users_error(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("CREATE TABLE post (id INTEGER)")
    with pytest.raises(UserError, match=r"a\.db: not a database of Danbooru posts"):
        list(read_posts(tmp_path))


def test_columns_that_a_database_computes_are_not_read(tmp_path: Path) -> None:
    write_kblueleafs(tmp_path / "a.db")
    with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        for n in range(100):  # 16 MB each, of a few bytes
            database.execute(f"ALTER TABLE post ADD COLUMN bomb_{n} AS (zeroblob(16000000))")
        database.execute("ALTER TABLE post ADD COLUMN file_url AS (zeroblob(16000000))")
    tracemalloc.start()
    try:
        posts = posts_in(read(tmp_path))
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()
    assert [(post.id, post.file_url) for post in posts] == [(11, ""), (12, ""), (14, "")]


@pytest.mark.parametrize(
    ("table", "column"), [("post", "rating"), ("tag", "name"), ("posttagrelation", "tag_id")]
)
def test_a_database_that_computes_what_is_read_of_it_is_refused(
    table: str, column: str, tmp_path: Path
) -> None:
    write_kblueleafs(tmp_path / "a.db")
    with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        database.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        database.execute(f"ALTER TABLE {table} ADD COLUMN {column} AS (zeroblob(16000000))")
    with pytest.raises(UserError, match=r"a\.db: not a database of Danbooru posts"):
        list(read_posts(tmp_path))


@pytest.mark.parametrize("repeated", ["post", "tag"])
def test_a_database_that_repeats_ids_is_not_joined_for_ever(
    repeated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        database.executescript("""
            CREATE TABLE post (id INTEGER, rating INTEGER);
            CREATE TABLE tag (id INTEGER, name TEXT, type INTEGER);
            CREATE TABLE links (post_id INTEGER, tag_id INTEGER);
            INSERT INTO post VALUES (1, 0);
            INSERT INTO tag VALUES (1, NULL, 0);
        """)
        database.executemany("INSERT INTO links VALUES (1, 1)", [()] * 2000)
        read_all = posts_in(read(tmp_path))
        assert [post.id for post in read_all] == [1]
        rest = {"post": "1, 0", "tag": "1, NULL, 0"}[repeated]
        database.executemany(f"INSERT INTO {repeated} VALUES ({rest})", [()] * 2000)
    monkeypatch.setattr("pipeline.metadata.tables._MAX_STEPS", 10**6)
    with pytest.raises(UserError, match=r"a\.db: would take too long to read\. Each id"):
        list(read_posts(tmp_path))


def test_a_damaged_database_ends_with_a_complaint(tmp_path: Path) -> None:
    write_kblueleafs(tmp_path / "a.db")
    data = (tmp_path / "a.db").read_bytes()
    (tmp_path / "a.db").write_bytes(data[:5000] + bytes(len(data) - 5000))
    assert malformed_in(read(tmp_path))[-1].line == 0


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
