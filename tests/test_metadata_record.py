from typing import Any

import pytest
from hypothesis import given

from pipeline.metadata.record import Malformed, parse_record, read_record
from pipeline.records import Post
from tests.metadata_records import make_post, new_record, old_record, posts

POST = make_post(7, "solo")


@given(posts())
def test_both_schemas_give_the_same_post(post: Post) -> None:
    assert parse_record(new_record(post)) == post
    assert parse_record(old_record(post)) == post


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"id": None}, "no id"),
        ({"id": 0}, "no id"),
        ({"id": ""}, "no id"),
        ({"id": -1}, "id is -1"),
        ({"id": True}, "id is True"),
        ({"id": 1.5}, "id is 1.5"),
        ({"id": "1_0"}, "id is '1_0'"),
        ({"id": "٣"}, "id is '٣'"),
        ({"id": 2**63}, f"id is {2**63}"),
        ({"id": "9" * 5000}, "id is '9999"),
        ({"rating": None}, "rating is ''"),
        ({"rating": "x"}, "rating is 'x'"),
        ({"rating": ["s"]}, "rating is"),
        ({"md5": "../../etc/passwd"}, "md5 is"),
        ({"md5": "0" * 32 + "/../x"}, "md5 is"),
        ({"md5": 5}, "md5 is 5, not a string"),
        ({"image_width": "wide"}, "image_width is 'wide'"),
        ({"image_height": 2**31}, "image_height is"),
        ({"file_ext": 1}, "file_ext is 1"),
        ({"is_deleted": "no"}, "is_deleted is 'no'"),
        ({"is_banned": []}, "is_banned is []"),
        ({"tag_string": ["solo"]}, "tag_string is"),
        ({"tags": "solo"}, "tags is 'solo'"),
        ({"tags": ["solo"]}, "tags holds a tag"),
        ({"tags": [{"name": "solo"}]}, "tags holds a tag"),
        ({"tags": [{"name": 1, "category": "0"}]}, "tags holds a name"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], why: str) -> None:
    answer = read_record(new_record(POST) | fields, "posts.json", 3)
    assert isinstance(answer, Malformed)
    assert (answer.path, answer.line) == ("posts.json", 3)
    assert answer.why.startswith(why)
    assert len(answer.why) < 150


def test_a_bad_field_that_nobody_reads_harms_no_post() -> None:
    assert read_record(new_record(POST) | {"file_size": {}}, "posts.json", 3) == POST


@pytest.mark.parametrize("record", [None, [], "text", 1, [{"id": 1}]])
def test_what_is_no_object_is_malformed(record: object) -> None:
    with pytest.raises(ValueError, match="not an object"):
        parse_record(record)


@pytest.mark.parametrize(
    ("word", "rating"),
    [
        *[("g", "g"), ("s", "s"), ("q", "q"), ("e", "e"), ("general", "g"), ("safe", "s")],
        *[("sensitive", "s"), ("questionable", "q"), ("explicit", "e")],
    ],
)
def test_ratings_may_be_written_out(word: str, rating: str) -> None:
    assert parse_record(new_record(POST) | {"rating": word}).rating == rating


def test_only_id_and_rating_must_be_there() -> None:
    post = parse_record({"id": 7, "rating": "s"})
    assert post == Post(7, "", "s", "", 0, 0, 0, frozenset(), (), False, False, "")


def test_extension_comes_from_the_url_where_the_record_has_none() -> None:
    def extension_of(url: str) -> str:
        return parse_record({"id": 7, "rating": "s", "file_url": url}).ext

    assert extension_of("https://cdn.example/original/2e/1c/2e1c.PNG?download=a.gif") == "png"
    assert extension_of("https://cdn.example/original") == ""
    assert extension_of("") == ""


def test_a_post_is_not_its_own_parent() -> None:
    assert parse_record(new_record(POST) | {"parent_id": 7}).parent_id == 0
    assert parse_record(new_record(POST) | {"parent_id": 8}).parent_id == 8


def test_numbers_of_tables_may_be_floats_with_nan_for_null() -> None:
    fields = {"parent_id": float("nan"), "image_width": 640.0}
    post = parse_record(new_record(POST) | fields)
    assert (post.parent_id, post.width) == (0, 640)


def test_without_tag_string_its_parts_count() -> None:
    record = {"id": 7, "rating": "s", "tag_string_general": "b a", "tag_string_character": "d c"}
    post = parse_record(record)
    assert post.tags == {"a", "b", "c", "d"}
    assert post.characters == ("c", "d")


def test_a_known_character_is_told_by_its_category() -> None:
    tags = [
        {"id": "1", "name": "solo", "category": "0"},
        {"id": "2", "name": "miku", "category": "4"},
        {"id": "3", "name": "vocaloid", "category": 3},
        {"id": "4", "name": "luka", "category": 4},
    ]
    post = parse_record({"id": "7", "rating": "s", "tags": tags})
    assert post.characters == ("luka", "miku")
    assert post.tags == {"solo", "miku", "vocaloid", "luka"}
