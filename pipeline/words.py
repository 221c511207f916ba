"""Words for people: a number with what it counts."""


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 shard``, ``2 shards``.

    Args:
        number: 0 or more.
        one: the noun, with its verb where one follows: ``shard is``.
        many: likewise for another number than 1; by default with an s at the end.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"
