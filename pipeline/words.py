"""Words for people: counts with their nouns, bytes in a unit that fits, and strangers' text."""

import difflib
import os
from collections.abc import Iterable

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 shard``, ``2 shards``.

    Args:
        number: 0 or more.
        one: the noun, with its verb where one follows: ``shard is``.
        many: likewise for another number than 1; by default with an s at the end.
    """
    return f"{number} {noun(number, one, many)}"


def noun(number: int, one: str, many: str = "") -> str:
    """Return the noun that goes with a number; see ``counted``."""
    return one if number == 1 else many or f"{one}s"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that a mistyped one comes near to, "" where none is near."""
    return next(iter(difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` to say behind an unknown word, or ""."""
    near = nearest(word, known)
    return f" (did you mean {near!r}?)" if near else ""


def sized(num_bytes: int) -> str:
    """Return a number of bytes in the unit that fits: ``1 byte``, ``12.3 kB``, ``1.3 GB``."""
    if num_bytes < 1000:
        return counted(num_bytes, "byte")
    value, units = float(num_bytes), iter(_UNITS)
    unit = next(units)
    while round(value, 1) >= 1000 and unit != _UNITS[-1]:
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}"


def is_utf8(path: str) -> bool:
    """Whether a path is in UTF-8 on the disk, as Arrow takes it to be.

    Names from old archives may not be, nor any but plain ones in a locale with another encoding.
    """
    try:
        return os.fsencode(path) == path.encode()
    except UnicodeEncodeError:
        return False


def harmless(text: object) -> str:
    """Return a text fit for a terminal: its lines, with a replacement for what cannot be seen.

    Messages may name what strangers wrote, and a terminal obeys some characters.
    """
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(text))


def plain(text: object) -> str:
    """Return a text without Markdown, in one line of 300 characters at most."""
    shown = "".join(c if c.isprintable() and c not in "`|<>[]*\\" else " " for c in str(text))
    return " ".join(shown.split())[:300]


def quoted(text: str) -> str:
    """Return a tag or the like as Markdown's code, in which nothing else has a meaning."""
    shown = " ".join(harmless(text).split()).replace("`", "'")
    return f"`{shown}`"
