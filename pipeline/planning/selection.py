"""Which posts are wanted: rating policy, tags, flags and file types, with a reason for each no."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError
from pipeline.metadata.files import read_posts
from pipeline.metadata.listing import Listing, read_listing
from pipeline.metadata.record import UNREADABLE, Counted, Malformed, Unparsed
from pipeline.planning.ratings import allowed_ratings
from pipeline.recipe import SelectSettings
from pipeline.records import Fate, Post, Status

MAX_MALFORMED = 1000
"""Places of malformed records that a selection remembers; all are counted."""

_PLANNED = Fate(Status.PLANNED)
_TAG_MISSING = Fate(Status.FILTERED, "tag_missing")
_MALFORMED = Fate(Status.FILTERED, "malformed")
_REPEATED_ID = Fate(Status.FILTERED, "repeated_id")


def judge(post: Post, select: SelectSettings, nsfw_ids: frozenset[int]) -> Fate | None:
    """Return why a post is not wanted, or None where it is.

    The first reason counts, in this order: tag_missing (first, since most posts are never looked
    at for more), tag_excluded, rating, deleted, banned, nsfw_id, not_a_picture, too_small. A side
    that the record does not give is not too small.

    Raises:
        UserError: where the post proves that the snapshot is not of the year it is said to be.
    """
    ratings = allowed_ratings(select)
    if post.rating == "g" and select.snapshot <= 2021:
        raise UserError(
            f"post {post.id} is rated g, which came in 2022, so the metadata is not of "
            f"{select.snapshot}, and a rating of s is not safe in it. Give the metadata's year: "
            "--set select.snapshot=YEAR."
        )
    reasons = {
        "tag_missing": not post.tags.issuperset(select.tags)
        or (bool(select.any_tags) and post.tags.isdisjoint(select.any_tags)),
        "tag_excluded": not post.tags.isdisjoint(select.exclude_tags),
        "rating": post.rating not in ratings,
        "deleted": post.is_deleted,
        "banned": post.is_banned,
        "nsfw_id": post.id in nsfw_ids,
        "not_a_picture": post.ext not in select.extensions,
        "too_small": any(0 < side < select.min_side for side in (post.width, post.height)),
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    return Fate(Status.FILTERED, reason) if reason else None


def load_nsfw_ids(select: SelectSettings, metadata: str | Path | Listing) -> frozenset[int]:
    """Return the ids to leave out although rated safe: one a line, as in Danbooru2021's list.

    The list is ``select.nsfw_ids``, or else ``nsfw-ids.txt`` in the metadata's folder or beside
    the metadata; without one, and beside an API, no id is left out.

    Raises:
        UserError: where the named list cannot be read, or a line holds no id.
    """
    beside = () if isinstance(metadata, Listing) else (Path(metadata), Path(metadata).parent)
    places = [folder / "nsfw-ids.txt" for folder in beside]
    path = next((place for place in places if place.is_file()), None)
    path = Path(select.nsfw_ids) if select.nsfw_ids else path
    if path is None:
        return frozenset()
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}. Is select.nsfw_ids right?"
        ) from error
    for number, line in enumerate(lines, 1):
        if line.strip() and not (line.strip().isdigit() and len(line.strip()) < 20):
            text = line[:40].decode(errors="replace")
            raise UserError(f"{path}:{number}: {text!r} is not a post id; write one id a line.")
    return frozenset(int(line) for line in lines if line.strip())


class Selection:
    """The wanted posts of some metadata, in its order, each id once. Iterate it to the end first.

    Attributes:
        counts: records by ``str(Fate)``; ``planned`` are the wanted ones, that is those which
            were yielded. A wanted post with the id of an earlier wanted one is a ``repeated_id``.
        num_records: records that the metadata held; with a limit, those until it was reached.
        malformed: places of the first thousand malformed records, and all where a file is cut.

    Args:
        metadata: path as for ``metadata.files.read_posts``, or an API's listing.
        select: what is wanted.
        nsfw_ids: ids to leave out, as ``load_nsfw_ids`` gives them.
        limit: stop after as many wanted posts, one at least; None for no limit.

    Raises:
        UserError: where the settings contradict each other.
    """

    def __init__(
        self,
        metadata: str | Path | Listing,
        select: SelectSettings,
        nsfw_ids: frozenset[int] = frozenset(),
        limit: int | None = None,
    ) -> None:
        self._metadata, self._select, self._nsfw_ids = metadata, select, nsfw_ids
        self._limit = limit
        allowed_ratings(select)  # now, and not at the first post
        self.counts: dict[str, int] = {}
        self.num_records = 0
        self.malformed: list[Malformed] = []

    def __iter__(self) -> Iterator[Post]:
        """Read the metadata anew.

        Raises:
            UserError: where it cannot be read, or is of another year than the settings say.
            RuntimeError: where a record was lost or counted twice; that is a bug.
        """
        self.malformed.clear()
        fates: Counter[Fate] = Counter()
        num_counted = 0
        wanted_ids: set[int] = set()
        if isinstance(self._metadata, Listing):
            items = read_listing(self._metadata)
        else:
            items = read_posts(self._metadata, self._select.tags)
        for item in items:
            match item:
                case Counted(num_records):
                    num_counted += num_records
                case Unparsed(num_records):
                    fates[_TAG_MISSING] += num_records
                case Malformed():
                    fates[_MALFORMED] += 1
                    is_cut = item.why.startswith(UNREADABLE)
                    if is_cut or len(self.malformed) < MAX_MALFORMED:
                        self.malformed.append(item)
                case Post():
                    fate = judge(item, self._select, self._nsfw_ids)
                    if fate is None and item.id in wanted_ids:
                        fate = _REPEATED_ID
                    fates[fate or _PLANNED] += 1
                    if fate is None:
                        wanted_ids.add(item.id)
                        yield item
                        if len(wanted_ids) == self._limit:
                            num_counted = fates.total()
                            break
        self.num_records = num_counted
        self.counts = {str(fate): count for fate, count in sorted(fates.items(), key=str) if count}
        if sum(self.counts.values()) != num_counted:
            raise RuntimeError(f"read {num_counted} records, accounted for {self.counts}")
