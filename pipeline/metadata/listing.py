"""A Danbooru's API as metadata: pages of posts, each asked for once and kept.

The pages lie beside the data set as they came, so an interrupted listing goes on where it
stopped, and a plan can be made again from what it was made of, although the site has moved on.
Pages go down from the newest post by the cursor ``b<id>`` (posts before that id), which unlike
page numbers has no end at 1000 and skips nothing while posts are added. To list anew, delete the
pages and fetch with ``--replan``.
"""

import base64
import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import orjson

from pipeline.disk import check_plain, telling_out_of_space, write_whole
from pipeline.errors import UserError
from pipeline.metadata.record import Counted, Item, read_record
from pipeline.planning.ratings import allowed_ratings
from pipeline.recipe import RATINGS, SelectSettings, SourceSettings
from pipeline.records import Fate, Status
from pipeline.settings import count_parts, fingerprint_of
from pipeline.web.client import Client
from pipeline.web.hosts import is_danbooru, is_local, url_host
from pipeline.words import counted

_PAGE_SIZE = 200  # posts: the most that Danbooru gives
_MAX_TAGS = 2  # that it searches for at a time without a paid account; rating: is free
_MAX_PAGE_BYTES = 64 * 2**20
_MAX_PARTS = 2**20  # of a page's JSON; 200 posts have about twenty thousand
_SAY_EVERY = 10  # pages
_PLAIN_TAG = re.compile(r"[^\s*:~(-][^\s*:]*")  # anything else could be read as an operator
_MAKE_ROOM = "make room there and run the same command again."
_CREDENTIALS = ("DANBOORU_LOGIN", "DANBOORU_API_KEY")


@dataclass(frozen=True, slots=True)
class Listing:
    """What an API has for a query.

    Attributes:
        url: of the API's posts.
        query: Danbooru's search, such as ``white_background rating:g``.
        source: how politely, and how often, to try.
        directory: of the pages that are kept; each query has one of its own.
        keeps: whether new pages are written there.
        say: is told now and then how far it has come.
    """

    url: str
    query: str
    source: SourceSettings
    directory: Path
    keeps: bool = True
    say: Callable[[str], object] = field(default=lambda message: None, compare=False)

    def page_paths(self) -> list[Path]:
        """Return the pages that are there, in order."""
        return sorted(self.directory.glob("*.json.gz"))


def make_listing(source: SourceSettings, select: SelectSettings, directory: Path) -> Listing:
    """Return the listing of what ``select`` wants from the API at ``source.metadata``.

    It asks for the wanted ratings and the first two tags; the selection looks for the rest. Under
    ``directory`` each query has a folder for its pages.

    Raises:
        UserError: where the URL holds more than the API's place, or the snapshot is not today's.
    """
    if select.snapshot < 2023:
        raise UserError(
            f"{source.metadata}: a live site has today's ratings, in which s is no longer safe, "
            f"and the recipe is for metadata of {select.snapshot}. Give this year: "
            "--set select.snapshot=YEAR."
        )
    parts = urlsplit(source.metadata)
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise UserError(
            "source.metadata: give the API's URL without login and search, such as "
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/posts.json. The search comes from "
            "the recipe's [select] table, login and key from DANBOORU_LOGIN and DANBOORU_API_KEY."
        )
    url_host(source.metadata, "source.metadata")
    url = source.metadata if parts.path.strip("/") else f"{source.metadata.rstrip('/')}/posts.json"
    query = make_query(select)
    return Listing(url, query, source, directory / fingerprint_of(url, query)[:12])


def make_query(select: SelectSettings) -> str:
    """Return the search that finds every wanted post, and as few others as a free account may."""
    tags = [tag for tag in select.tags if _PLAIN_TAG.fullmatch(tag)][:_MAX_TAGS]
    ratings = [rating for rating in RATINGS if rating in allowed_ratings(select)]
    return " ".join([*tags, *([f"rating:{','.join(ratings)}"] if ratings != [*RATINGS] else [])])


def read_listing(listing: Listing) -> Iterator[Item]:
    """Yield the posts of the pages that are there, then of those that are asked for, to the end.

    Nothing is asked for before it is needed, so whoever stops reading stops the asking.

    Raises:
        UserError: where the API does not give a page, or not one that can follow the last; what
            came before is kept.
    """
    cursor = 0
    paths = listing.page_paths()
    if paths:
        pages = counted(len(paths), "page is there and comes", "pages are there and come")
        listing.say(f"{listing.directory}: {pages} first; delete it to list anew")
    for number, path in enumerate(paths):
        if path != (page := _page_path(listing, number)):
            raise UserError(f"{page}: is not there; delete those after it as well.")
        check_plain(path, "; delete it and those after it")
        try:
            records = _parse(_unpack(path.read_bytes()))
        except (OSError, ValueError, zlib.error) as error:
            raise UserError(f"{path}: damaged ({error}); delete it and those after it.") from error
        yield from _items(records, str(path))
        if not records:
            return
        cursor = _next_cursor(records, cursor, str(path))
    yield from _read_new(listing, cursor)


def _page_path(listing: Listing, number: int) -> Path:
    return listing.directory / f"{number:06d}.json.gz"


def _read_new(listing: Listing, cursor: int) -> Iterator[Item]:
    """Ask for page after page, down from the cursor, until an empty one says that it is the end."""
    host = url_host(listing.url, "source.metadata")
    authorization = _authorization(listing.url, host)
    manners = replace(
        listing.source, rate=listing.source.api_rate, max_bytes=_MAX_PAGE_BYTES, connections=1
    )
    number = len(listing.page_paths())
    with closing(Client(manners, {host}, named_in="--metadata")) as client:
        while True:
            fields = {"tags": listing.query, "limit": _PAGE_SIZE}
            url = f"{listing.url}?{urlencode(fields | ({'page': f'b{cursor}'} if cursor else {}))}"
            download = client.get(url, authorization=authorization)
            if download.fate.status is not Status.FETCHED:
                raise UserError(f"{url}: {_explain(download.fate, download.http_status)}")
            try:
                records = _parse(download.content)
            except ValueError as error:
                raise UserError(
                    f"{url}: what came is no page of posts ({error}). Is this a Danbooru's API? "
                    "If it is, run the same command again later: the pages so far are kept."
                ) from error
            cursor = _next_cursor(records, cursor, url) if records else cursor
            if listing.keeps:
                page = gzip.compress(download.content, mtime=0)
                with telling_out_of_space(listing.directory, _MAKE_ROOM):
                    write_whole(_page_path(listing, number), page)
            yield from _items(records, url)
            if not records:
                return
            number += 1
            if number % _SAY_EVERY == 0:
                listing.say(f"{host}: {number} pages listed, down to post {cursor}")


def _unpack(page: bytes) -> bytes:
    """Unpack a page that was kept, in a folder that may be a stranger's."""
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # with gzip's header and checksum
    content = unpacker.decompress(page, _MAX_PAGE_BYTES)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"cut short, or over {_MAX_PAGE_BYTES} bytes, or not one page alone")
    return content


def _parse(content: bytes) -> list[object]:
    if count_parts(content) > _MAX_PARTS:
        raise ValueError(f"more than {_MAX_PARTS} values")
    records = orjson.loads(content)
    if not isinstance(records, list):
        raise ValueError("not a list")  # noqa: TRY004 (bad data, not a wrong call)
    return records


def _items(records: list[object], place: str) -> Iterator[Item]:
    yield Counted(len(records))
    for number, record in enumerate(records, 1):
        yield read_record(record, place, number)


def _next_cursor(records: list[object], cursor: int, place: str) -> int:
    """Return the lowest id of a page; every id must be under the cursor that was asked for.

    So no API can lead round in circles: each page goes further down, and ids end at 1.
    """
    found = [record.get("id") for record in records if isinstance(record, dict)]
    ids = [post_id for post_id in found if type(post_id) is int and post_id > 0]
    if not ids:
        raise UserError(f"{place}: a page of records without ids; there is no going on from it.")
    if cursor and max(ids) >= cursor:
        raise UserError(
            f"{place}: holds post {max(ids)}, although posts before {cursor} were asked for. The "
            "API does not understand page=b<id>, or repeats itself."
        )
    return min(ids)


def _authorization(url: str, host: str) -> str:
    """Return the header that says who asks, "" where the environment names nobody.

    A recipe by somebody else may name any host: the key goes to Danbooru's own, to this machine,
    and to the host that DANBOORU_HOST names, and never in the clear over a network.
    """
    login, key = (os.environ.get(name, "") for name in _CREDENTIALS)
    if not (login or key):
        return ""
    if not (login and key):
        raise UserError("set both DANBOORU_LOGIN and DANBOORU_API_KEY, or neither.")
    is_named = host == os.environ.get("DANBOORU_HOST", "")
    if not (is_danbooru(host) or is_local(host) or is_named):
        return ""
    if not url.startswith("https://") and not is_local(host):
        raise UserError(f"{url}: the API key would go in the clear; use https://.")
    return f"Basic {base64.b64encode(f'{login}:{key}'.encode()).decode()}"


def _explain(fate: Fate, http_status: int) -> str:
    """Return what a page that did not come means, and what to do."""
    if http_status in (401, 403):
        return (
            f"refused (HTTP {http_status}). Are DANBOORU_LOGIN and DANBOORU_API_KEY right? Set "
            "NURIE_CONTACT so that the operators can reach you."
        )
    if fate.reason == "host_not_allowed":
        return "leads to another host. Give the API's own URL as the metadata."
    what = f"HTTP {http_status}" if http_status else fate.reason
    if fate.status is Status.FAILED and http_status != 422:
        return f"did not come ({what}). Run the same command again: the pages so far are kept."
    return f"not to be had ({what}). Does the account allow the search, and is the URL right?"
