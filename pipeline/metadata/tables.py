"""Parquet and SQLite -> posts: the required tags are searched by the library."""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.metadata.record import RECORD_KEYS, Counted, Item, Malformed, Unparsed, read_record

_MAX_VALUE_BYTES = 16 * 2**20  # in a database, as for JSON records
_STRIDE = 10**6  # steps of SQLite's machine, of which a core does some 30 million a second
_MAX_STEPS = 200 * _STRIDE  # for any database, ...
_MAX_STEPS_A_BYTE = 100  # ... and more by its size; a sound one takes five a byte or fewer
_BATCH = 256  # rows: long texts that a dictionary stores once are many times as long in memory

# KBlueLeaf's danbooru2023 database: the link's table has had several names, its columns have not.
# Generated columns, of which a few bytes make millions, are not taken: ``table_info`` leaves them
# out.
_FIND_LINKS = """
    SELECT name FROM sqlite_master WHERE type = 'table'
    AND EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'post')
    AND EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'tag')
    AND 2 = (SELECT COUNT(*) FROM pragma_table_info(sqlite_master.name) AS columns
             WHERE columns.name IN ('post_id', 'tag_id'))
    AND 2 = (SELECT COUNT(*) FROM pragma_table_info('post') WHERE name IN ('id', 'rating'))
    AND 3 = (SELECT COUNT(*) FROM pragma_table_info('tag') WHERE name IN ('id', 'name', 'type'))
"""
_HAS_TAG = "post.id IN (SELECT post_id FROM link JOIN tag ON tag.id = tag_id WHERE tag.name = ?)"
_SELECT_POSTS = """
    SELECT post.rowid, {columns}, group_concat(tag.name, ' ') AS tag_string,
        group_concat(CASE tag.type WHEN 2 THEN tag.name END, ' ') AS tag_string_character,
        CASE post.rating WHEN 0 THEN 'g' WHEN 1 THEN 's' WHEN 2 THEN 'q' WHEN 3 THEN 'e'
            ELSE post.rating END AS rating
    FROM post LEFT JOIN link ON link.post_id = post.id
        LEFT JOIN tag ON tag.id = link.tag_id
    WHERE {where} GROUP BY post.rowid ORDER BY post.rowid
"""  # not by its id, which a table without a primary key may hold twice
_FIND_COLUMNS = "SELECT name FROM pragma_table_info('post')"
_COUNT_BETWEEN = "SELECT COUNT(*) FROM post WHERE rowid > ? AND rowid < ?"


def read_parquet(path: Path, required_tags: Collection[str]) -> Iterator[Item]:
    """Yield the rows of a Parquet file with a record's keys as columns, batch by batch."""
    num_rows = 0
    with pq.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if name in RECORD_KEYS]
        if len(columns) > len(set(columns)):
            raise pa.ArrowInvalid("two columns have one name")
        for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
            wanted = pa.array(np.ones(len(batch), bool))
            for tag in required_tags if "tag_string" in columns else ():
                has_tag = pc.match_substring(pc.cast(batch["tag_string"], pa.string()), tag)
                wanted = pc.and_(wanted, pc.fill_null(has_tag, True))
            rows = pc.indices_nonzero(wanted).to_numpy()
            gaps = np.diff(rows.astype(np.int64), prepend=-1) - 1
            records = _records(batch.take(pa.array(rows)))
            yield Counted(len(batch))
            for row, gap, record in zip(rows.tolist(), gaps.tolist(), records, strict=True):
                if gap:
                    yield Unparsed(gap)
                if isinstance(record, Malformed):
                    yield replace(record, path=str(path), line=num_rows + row + 1)
                else:
                    yield read_record(record, str(path), num_rows + row + 1)
            yield Unparsed(len(batch) - len(rows) - int(gaps.sum()))
            num_rows += len(batch)
        yield Counted(file.metadata.num_rows - num_rows)


def _records(batch: pa.RecordBatch) -> list[object]:
    """Return a batch's rows; in place of one that Python cannot hold, what is wrong with it."""
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError) as error:  # not UTF-8; a date after the year 9999
        if len(batch) == 1:
            return [Malformed("", 0, f"a value that cannot be read: {error}")]
    return [record for row in range(len(batch)) for record in _records(batch.slice(row, 1))]


def read_sqlite(path: Path, required_tags: Collection[str]) -> Iterator[Item]:
    """Yield the posts of KBlueLeaf's danbooru2023 database (ratings and tag types are numbers).

    Raises:
        UserError: where it is another database, or one whose tables are joined row by row.
    """
    max_steps = _MAX_STEPS + _MAX_STEPS_A_BYTE * path.stat().st_size
    strides = iter(range(max_steps // _STRIDE))
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
        database.set_progress_handler(lambda: next(strides, None) is None, _STRIDE)
        database.text_factory = lambda text: text.decode(errors="replace")
        try:
            yield from _read_database(database, path, required_tags)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            raise UserError(
                f"{path}: would take too long to read. Each id should be there once in post and in "
                "tag, and the table that links them have an index on post_id, and one on tag_id."
            ) from error


def _read_database(
    database: sqlite3.Connection, path: Path, required_tags: Collection[str]
) -> Iterator[Item]:
    tables = database.execute(_FIND_LINKS).fetchall()
    if len(tables) != 1:
        raise UserError(
            f"{path}: not a database of Danbooru posts: it should hold the tables post, tag, "
            "and one with the columns post_id and tag_id."
        )
    links = tables[0][0].replace('"', '""')
    database.execute(f'CREATE TEMP VIEW link AS SELECT post_id, tag_id FROM "{links}"')
    where = " AND ".join([_HAS_TAG] * len(required_tags)) or "TRUE"
    found = [name for (name,) in database.execute(_FIND_COLUMNS) if name in RECORD_KEYS]
    columns = ", ".join(f"post.{name}" for name in found) or "NULL"
    select = _SELECT_POSTS.format(columns=columns, where=where)
    rows = database.execute(select, tuple(required_tags))
    names = [column[0] for column in rows.description]
    num_told, last = 0, -(2**63)
    for row in rows:
        gap = 0
        if required_tags:
            (gap,) = database.execute(_COUNT_BETWEEN, (last, row[0])).fetchone()
        num_told, last = num_told + gap + 1, row[0]
        yield Counted(gap + 1)
        if gap:
            yield Unparsed(gap)
        yield read_record(dict(zip(names, row, strict=True)), str(path), row[0])
    (num_rows,) = database.execute("SELECT COUNT(*) FROM post").fetchone()
    yield Counted(num_rows - num_told)
    if required_tags:
        yield Unparsed(num_rows - num_told)
