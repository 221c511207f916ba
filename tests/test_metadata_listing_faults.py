"""APIs that fail and lie: a listing goes on, or stops with what came, and all adds up."""

import contextlib
import errno
import gzip
from functools import partial
from itertools import repeat
from pathlib import Path
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.metadata import listing as listing_module
from pipeline.metadata.listing import read_listing
from pipeline.metadata.record import Counted, Item, Malformed
from pipeline.planning.plan import plan_posts
from pipeline.recipe import SplitSettings
from pipeline.records import Download, Fate, Post, Status
from pipeline.web.client import Client
from tests.fake_danbooru import listing_of, page_of
from tests.faulty_server import FaultyServer, Script, answer, drip, hang, reset, send


def ids_of(items: list[Item]) -> list[int]:
    return [item.id for item in items if isinstance(item, Post)]


@pytest.mark.parametrize(
    "fault",
    [
        answer(503),
        answer(500, b"{}"),
        answer(429, Retry_After="0"),
        reset(),
        reset(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[{"),
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b'[{"id": 1}]'),
        hang(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n["),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", repeat(b" "), 0.03),
    ],
)
def test_a_page_that_fails_is_asked_for_again(
    fault: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "Client", partial(Client, draw=lambda: 0.0))
    scripts = [page_of(30, 20), fault, page_of(19, 4), fault, page_of()]
    with FaultyServer(*scripts) as server:
        listing = listing_of(server.url, tmp_path, attempts=2, timeout=0.1)
        items = list(read_listing(listing))
        assert ids_of(items) == [30, 20, 19, 4]
        asked = [head.split()[1].partition("page=")[2] for head in server.requests]
        assert asked == ["", "b20", "b20", "b4", "b4"]
        assert list(read_listing(listing)) != []  # from the disk
        assert len(server.requests) == 5


def test_a_page_of_small_values_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Of those, 64 MiB take 2 GB."""
    page = b'[{"id": 1}' + b",[]" * 2**20 + b"]"
    with FaultyServer(answer(200, page)) as server:
        listing = listing_of(server.url, tmp_path)
        with pytest.raises(UserError, match=r"no page of posts \(more than 1048576 values\)"):
            list(read_listing(listing))
    listing.directory.mkdir(parents=True)
    (listing.directory / "000000.json.gz").write_bytes(gzip.compress(page))
    with pytest.raises(UserError, match=r"000000\.json\.gz: damaged \(more than 1048576 values"):
        list(read_listing(listing))


def test_a_full_disk_for_pages_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the folder for temporary files, into which what is made of the pages is written."""

    def fail(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with FaultyServer(page_of(30, 20)) as server:
        listing = listing_of(server.url, tmp_path)
        monkeypatch.setattr(Path, "write_bytes", fail)
        posts = (item for item in read_listing(listing) if isinstance(item, Post))
        with pytest.raises(UserError, match=f"{listing.directory}: no space left.*make room"):
            plan_posts(posts, SplitSettings())


@pytest.mark.parametrize(
    ("last", "message"),
    [
        pytest.param(page_of(30, 20), "repeats itself", id="repeated for ever"),
        pytest.param(page_of(19, 20), "holds post 20", id="does not descend"),
        pytest.param(page_of(40, 31), "holds post 40", id="ascends"),
        pytest.param(answer(200, b"<html>busy</html>"), "no page of posts", id="HTML"),
        pytest.param(answer(200, b'{"success": false}'), "not a list", id="no list"),
        pytest.param(answer(200, b'[{"id": 1}'), "no page of posts", id="cut off"),
        pytest.param(answer(200), r"not to be had \(HTTP 200\)", id="empty body"),
        pytest.param(answer(200, b'[{"rating": "g"}, 5]'), "without ids", id="no ids"),
        pytest.param(answer(200, b'[{"id": "19"}, {"id": true}]'), "without ids", id="odd ids"),
        pytest.param(answer(401), "DANBOORU_API_KEY right", id="401"),
        pytest.param(answer(403, b"<html>"), "DANBOORU_API_KEY right", id="403"),
        pytest.param(answer(422), "Does the account allow", id="422"),
        pytest.param(answer(410), "not to be had", id="410"),
        pytest.param(answer(500), r"did not come \(HTTP 500\)", id="500"),
        pytest.param(reset(), "did not come", id="reset"),
    ],
)
def test_what_is_no_page_stops_the_listing_and_keeps_what_came(
    last: Script, message: str, tmp_path: Path
) -> None:
    with FaultyServer(page_of(30, 20), last) as server:
        listing = listing_of(server.url, tmp_path)
        seen: list[Item] = []
        with pytest.raises(UserError, match=message) as raised:
            seen.extend(read_listing(listing))
        assert server.url in str(raised.value)
        assert len(server.requests) == 2
        assert [path.name for path in listing.page_paths()] == ["000000.json.gz"]
        server.scripts[:] = [page_of(19), page_of()]
        server.requests.clear()
        assert ids_of(list(read_listing(listing))) == [30, 20, 19]


def test_the_largest_picture_says_nothing_of_pages(tmp_path: Path) -> None:
    with FaultyServer(page_of(30, 20), page_of()) as server:
        listing = listing_of(server.url, tmp_path, max_bytes=10)
        assert ids_of(list(read_listing(listing))) == [30, 20]


RECORDS = st.dictionaries(
    st.sampled_from(["id", "rating", "tag_string", "md5", "file_ext", "parent_id", "x"]),
    st.none() | st.booleans() | st.integers(-9, 60) | st.text(max_size=3) | st.floats(),
)
PAGES = st.lists(RECORDS | st.integers(-9, 2**64 - 1) | st.none(), max_size=4).map(orjson.dumps)


@given(st.lists(PAGES | st.binary(max_size=40), max_size=4))
def test_no_pages_make_it_hang_or_crash_and_all_add_up(
    tmp_path_factory: pytest.TempPathFactory, pages: list[bytes]
) -> None:
    bodies = iter(pages)

    class Babbler:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def get(self, url: str, **_: object) -> Download:
            return Download(Fate(Status.FETCHED), next(bodies, b"[]"), 200)

        def close(self) -> None:
            pass

    listing = listing_of("http://127.0.0.1:9", tmp_path_factory.mktemp("pages"))
    found: list[Item] = []
    with patch.object(listing_module, "Client", Babbler), contextlib.suppress(UserError):
        found.extend(read_listing(listing))
    again: list[Item] = []
    with patch.object(listing_module, "Client", Babbler), contextlib.suppress(UserError):
        again.extend(read_listing(listing))
    for items in (found, again):
        num_counted = sum(item.num_records for item in items if isinstance(item, Counted))
        assert num_counted == sum(isinstance(item, Post | Malformed) for item in items)
    ids = [min(ids_of(page)) for page in _by_page(found) if ids_of(page)]
    assert ids == sorted(ids, reverse=True)


def _by_page(items: list[Item]) -> list[list[Item]]:
    pages: list[list[Item]] = []
    for item in items:
        if isinstance(item, Counted):
            pages.append([])
        else:
            pages[-1].append(item)
    return pages


def test_malformed_records_of_a_page_are_counted_and_named(tmp_path: Path) -> None:
    page = answer(200, b'[{"id": 9, "rating": "x"}, 5, {"id": 8, "rating": "g"}]')
    with FaultyServer(page, page_of()) as server:
        items = list(read_listing(listing_of(server.url, tmp_path)))
    malformed = [item for item in items if isinstance(item, Malformed)]
    assert [(m.line, m.why.split()[0]) for m in malformed] == [(1, "rating"), (2, "not")]
    assert sum(item.num_records for item in items if isinstance(item, Counted)) == 3
