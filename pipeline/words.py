"""Words for people: a number with what it counts, bytes in a unit that fits."""

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


def sized(num_bytes: int) -> str:
    """Return a number of bytes in the unit that fits: ``1 byte``, ``12.3 kB``, ``1.3 GB``."""
    if num_bytes < 1000:
        return counted(num_bytes, "byte")
    value, units = float(num_bytes), iter(_UNITS)
    unit = next(units)
    while round(value, 1) >= 1000 and unit != _UNITS[-1]:
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}"
