"""The nouns of the pipeline: a post, its fate, a download. Imports nothing of ours.

A *post* is Danbooru's word for a picture with its record. Every post that enters a stage leaves
it with exactly one *fate*; expected misfortune (a 404, a damaged file) is a fate, never an
exception.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """What became of a post, in the order in which a post can meet it."""

    FILTERED = "filtered"  # selection: the recipe does not want it
    PLANNED = "planned"  # selection: wanted, with a split and a shard
    FETCHED = "fetched"  # fetch: its original is in a raw shard
    MISSING = "missing"  # fetch: the source says that it is not there (404, 410)
    REFUSED = "refused"  # fetch: the source will not give it (403, 451)
    FAILED = "failed"  # fetch: time-outs, resets and 5xx after all retries; a rerun may mend it
    REJECTED = "rejected"  # fetch: something came, but not a usable picture
    KEPT = "kept"  # prepare: it is a sample
    CORRUPT = "corrupt"  # prepare: it does not decode
    BLANK = "blank"  # prepare: one flat colour
    TOO_SMALL = "too_small"  # prepare: under the smallest side after the crop
    DUPLICATE = "duplicate"  # prepare: an earlier post shows the same picture
    REMOVED = "removed"  # at any time: taken down; only its id and place are left


REASONS: dict[Status, frozenset[str]] = {
    Status.FILTERED: frozenset(
        {
            "rating",
            "tag_missing",
            "tag_excluded",
            "deleted",
            "banned",
            "nsfw_id",
            "not_a_picture",
            "too_small",
            "malformed",
            "repeated_id",
        }
    ),
    Status.PLANNED: frozenset({""}),
    Status.FETCHED: frozenset({""}),
    Status.MISSING: frozenset({"no_file", "http_404", "http_410", "no_url"}),
    Status.REFUSED: frozenset({"http_401", "http_403", "http_451", "host_not_allowed"}),
    Status.FAILED: frozenset({"timeout", "connection", "truncated", "http", "io", "wrong_index"}),
    Status.REJECTED: frozenset(
        {"empty", "not_an_image", "too_many_bytes", "too_many_pixels", "hash_mismatch"}
    ),
    Status.KEPT: frozenset({""}),
    Status.CORRUPT: frozenset({"undecodable", "truncated"}),
    Status.BLANK: frozenset({"flat"}),
    Status.TOO_SMALL: frozenset({"after_crop"}),
    Status.DUPLICATE: frozenset({"same_pixels", "near", "family"}),
    Status.REMOVED: frozenset({"takedown"}),
}
"""The closed vocabulary: the reasons that each status may carry."""

OF_PREPARE = (Status.KEPT, Status.CORRUPT, Status.BLANK, Status.TOO_SMALL, Status.DUPLICATE)
"""What ``prepare`` makes of a post whose original was fetched."""

MENDABLE = frozenset({"missing/no_file", "refused/host_not_allowed"})
"""Fates that stay until people mend something: put a file there, or name a host."""


def is_asked_again(fate: str) -> bool:
    """Whether ``fetch --retry-failed`` asks again for posts of this ``str(Fate)``."""
    return fate.partition("/")[0] == Status.FAILED or fate in MENDABLE


@dataclass(frozen=True, slots=True)
class Post:
    """One Danbooru post, as far as the pipeline needs it.

    Attributes:
        id: Danbooru's post id, above 0.
        md5: of the original file, lower-case hex; "" where the record hides it.
        rating: one of g, s, q, e. Until May 2022 ``s`` meant safe, since then sensitive.
        ext: the original's extension, lower case, without a dot.
        width: of the original in pixels, 0 where unknown.
        height: of the original in pixels, 0 where unknown.
        parent_id: the parent post, 0 for none.
        tags: every tag of the post, each an exact token.
        characters: the character tags (``tag_string_character``), sorted.
        is_deleted: withdrawn by the site's moderators.
        is_banned: withdrawn at the artist's wish.
        file_url: where the live site serves the original; "" where the record names none.
    """

    id: int
    md5: str
    rating: str
    ext: str
    width: int
    height: int
    parent_id: int
    tags: frozenset[str]
    characters: tuple[str, ...]
    is_deleted: bool
    is_banned: bool
    file_url: str = ""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a post in a stage: a status and its reason, both from the closed vocabulary.

    Raises:
        ValueError: on a reason that the status does not have; that is a bug, not bad input.
    """

    status: Status
    reason: str = ""

    def __post_init__(self) -> None:
        if self.reason not in REASONS[self.status]:
            raise ValueError(f"{self.status} has no reason {self.reason!r}")

    def __str__(self) -> str:
        return f"{self.status}/{self.reason}" if self.reason else str(self.status)

    @property
    def columns(self) -> dict[str, Any]:
        """The fate as a row of a table has it."""
        return {"status": self.status, "reason": self.reason}


NOT_ALLOWED = Fate(Status.REFUSED, "host_not_allowed")
"""Of a post that leads to a host which the user has not named."""


@dataclass(frozen=True, slots=True)
class Download:
    """What came of one URL, or of a file in a store.

    Attributes:
        fate: ``fetched``, ``missing``, ``refused``, ``failed`` or ``rejected``, with its reason.
        content: the bytes; b"" unless fetched.
        http_status: of the last try's answer; 0 where none came.
        num_attempts: tries, the first included.
        seconds: wall time from the call to the return, with what was spent waiting for the rate
            limit and between tries.
        host: where the fate is ``refused/host_not_allowed``, the host that may not be asked; ""
            where the URL names none.
    """

    fate: Fate
    content: bytes = b""
    http_status: int = 0
    num_attempts: int = 0
    seconds: float = 0.0
    host: str = ""


def key_of(post_id: int) -> str:
    """Return the key under which a post lies in every shard: its id, nine digits or more."""
    return f"{post_id:09d}"


def split_tags(text: str) -> list[str]:
    """Return the tags of a record's string: only a space divides them, no exotic white space."""
    return [tag for tag in text.split(" ") if tag]
