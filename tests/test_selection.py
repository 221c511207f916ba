import csv
import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.metadata.files import read_posts
from pipeline.metadata.record import Counted, Item, Malformed, Unparsed
from pipeline.planning import selection
from pipeline.planning.ratings import allowed_ratings
from pipeline.planning.selection import MAX_MALFORMED, Selection, judge, load_nsfw_ids
from pipeline.recipe import SelectSettings
from pipeline.records import Post
from tests.metadata_records import TAGS, lines_of, make_post, new_record, posts

SELECT = SelectSettings(tags=("solo",), exclude_tags=("comic", "monochrome"), min_side=300)
WANTED = make_post(7, "solo", "smile")

# What is wrong with a post, in the order in which judge looks at it.
FAULTS: dict[str, dict[str, Any]] = {
    "tag_missing": {"tags": frozenset({"solo_focus", "comic"})},
    "tag_excluded": {"tags": frozenset({"solo", "comic"})},
    "rating": {"rating": "q"},
    "deleted": {"is_deleted": True},
    "banned": {"is_banned": True},
    "nsfw_id": {"id": 666},
    "not_a_picture": {"ext": "mp4"},
    "too_small": {"height": 299},
}


def reason(post: Post, select: SelectSettings = SELECT) -> str:
    fate = judge(post, select, frozenset({666}))
    return str(fate) if fate else ""


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_reason(fault: str) -> None:
    assert reason(WANTED) == ""
    assert reason(replace(WANTED, **FAULTS[fault])) == f"filtered/{fault}"


def test_the_first_fault_counts() -> None:
    post = WANTED
    for fault, fields in reversed(FAULTS.items()):
        post = replace(post, **fields)
        assert reason(post) == f"filtered/{fault}"


@pytest.mark.parametrize(
    "tag", ["white_background_removed", "off_white_background", "White_background"]
)
def test_tags_are_exact_tokens(tag: str) -> None:
    select = SelectSettings(tags=("white_background",))
    assert reason(make_post(1, tag), select) == "filtered/tag_missing"
    unwanted = SelectSettings(exclude_tags=("white_background",))
    assert reason(make_post(1, tag), unwanted) == ""
    assert reason(make_post(1, "white_background"), unwanted) == "filtered/tag_excluded"


def test_any_of_several_tags_will_do() -> None:
    select = SelectSettings(tags=("solo",), any_tags=("portrait", "white_background"))
    assert reason(make_post(1, "solo", "portrait"), select) == ""
    assert reason(make_post(1, "solo", "white_background", "smile"), select) == ""
    assert reason(make_post(1, "solo", "portrait_(object)"), select) == "filtered/tag_missing"
    assert reason(make_post(1, "portrait", "white_background"), select) == "filtered/tag_missing"


def test_a_side_that_is_not_known_is_not_too_small() -> None:
    assert reason(replace(WANTED, width=0, height=0)) == ""
    assert reason(replace(WANTED, width=0, height=299)) == "filtered/too_small"
    assert reason(replace(WANTED, width=300, height=300)) == ""


@pytest.mark.parametrize(
    ("snapshot", "rating", "allowed"),
    [
        (2017, ("safe",), "s"),
        (2021, ("safe",), "s"),
        (2021, ("safe", "q"), "sq"),
        (2022, ("s",), "s"),
        (2022, ("g",), "g"),
        (2023, ("safe",), "g"),
        (2026, ("safe", "s"), "gs"),
        (2023, ("s",), "s"),
        (2023, ("g", "s", "q", "e"), "gsqe"),
    ],
)
def test_a_rating_means_what_it_meant_then(
    snapshot: int, rating: tuple[str, ...], allowed: str
) -> None:
    assert allowed_ratings(SelectSettings(snapshot=snapshot, rating=rating)) == set(allowed)


@pytest.mark.parametrize("rating", [("safe",), ("safe", "q")])
def test_safe_is_refused_where_it_has_two_meanings(rating: tuple[str, ...], tmp_path: Path) -> None:
    select = SelectSettings(snapshot=2022, rating=rating)
    with pytest.raises(UserError, match=r"""--set 'select.rating=\["s"\]'.*=\["g"\]'"""):
        Selection(tmp_path, select)


def test_general_is_refused_before_there_was_one() -> None:
    with pytest.raises(UserError, match=r"snapshots until 2021.*--set select\.snapshot=YEAR"):
        allowed_ratings(SelectSettings(snapshot=2021, rating=("s", "g")))


def test_a_general_post_proves_the_snapshot_wrong() -> None:
    with pytest.raises(UserError, match=r"post 7 is rated g.*not of 2021.*select\.snapshot=YEAR"):
        judge(replace(WANTED, rating="g"), SELECT, frozenset())
    assert reason(replace(WANTED, rating="g"), replace(SELECT, snapshot=2023)) == ""
    first = replace(SELECT, snapshot=2022, rating=("g",))
    assert reason(replace(WANTED, rating="g"), first) == ""
    assert reason(WANTED, replace(SELECT, snapshot=2023)) == "filtered/rating"


# The list of ids


def test_the_list_is_found_in_the_folder_or_beside_the_metadata(tmp_path: Path) -> None:
    folder = tmp_path / "metadata"
    folder.mkdir()
    assert load_nsfw_ids(SELECT, folder) == frozenset()
    (tmp_path / "nsfw-ids.txt").write_bytes(b"12\r\n\n 13 \n")
    assert load_nsfw_ids(SELECT, folder) == {12, 13}
    assert load_nsfw_ids(SELECT, str(tmp_path / "metadata.json.tar.xz")) == {12, 13}
    (folder / "nsfw-ids.txt").write_bytes(b"14")
    assert load_nsfw_ids(SELECT, folder) == {14}
    named = tmp_path / "mine.txt"
    named.write_bytes(b"15\n")
    assert load_nsfw_ids(replace(SELECT, nsfw_ids=str(named)), folder) == {15}


@pytest.mark.parametrize("line", ["abc", "-5", "1.5", "1 2", "\u0663", "<html>", "9" * 5000])
def test_a_line_without_an_id_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "nsfw-ids.txt").write_text(f"12\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"nsfw-ids\.txt:2: .* is not a post id"):
        load_nsfw_ids(SELECT, tmp_path)


def test_a_named_list_must_be_there(tmp_path: Path) -> None:
    select = replace(SELECT, nsfw_ids=str(tmp_path / "nowhere.txt"))
    with pytest.raises(UserError, match=r"nowhere\.txt: cannot be read: No such file"):
        load_nsfw_ids(select, tmp_path)


# The whole


def write_posts(path: Path, *members: Post) -> Path:
    path.write_bytes(lines_of([new_record(post) for post in members]))
    return path


def test_every_record_has_one_fate(tmp_path: Path) -> None:
    faulty = [replace(WANTED, **fields) for fields in FAULTS.values()]  # of an id that is wanted
    path = write_posts(tmp_path / "a.json", WANTED, *faulty, WANTED, make_post(9, "solo"))
    with path.open("ab") as file:
        file.write(b'{"solo"}\n')
    chosen = Selection(path, SELECT, frozenset({666}))
    assert [post.id for post in chosen] == [7, 9]
    assert chosen.counts == {
        **{f"filtered/{fault}": 1 for fault in FAULTS},
        "filtered/malformed": 1,
        "filtered/repeated_id": 1,
        "planned": 2,
    }
    assert chosen.num_records == 12
    assert [(m.path, m.line) for m in chosen.malformed] == [(str(path), 12)]


def test_iterating_again_counts_anew(tmp_path: Path) -> None:
    path = write_posts(tmp_path / "a.json", WANTED)
    with path.open("ab") as file:
        file.write(b'{"solo"}\n')
    chosen = Selection(path, SELECT)
    assert list(chosen) == list(chosen) == [WANTED]
    assert chosen.counts == {"filtered/malformed": 1, "planned": 1}
    assert len(chosen.malformed) == 1


def test_only_a_wanted_post_makes_a_later_one_a_repeat(tmp_path: Path) -> None:
    path = write_posts(tmp_path / "a.json", replace(WANTED, is_deleted=True), WANTED)
    assert list(Selection(path, SELECT)) == [WANTED]


def test_the_first_record_of_an_id_wins_over_all_files(tmp_path: Path) -> None:
    write_posts(tmp_path / "a.json", WANTED)
    write_posts(tmp_path / "b.json", replace(WANTED, width=999))
    chosen = Selection(tmp_path, SELECT)
    assert list(chosen) == [WANTED]
    assert chosen.counts == {"filtered/repeated_id": 1, "planned": 1}


def test_a_limit_stops_the_reading(tmp_path: Path) -> None:
    wanted = [make_post(i, "solo") for i in range(1, 6)]
    path = write_posts(tmp_path / "a.json", wanted[0], make_post(10), *wanted[1:])
    with path.open("ab") as file:
        file.write(b"bad\n")
    chosen = Selection(path, SelectSettings(tags=("solo",)), limit=3)
    assert list(chosen) == wanted[:3]
    assert chosen.counts["planned"] == 3
    assert chosen.num_records == sum(chosen.counts.values())
    assert not chosen.malformed
    chosen = Selection(path, SelectSettings(tags=("solo",)), limit=99)
    assert list(chosen) == wanted
    assert chosen.num_records == 7


@pytest.mark.parametrize("is_list", [False, True])
def test_a_limit_counts_all_that_was_passed_over(is_list: bool, tmp_path: Path) -> None:
    members = [make_post(i, "solo" if i in (4, 5, 8) else "smile") for i in range(1, 11)]
    path = write_posts(tmp_path / "a.json", *members)
    if is_list:
        path.write_text(json.dumps([new_record(post) for post in members]))
    for limit, num_passed in ((1, 3), (2, 3), (3, 5), (4, 7)):
        chosen = Selection(path, SelectSettings(tags=("solo",)), limit=limit)
        num_planned = len(list(chosen))
        assert num_planned == min(limit, 3)
        assert chosen.counts == {"filtered/tag_missing": num_passed, "planned": num_planned}


@pytest.mark.parametrize(
    "items",
    [
        [Counted(2), WANTED],
        [Counted(1), WANTED, Unparsed(1)],
        [WANTED],
        [Counted(3), Malformed("a", 1, "bad"), Unparsed(1)],
    ],
)
def test_a_record_lost_or_counted_twice_is_a_bug(items: list[Item]) -> None:
    with patch.object(selection, "read_posts", lambda *_: iter(items)):
        chosen = Selection("a.json", SELECT)
        with pytest.raises(RuntimeError, match="accounted for"):
            list(chosen)


def test_malformed_records_are_all_counted_but_not_all_remembered(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"bad\n" * (MAX_MALFORMED + 5))
    chosen = Selection(tmp_path, SELECT)
    assert not list(chosen)
    assert chosen.counts == {"filtered/malformed": MAX_MALFORMED + 5}
    assert [m.line for m in chosen.malformed] == [*range(1, MAX_MALFORMED + 1)]


@given(st.lists(posts(), max_size=6), st.lists(TAGS, max_size=2), st.lists(TAGS, max_size=1))
def test_the_search_before_parsing_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[Post],
    tags: list[str],
    exclude_tags: list[str],
) -> None:
    drawn = [replace(post, id=i // 2 + 1) for i, post in enumerate(drawn)]
    path = write_posts(tmp_path_factory.getbasetemp() / "drawn.json", *drawn)
    select = SelectSettings(
        snapshot=2023, rating=tuple("gsq"), tags=tuple(tags), exclude_tags=tuple(exclude_tags)
    )
    searched, parsed = Selection(path, select), Selection(path, select)
    chosen = list(searched)

    def read_all(source: Path, _: Collection[str]) -> Iterator[Item]:
        return read_posts(source)

    with patch.object(selection, "read_posts", read_all):
        assert list(parsed) == chosen
    assert searched.counts == parsed.counts
    assert searched.num_records == len(drawn)


# The mirror

WHITE = SelectSettings(tags=("white_background",))
FILTERED = {
    "deleted": "filtered/deleted",
    "banned": "filtered/banned",
    "listed in nsfw-ids.txt": "filtered/nsfw_id",
    "rating q": "filtered/rating",
    "rating e": "filtered/rating",
    "not a still picture": "filtered/not_a_picture",
    "tag only looks alike": "filtered/tag_missing",
}


@pytest.mark.mirror
def test_both_schemas_of_the_mirror_give_the_articles_selection(mirror: Path) -> None:
    for name in ("metadata", "metadata.json.tar.xz"):
        chosen = Selection(mirror / name, WHITE)
        assert len(list(chosen)) == 569
        assert chosen.num_records == 34_217
    nsfw_ids = load_nsfw_ids(WHITE, mirror / "metadata")
    new = [post.id for post in Selection(mirror / "metadata", WHITE, nsfw_ids)]
    old = [post.id for post in Selection(mirror / "metadata.json.tar.xz", WHITE, nsfw_ids)]
    assert len(new) == 569 - len(nsfw_ids)
    assert sorted(new) == sorted(old)


@pytest.mark.mirror
def test_the_mirrors_troubles_have_their_reasons(mirror: Path) -> None:
    with (mirror / "trouble.csv").open(encoding="utf-8") as file:
        what = {int(row["id"]): row["what"] for row in csv.DictReader(file)}
    nsfw_ids = load_nsfw_ids(WHITE, mirror / "metadata")
    fates = {
        item.id: str(judge(item, WHITE, nsfw_ids))
        for item in read_posts(mirror / "metadata")
        if isinstance(item, Post) and what.get(item.id, "").startswith("filtered: ")
    }
    assert len(fates) == 88
    assert {i: FILTERED[what[i].removeprefix("filtered: ")] for i in fates} == fates


@pytest.mark.mirror
def test_newer_records_are_not_taken_for_a_2021_snapshot(mirror: Path) -> None:
    path = mirror / "recorded" / "api_2023_ratings_gsqe.jsonl"
    with pytest.raises(UserError, match=r"post \d+ is rated g"):
        list(Selection(path, SelectSettings()))
    chosen = list(Selection(path, SelectSettings(snapshot=2023)))
    assert {post.rating for post in chosen} == {"g"}
