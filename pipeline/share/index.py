"""The index of a shared data set: every file with its size and SHA-256, written last of all.

It may come from a stranger. What it may name is a closed vocabulary, so that no index leads to
another folder, another host, or a file that some reader would run.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain

import msgspec
import orjson

from pipeline.errors import UserError
from pipeline.recipe import Recipe
from pipeline.recipe_shared import shared_recipe
from pipeline.schema import SPLITS
from pipeline.settings import convert, count_parts, fingerprint_of, to_table

INDEX = "index.json"
PENDING = "incomplete.json"
"""Stands in for the index while a push is under way: names what is there already, or will be."""

IDENTITY = "plan.json"
"""Says whose shards a ``--store`` holds."""

CARD, CROISSANT, LOCK, RECIPE = "README.md", "croissant.json", "posts.parquet", "recipe.toml"
SIDECARS = (CARD, CROISSANT, LOCK, RECIPE)
"""The files beside the samples."""

MAX_INDEX_BYTES = 64 * 2**20
_MAX_BYTES = {".tar": 2**42, ".parquet": 2**32, ".md": 2**24, ".json": 2**28, ".toml": 2**20}
_MAX_FILES = 400_000
_MAX_PARTS = 4 * _MAX_FILES + 100_000  # four in a file's entry, and few in the recipe
_VERSION = 1
_NUMBER = "[0-9]{6}|[1-9][0-9]{6,8}"
_SHARD_FILE = re.compile(rf"samples/((?:{'|'.join(SPLITS)})-(?:{_NUMBER}))(\.tar|\.parquet)")
_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SHA256 = re.compile("[0-9a-f]{64}")


class NewerIndexError(UserError):
    """An index that a later version of this program wrote."""


@dataclass(frozen=True, slots=True, order=True)
class SharedFile:
    """One file: its name within the data set, its bytes, and their SHA-256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Index:
    """What a shared data set consists of.

    Attributes:
        name: the recipe's.
        url: where it was pushed to, as it reads from every folder; nothing is ever read from
            there because of it. "" for a folder, whose path is of its maker's machine.
        contact: whom to ask for a picture to be taken down, "" where nobody is named.
        published: the day of the push that last changed it, ISO 8601.
        recipe: that it was made by, without paths and hosts.
        files: sorted by name.
        fingerprint: of the files, the card and Croissant apart.
        version: of this format.
    """

    name: str
    url: str
    contact: str
    published: str
    recipe: Recipe
    files: tuple[SharedFile, ...]
    fingerprint: str = ""
    version: int = _VERSION

    @property
    def by_name(self) -> dict[str, SharedFile]:
        """The files by their names."""
        return {file.name: file for file in self.files}

    @property
    def shards(self) -> list[str]:
        """The names of the shards of samples, sorted; none where only the recipe is shared."""
        return sorted({found[1] for file in self.files if (found := match_shard(file.name))})

    def seal(self) -> "Index":
        """Return the same index with its fingerprint."""
        files = [file for file in self.files if file.name not in (CARD, CROISSANT)]
        # Lock and recipe are among the files.
        return replace(self, fingerprint=fingerprint_of(self.version, self.name, files))


def match_shard(name: str) -> re.Match[str] | None:
    """Return the match of a shard's file, with the shard's name and the suffix; None for others."""
    return _SHARD_FILE.fullmatch(name)


def shard_files(shard: str) -> tuple[str, str]:
    """Return the names of a shard's tar and rows within a data set."""
    return f"samples/{shard}.tar", f"samples/{shard}.parquet"


def write_index(index: Index) -> bytes:
    """Return an index as JSON."""
    return orjson.dumps(to_table(index), option=orjson.OPT_INDENT_2) + b"\n"


def read_index(data: bytes, where: str, *, is_whole: bool = True) -> Index:
    """Read an index, and check all that it says: nothing of it is trusted.

    Args:
        data: of the file.
        where: the file, for errors.
        is_whole: False for a pending index, which may lack files.

    Raises:
        NewerIndexError: where a later version wrote it.
        UserError: on anything that ``push`` would not have written.
    """
    if len(data) > MAX_INDEX_BYTES:
        raise UserError(f"{where}: too large for an index; at most {MAX_INDEX_BYTES} bytes.")
    if count_parts(data) > _MAX_PARTS:
        raise UserError(f"{where}: has too many parts for an index of {_MAX_FILES} files at most.")
    try:
        table = msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is no JSON: {error}.") from error
    version = table.get("version") if isinstance(table, dict) else None
    if isinstance(version, int) and version > _VERSION:
        raise NewerIndexError(
            f"{where}: a newer version of this program wrote it (its format is {version}, and the "
            f"latest known here {_VERSION}): update this one."
        )
    if version != _VERSION:
        raise UserError(f"{where}: is no index of a version that this program knows.")
    try:
        index = convert(table, Index, where)
    except RecursionError as error:
        raise UserError(f"{where}: nested too deeply.") from error
    for what in _wrongs(index, is_whole):
        raise UserError(f"{where}: {what}; `push` writes no such index.")
    return index


def _wrongs(index: Index, is_whole: bool) -> Iterable[str]:
    if len(index.files) > _MAX_FILES:
        yield f"names more than {_MAX_FILES} files"
    for file in index.files:
        yield from _wrong_file(file)
    names = [file.name for file in index.files]
    if names != sorted(set(names)):
        yield "names a file twice, or not in order"
    missing = {*SIDECARS, *chain.from_iterable(map(shard_files, index.shards))} - set(names)
    if is_whole and missing:
        yield f"lacks {min(missing)}"
    if not (index.url.isprintable() and index.contact.isprintable()):
        yield "its url or contact holds what nobody can print"
    if not _DAY.fullmatch(index.published):
        yield "does not say on which day it was published"
    if index.recipe != shared_recipe(index.recipe):
        yield "its recipe names places"
    if index.name != index.recipe.name:
        yield "is not named as its recipe"
    if is_whole and index.fingerprint != index.seal().fingerprint:
        yield "its fingerprint is not that of its files"


def _wrong_file(file: SharedFile) -> Iterable[str]:
    if match_shard(file.name) is None and file.name not in SIDECARS:
        yield f"names {file.name[:200]!r}, which no data set holds"
        return
    suffix = file.name[file.name.rindex(".") :]
    if not 0 < file.size <= _MAX_BYTES[suffix]:
        yield f"says that {file.name} has {file.size} bytes"
    if not _SHA256.fullmatch(file.sha256):
        yield f"has no SHA-256 of {file.name}"
