"""One record of Danbooru's metadata, in whichever schema -> a ``Post``.

The two schemas of Danbooru2021 differ in their tags: the older one (2017 to 2020, too) lists
``tags: [{id, name, category}]`` and writes numbers as strings; the newer one, the site's API and
tables have ``tag_string*``, and leave empty keys out. Everything else has the same name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from pipeline.records import Post, split_tags

_TAG_STRINGS = tuple(
    f"tag_string_{kind}" for kind in ("general", "artist", "character", "copyright", "meta")
)
RECORD_KEYS = frozenset(
    {
        *("id", "md5", "rating", "file_ext", "file_url", "image_width", "image_height"),
        *("parent_id", "is_deleted", "is_banned", "tags", "tag_string"),
        *_TAG_STRINGS,
    }
)
"""The keys of a record that are read; all others are ignored."""

_RATING_NAMES = ("general", "safe", "sensitive", "questionable", "explicit")
_RATINGS = {word: name[0] for name in _RATING_NAMES for word in (name, name[0])}
_FLAGS = {None: False, False: False, True: True}
_DIGITS = re.compile("[0-9]{1,19}")
_MD5 = re.compile("[0-9a-f]{32}")
_CHARACTER = ("4", 4)  # Danbooru's category: 0 general, 1 artist, 3 copyright, 4 character, 5 meta
_INT32, _INT64 = 2**31 - 1, 2**63 - 1


UNREADABLE = "unreadable from here on"
"""Begins what is said of a file whose rest is lost."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A record that cannot be used.

    Attributes:
        path: the file; for a member of an archive ``archive:member``.
        line: its line, from 1; its number in a JSON list or Parquet file; its row id in a
            database; 0 where the file itself is damaged, and the rest of it lost.
        why: what is wrong with it.
    """

    path: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}"


@dataclass(frozen=True, slots=True)
class Unparsed:
    """Records that were left unparsed, since the required tags cannot be in them."""

    num_records: int


@dataclass(frozen=True, slots=True)
class Counted:
    """Records that the reader has met, by its own count."""

    num_records: int


Item: TypeAlias = Post | Malformed | Unparsed | Counted
"""What readers yield. Nothing is lost: Counted's sum is that of the three others."""


def read_record(record: object, path: str, line: int) -> Post | Malformed:
    """Return a record's post, or where the record is and what is wrong with it."""
    try:
        return parse_record(record)
    except ValueError as error:
        return Malformed(path, line, str(error))


def parse_record(record: object) -> Post:
    """Return the post that a record describes, as JSON or a table gives it.

    Absent fields, and null, stand for 0, "" or false. Without ``tag_string`` the tags are those
    of ``tag_string_general`` and its like; without ``file_ext`` the extension is ``file_url``'s.

    Raises:
        ValueError: saying what is wrong, where a field has a wrong type or range, or id or
            rating is missing.
    """
    if not isinstance(record, Mapping):
        raise ValueError("not an object")  # noqa: TRY004 (bad data, not a wrong call)
    post_id = _number(record, "id", _INT64)
    if not post_id:
        raise ValueError("no id")
    rating = _text(record, "rating")
    if rating not in _RATINGS:
        raise ValueError(f"rating is {_show(rating)}, not one of g, s, q, e")
    md5 = _text(record, "md5").lower()
    if md5 and not _MD5.fullmatch(md5):
        raise ValueError(f"md5 is {_show(md5)}")
    parent_id = _number(record, "parent_id", _INT64)
    file_url = _text(record, "file_url")
    tags, characters = _tags(record)
    return Post(
        id=post_id,
        md5=md5,
        rating=_RATINGS[rating],
        ext=_text(record, "file_ext").lower() or _extension_of(file_url),
        width=_number(record, "image_width", _INT32),
        height=_number(record, "image_height", _INT32),
        parent_id=0 if parent_id == post_id else parent_id,
        tags=tags,
        characters=tuple(sorted(characters)),
        is_deleted=_flag(record, "is_deleted"),
        is_banned=_flag(record, "is_banned"),
        file_url=file_url,
    )


def _tags(record: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    """Return all tags, and those that name a character."""
    listed = record.get("tags")
    if listed is None:
        characters = _tokens(record, "tag_string_character")
        if record.get("tag_string") is not None:
            return _tokens(record, "tag_string"), characters
        return frozenset[str]().union(*(_tokens(record, key) for key in _TAG_STRINGS)), characters
    if not isinstance(listed, list):
        raise ValueError(f"tags is {_show(listed)}, not a list")  # noqa: TRY004
    try:
        names = [tag["name"] for tag in listed]
        of_characters = [tag["name"] for tag in listed if tag["category"] in _CHARACTER]
    except (TypeError, KeyError) as error:
        raise ValueError("tags holds a tag without name or category") from error
    if not set(map(type, names)) <= {str}:
        raise ValueError("tags holds a name that is not a string")
    return frozenset(filter(None, names)), frozenset(filter(None, of_characters))


def _tokens(record: Mapping[str, Any], key: str) -> frozenset[str]:
    return frozenset(split_tags(_text(record, key)))


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{key} is {_show(value)}, not a string")  # noqa: TRY004
    return value


def _number(record: Mapping[str, Any], key: str, largest: int) -> int:
    value = record.get(key)
    if value is None or value == "" or value != value:  # tables have NaN for null
        return 0
    is_digits = isinstance(value, str) and _DIGITS.fullmatch(value)
    if is_digits or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise ValueError(f"{key} is {_show(value)}, not a whole number from 0 to {largest}")
    return value


def _flag(record: Mapping[str, Any], key: str) -> bool:
    value = record.get(key)
    try:
        return _FLAGS[value]  # 0 and 1 are equal to false and true, and count as such
    except (KeyError, TypeError) as error:
        raise ValueError(f"{key} is {_show(value)}, neither true nor false") from error


def _extension_of(url: str) -> str:
    file_name = url.partition("?")[0].rpartition("/")[2]
    return PurePosixPath(file_name).suffix[1:].lower()


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
