"""What a rating means depends on when it was given: the policy for safe."""

from functools import cache

from pipeline.errors import UserError
from pipeline.recipe import SelectSettings


@cache
def allowed_ratings(select: SelectSettings) -> frozenset[str]:
    """Return the wanted ratings out of g, s, q, e, by what they meant when the snapshot was taken.

    Danbooru divided ``s``, until then *safe*, into ``g`` (general) and ``s`` (sensitive) in May
    2022. ``safe`` is ``s`` in snapshots until 2021 and ``g`` in those from 2023.

    Raises:
        UserError: for ``safe`` in 2022, when ``s`` had both meanings, and for ``g`` before.
    """
    ratings = frozenset(select.rating)
    if select.snapshot <= 2021 and "g" in ratings:
        raise UserError(
            f"select.rating: snapshots until 2021, such as this one of {select.snapshot}, have no "
            "rating g. Use --set 'select.rating=[\"safe\"]', or give the metadata's year: "
            "--set select.snapshot=YEAR."
        )
    if "safe" not in ratings:
        return ratings
    if select.snapshot == 2022:
        raise UserError(
            "select.rating: in a snapshot of 2022 a rating of s may mean safe or sensitive. Say "
            "which you want: --set 'select.rating=[\"s\"]' (safe then, and sensitive since), or "
            "--set 'select.rating=[\"g\"]' (general, which only posts rated since May have)."
        )
    return ratings - {"safe"} | ({"s"} if select.snapshot <= 2021 else {"g"})
