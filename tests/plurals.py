"""Finds what says "1 samples"."""

import re

_NOUNS = (
    "characters|colours|families|files|ones|originals|pictures|posts|records|references|samples|"
    "shards|sketches|steps"
)


def plurals_of_one(text: str) -> list[str]:
    """Return each place where a plural follows a single 1, directly or after one word."""
    return re.findall(rf"(?<![\d.,/-])1\s+(?:\w+ )?(?:{_NOUNS})\b", text)
