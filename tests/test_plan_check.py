"""A plan may be a stranger's: what ours never plan is met with a sentence, whoever reads it."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import DamagedError
from pipeline.maintenance.verify import verify
from pipeline.planning.plan import planned_shards, read_planned
from pipeline.schema import SELECTION, build_table
from pipeline.shards.rows import read_info, write_rows
from pipeline.work import Work
from tests.calls import call

Rows = list[dict[str, Any]]


def setting(column: str, value: object, place: int = 0) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        rows[place][column] = value
        return rows

    return change


FORGED: dict[str, tuple[str, Callable[[Rows], Rows]]] = {
    "an id below 1": ("post_id is under 1", setting("post_id", 0)),
    "a family below 1": ("family is under 1", setting("family", 0)),
    "a parent below 0": ("parent_id is under 0", setting("parent_id", -1)),
    "a height below 0": ("height is under 0", setting("height", -1)),
    "a shard below 0": ("shard is under 0", setting("shard", -1)),
    "a width below 0": ("width is under 0", setting("width", -1)),
    "another order": ("not in the order", lambda rows: rows[::-1]),
    "a post twice": ("holds one twice", lambda rows: [rows[0], rows[0], *rows[2:]]),
    "another split": ("of another shard", setting("split", "test")),
    "a split that leaves": ("of another shard", setting("split", "../../x")),
    "another shard": ("of another shard", setting("shard", 7)),
    "another rating": ("rating is not one of", setting("rating", "x")),
    "another fate": ("no planned post has", setting("status", "fetched")),
    "a reason": ("no planned post has", setting("reason", "takedown")),
    "an md5 in capitals": ("an md5 that is none", setting("md5", "A" * 32)),
    "an md5 and a line end": ("an md5 that is none", setting("md5", "a" * 32 + "\n")),
    "an odd md5": ("an md5 that is none", setting("md5", "../" * 8 + "x" * 8)),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_posts_that_nothing_of_ours_plans_are_named(work: Work, forgery: str) -> None:
    message, change = FORGED[forgery]
    names = list(planned_shards(work.plan_path))
    tables = [read_planned(work.plan_path, name) for name in names]
    tables[0] = build_table(change(tables[0].to_pylist()), SELECTION)
    write_rows(work.plan_path, tables, read_info(work.plan_path))
    with pytest.raises(DamagedError, match=f"{names[0]}: .*{message}.*; `fetch` plans nothing"):
        read_planned(work.plan_path, names[0])
    problem, *_ = verify(work.root)
    assert problem.path == work.plan_path
    assert message in problem.what


def test_a_shard_in_whose_place_no_posts_are_is_named(work: Work) -> None:
    names = list(planned_shards(work.plan_path))
    tables = [read_planned(work.plan_path, name) for name in names]
    write_rows(work.plan_path, [tables[0].slice(0, 0), *tables], read_info(work.plan_path))
    with pytest.raises(DamagedError, match=f"{names[0]}: holds no posts"):
        read_planned(work.plan_path, names[0])


def test_a_plan_that_names_a_shard_twice_is_refused(work: Work) -> None:
    names = list(planned_shards(work.plan_path))
    tables = [read_planned(work.plan_path, name) for name in names]
    about = read_info(work.plan_path)
    about["shards"] = [(names[0], size) for _, size in about["shards"]]
    write_rows(work.plan_path, tables, about)
    with pytest.raises(DamagedError, match="does not hold the shards that it plans"):
        planned_shards(work.plan_path)


def test_words_that_are_not_in_utf8_are_named(work: Work) -> None:
    names = list(planned_shards(work.plan_path))
    tables = [read_planned(work.plan_path, name) for name in names]
    words = pa.array([b"\xff"] * len(tables[0]), pa.binary()).view(pa.string())
    place = SELECTION.get_field_index("tags")
    tables[0] = tables[0].set_column(place, SELECTION.field(place), words)
    write_rows(work.plan_path, tables, read_info(work.plan_path))
    with pytest.raises(DamagedError, match="cannot be read: .*UTF8"):
        read_planned(work.plan_path, names[0])


def test_columns_that_are_not_a_plans_are_named(work: Work) -> None:
    names = list(planned_shards(work.plan_path))
    tables = [read_planned(work.plan_path, name).drop_columns(["file_url"]) for name in names]
    write_rows(work.plan_path, tables, read_info(work.plan_path))
    with pytest.raises(DamagedError, match="not those of a plan"):
        read_planned(work.plan_path, names[0])


def test_a_plan_that_may_not_be_read_is_not_called_damaged(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(path: Path) -> None:
        raise PermissionError(errno.EACCES, f"Failed to open local file '{path}'. Detail: no")

    monkeypatch.setattr("pyarrow.parquet.read_metadata", deny)
    with pytest.raises(DamagedError, match=r"parquet: cannot be read: Permission denied\.$"):
        planned_shards(work.plan_path)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"shards": None}, "which shards it plans"),
        ({"shards": [1, 2]}, "which shards it plans"),
        ({"shards": [["../../evil-000000", 3]]}, "which shards it plans"),
        ({"shards": []}, "not hold the shards that it plans"),
        ({"shards": [["train-000000", 10**15]]}, "not hold the shards that it plans"),
        ({"shards": [["train-000000", 3]] * 5}, "not hold the shards that it plans"),
        ({"counts": ["planned"]}, "counts"),
        ({"counts": {"planned": "many"}}, "counts"),
        ({"num_records": None}, "num_records"),
        ({"recipe": 3}, "recipe"),
        ({"malformed": 3}, "malformed"),
    ],
)
def test_a_plan_that_does_not_say_what_plans_say_is_a_sentence(
    work: Work, about: dict[str, Any], message: str
) -> None:
    tables = [read_planned(work.plan_path, name) for name in planned_shards(work.plan_path)]
    write_rows(work.plan_path, tables, read_info(work.plan_path) | about)
    for command in ("status", "report", "push"):
        places = [work.root.parent / "there"] if command == "push" else []
        error = call(command, work.root, *places).exception
        assert isinstance(error, DamagedError), (command, error)
        assert message in str(error)
        assert str(work.plan_path) in str(error)
    problem, *_ = verify(work.root)
    assert problem.path == work.plan_path
