"""The part of a shared data set that is asked for: a split, some numbers of shards."""

from collections.abc import Collection

from pipeline.errors import UserError
from pipeline.shards.shard import check_split, parse_shard_name
from pipeline.share.index import Index


def choose_shards(index: Index, split: str | None, numbers: Collection[int] | None) -> list[str]:
    """Return the shards of a part of a data set.

    Raises:
        UserError: where a part was asked for and there is none of it.
    """
    if split is not None:
        check_split(split, f"--split {split}")
    found = []
    for shard in index.shards:
        its_split, number = parse_shard_name(shard)
        if split in (None, its_split) and (numbers is None or number in numbers):
            found.append(shard)
    if not found and (split is not None or numbers is not None):
        there = ", ".join(index.shards[:8]) or "none: only the recipe is shared"
        raise UserError(f"{index.name} has no such shards; it has {there} ...")
    return found


def parse_numbers(text: str) -> frozenset[int]:
    """Return the numbers that ``0-9`` or ``0,3,7-9`` stands for.

    Raises:
        UserError: on anything else.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit()):
            raise UserError(f"--shards {text}: write it as 0-9 or 0,3,7-9.")
        if not int(first) <= int(last) < 10**9 or int(last) - int(first) > 10**6:
            raise UserError(f"--shards {text}: {part} is no range of shards.")
        numbers |= set(range(int(first), int(last) + 1))
    return frozenset(numbers)
