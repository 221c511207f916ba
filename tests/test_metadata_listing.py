"""Posts listed from an API, page after page: the whole way, the key, and what is asked for."""

import gzip
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from rich.console import Console

from pipeline.disk import write_whole
from pipeline.errors import UserError
from pipeline.maintenance.status import read_status
from pipeline.metadata import listing as listing_module
from pipeline.metadata.listing import make_listing, make_query, read_listing
from pipeline.planning.make import find_metadata, make_plan
from pipeline.recipe import SourceSettings
from pipeline.run import fetch
from pipeline.web import pacing
from pipeline.web.client import Client
from pipeline.work import Work
from tests.calls import call
from tests.fake_danbooru import SELECT, FakeDanbooru, listing_of, page_of, recipe_for
from tests.faulty_server import FaultyServer, answer, stopped_server
from tests.files import files_in

QUIET = Console(quiet=True)
LOGIN, KEY = "somebody", "secret-key-7f3a"


@pytest.fixture
def danbooru(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> FakeDanbooru:
    """Thirty posts, in pages of seven."""
    monkeypatch.setattr(listing_module, "_PAGE_SIZE", 7)
    return FakeDanbooru(httpserver, 30)


# The whole way


def test_posts_are_listed_fetched_and_accounted_for(
    danbooru: FakeDanbooru, tmp_path: Path, httpserver: HTTPServer
) -> None:
    records = danbooru.records
    records[3] |= {"is_deleted": True}
    records[4] |= {"rating": "s"}  # sensitive: not even asked for
    records[5] |= {"tag_string": "solo white_background"}  # the third tag is looked for here
    records[6] |= {"file_ext": "mp4"}
    for hidden in ("md5", "file_url"):
        del records[7][hidden]
    records[8] |= {"file_url": "http://127.0.0.2:9/8.jpg"}
    records[9] |= {"file_url": records[10]["file_url"]}  # another post's picture
    records[11] |= {"file_url": "file:///etc/passwd"}
    records[12] |= {"id": 12, "image_width": "wide"}
    work = Work(tmp_path)
    summary = fetch(recipe_for(danbooru.url), work, QUIET)
    assert summary.fates == {
        "fetched": 21,
        "missing/no_url": 1,
        "refused/host_not_allowed": 2,
        "rejected/hash_mismatch": 1,
    }
    status = read_status(work)
    assert status.adds_up
    assert status.select == {
        "planned": 25,
        "filtered/deleted": 1,
        "filtered/malformed": 1,
        "filtered/not_a_picture": 1,
        "filtered/tag_missing": 1,
    }
    queries = danbooru.queries
    assert {query["tags"] for query in queries} == {"solo white_background rating:g"}
    assert {query["limit"] for query in queries} == {"7"}
    pages = ["", "b24", "b17", "b10", "b2", "b1"]
    assert [query.get("page", "") for query in queries] == pages
    assert all(headers["User-Agent"].startswith("Nurie/") for _, headers in danbooru.headers)


def test_a_second_run_asks_for_nothing(danbooru: FakeDanbooru, tmp_path: Path) -> None:
    work, recipe = Work(tmp_path), recipe_for(danbooru.url)
    first = fetch(recipe, work, QUIET)
    before, num_requests = files_in(tmp_path), len(danbooru.headers)
    assert fetch(recipe, work, QUIET).fates == first.fates
    assert len(danbooru.headers) == num_requests
    assert files_in(tmp_path) == before


def test_the_plan_can_be_made_again_although_the_site_has_moved_on(
    danbooru: FakeDanbooru, tmp_path: Path
) -> None:
    work, recipe = Work(tmp_path), recipe_for(danbooru.url)
    fetch(recipe, work, QUIET)
    plan = work.plan_path.read_bytes()
    danbooru.records.clear()
    work.plan_path.unlink()
    assert fetch(recipe, work, QUIET).fates == {"fetched": 30}
    assert work.plan_path.read_bytes() == plan


def test_an_interrupted_listing_goes_on(
    danbooru: FakeDanbooru, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(danbooru.url)
    fetch(recipe, Work(tmp_path / "undisturbed"), QUIET)
    danbooru.queries.clear()
    work = Work(tmp_path / "work")
    num_pages = [0]

    def stop_at_the_third(path: Path, content: bytes) -> None:
        num_pages[0] += 1
        if num_pages[0] == 3:
            raise KeyboardInterrupt
        write_whole(path, content)

    monkeypatch.setattr(listing_module, "write_whole", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        fetch(recipe, work, QUIET)
    assert fetch(recipe, work, QUIET).fates == {"fetched": 30}
    pages = [query.get("page", "") for query in danbooru.queries]
    assert pages == ["", "b24", "b17", "b17", "b10", "b3", "b1"]
    undisturbed = Work(tmp_path / "undisturbed").plan_path
    assert work.plan_path.read_bytes() == undisturbed.read_bytes()


def test_a_limit_stops_the_asking_and_a_larger_one_goes_on(
    danbooru: FakeDanbooru, tmp_path: Path
) -> None:
    recipe, work = recipe_for(danbooru.url), Work(tmp_path)
    assert fetch(recipe, work, QUIET, limit=10).fates == {"fetched": 10}
    assert len(danbooru.queries) == 2
    assert fetch(recipe, work, QUIET, limit=10).fates == {"fetched": 10}
    assert fetch(recipe, work, QUIET, limit=20, replan=True).fates == {"fetched": 20}
    assert [query.get("page", "") for query in danbooru.queries] == ["", "b24", "b17"]
    assert read_status(work).select == {"planned": 20}


def test_posts_that_came_since_are_not_missed_without_a_word(
    danbooru: FakeDanbooru, tmp_path: Path
) -> None:
    said: list[str] = []
    listing = replace(listing_of(danbooru.url, tmp_path), say=said.append)
    make_plan(recipe_for(danbooru.url), 10, listing)
    assert said == []
    make_plan(recipe_for(danbooru.url), 10, listing)
    there = "2 pages are there and come first; delete it to list anew"
    assert said == [f"{listing.directory}: {there}"]


def test_a_dry_run_asks_but_touches_nothing(danbooru: FakeDanbooru, tmp_path: Path) -> None:
    work = tmp_path / "work"
    settings = ("select.snapshot=2026", "source.layout=original", "source.api_rate=0")
    command = ["fetch", "white-background-256", "--metadata", danbooru.url, "--dry-run"]
    command += ["--images", "{file_url}", "--work", str(work)]
    command += [word for setting in settings for word in ("--set", setting)]
    result = call(*command)
    assert result.exit_code == 0, result.output
    assert "select: 30 in" in result.output
    assert "30 originals would be fetched" in result.output
    assert not work.exists()
    recipe = recipe_for(danbooru.url)
    kept = find_metadata(recipe, Work(work), QUIET)
    make_plan(recipe, 5, kept)
    before, num_queries = files_in(work), len(danbooru.queries)
    read = find_metadata(recipe, Work(work), QUIET, keeps_pages=False)
    assert make_plan(recipe, None, read).counts == {"planned": 30}
    assert len(danbooru.queries) == num_queries + 5  # the page that is there was not asked for
    assert files_in(work) == before


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda data: data[:-9], lambda _: b"", lambda _: gzip.compress(b"{}"), lambda _: b"[]"),
        lambda data: data[:10] + b"\xff" + data[11:],
        lambda data: data + b"more",
        lambda _: gzip.compress(b"[" + b" " * 2**26 + b"]"),  # 64 kB, of which any size could come
    ],
)
def test_a_damaged_page_on_disk_is_named(
    damage: Callable[[bytes], bytes], danbooru: FakeDanbooru, tmp_path: Path
) -> None:
    listing = listing_of(danbooru.url, tmp_path)
    list(read_listing(listing))
    path = listing.page_paths()[2]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"000002\.json\.gz: damaged .* delete it"):
        list(read_listing(listing))


def test_a_pipe_in_the_place_of_a_page_is_not_waited_for(
    danbooru: FakeDanbooru, tmp_path: Path
) -> None:
    listing = listing_of(danbooru.url, tmp_path)
    list(read_listing(listing))
    path = listing.page_paths()[1]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"000001\.json\.gz: is no plain file; delete it and those"):
        list(read_listing(listing))


def test_a_page_that_was_deleted_is_not_passed_over(danbooru: FakeDanbooru, tmp_path: Path) -> None:
    listing = listing_of(danbooru.url, tmp_path)
    expected = list(read_listing(listing))
    _, gone, *later = listing.page_paths()
    gone.unlink()
    with pytest.raises(UserError, match=r"000001\.json\.gz: is not there; delete those after it"):
        list(read_listing(listing))
    for path in later:
        path.unlink()
    assert list(read_listing(listing)) == expected


# Login and key


def test_login_and_key_go_to_the_api_and_nowhere_else(
    danbooru: FakeDanbooru, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANBOORU_LOGIN", LOGIN)
    monkeypatch.setenv("DANBOORU_API_KEY", KEY)
    with (tmp_path / "said").open("w") as said:
        fetch(recipe_for(danbooru.url), Work(tmp_path / "work"), Console(file=said))
    for path, headers in danbooru.headers:
        expected = "Basic c29tZWJvZHk6c2VjcmV0LWtleS03ZjNh" if path == "/posts.json" else None
        assert headers.get("Authorization") == expected
    for secret in (LOGIN, KEY, "c29tZWJvZHk6"):
        for file, data in files_in(tmp_path).items():
            plain = gzip.decompress(data) if file.endswith(".gz") else data
            assert secret.encode() not in plain, file


@pytest.mark.parametrize("location", ["http://OTHER/posts.json", "https://SAME/posts.json"])
def test_no_redirect_takes_the_key_elsewhere(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANBOORU_LOGIN", LOGIN)
    monkeypatch.setenv("DANBOORU_API_KEY", KEY)
    with FaultyServer(page_of()) as other, FaultyServer() as server:
        location = location.replace("OTHER", other.host).replace("SAME", server.host)
        server.scripts[:] = [answer(302, Location=location)]
        with pytest.raises(UserError, match="leads to another host|did not come"):
            list(read_listing(listing_of(f"{server.url}/posts.json", tmp_path)))
        assert "Authorization: Basic" in server.requests[0]
        assert other.num_connections == 0
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("url", "is_given"),
    [
        ("https://danbooru.donmai.us/posts.json", True),
        ("https://testbooru.donmai.us/posts.json", True),
        ("https://donmai.us.example/posts.json", False),
        ("https://evildonmai.us/posts.json", False),
        ("https://booru.example/posts.json", True),  # DANBOORU_HOST
        ("http://127.0.0.1:3000/posts.json", True),
    ],
)
def test_only_hosts_that_the_user_trusts_get_the_key(
    url: str, is_given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = listing_module._authorization
    host = url.split("/")[2]
    assert given(url, host) == ""
    monkeypatch.setenv("DANBOORU_LOGIN", LOGIN)
    with pytest.raises(UserError, match="both DANBOORU_LOGIN and DANBOORU_API_KEY"):
        given(url, host)
    monkeypatch.setenv("DANBOORU_API_KEY", KEY)
    monkeypatch.setenv("DANBOORU_HOST", "booru.example")
    assert bool(given(url, host)) is is_given
    if is_given and "127" not in url:
        with pytest.raises(UserError, match="in the clear"):
            given(url.replace("https", "http"), host)


# What is asked for


@pytest.mark.parametrize(
    ("changes", "query"),
    [
        ({}, "solo white_background rating:g"),
        ({"tags": ()}, "rating:g"),
        ({"rating": ("safe", "s")}, "solo white_background rating:g,s"),
        ({"rating": ("g", "s", "q", "e")}, "solo white_background"),
        ({"tags": ("-solo", "order:random", "1girl*", "~a", "re:zero", "smile")}, "smile rating:g"),
        ({"tags": ("fate/zero", "初音ミク")}, "fate/zero 初音ミク rating:g"),
    ],
)
def test_the_search_has_two_plain_tags_and_the_ratings(changes: dict[str, Any], query: str) -> None:
    assert make_query(replace(SELECT, **changes)) == query


@pytest.mark.parametrize(
    ("url", "snapshot", "message"),
    [
        ("https://danbooru.donmai.us/posts.json", 2021, "select.snapshot=YEAR"),
        ("https://danbooru.donmai.us/posts.json", 2022, "select.snapshot=YEAR"),
        ("https://danbooru.donmai.us/posts.json?api_key=1", 2026, "without login and search"),
        ("https://me:key@danbooru.donmai.us/posts.json", 2026, "without login and search"),
        ("https:///posts.json", 2026, "no host can be read"),
    ],
)
def test_a_url_that_cannot_be_listed_is_refused(
    url: str, snapshot: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        make_listing(SourceSettings(metadata=url), replace(SELECT, snapshot=snapshot), tmp_path)
    assert "me:key" not in str(raised.value)


def test_an_api_out_of_reach_is_said_by_the_option_that_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "_MAX_MISSES", 1)
    server = stopped_server()
    with pytest.raises(UserError, match=r"the host's name \(--metadata\), then run again"):
        fetch(recipe_for(f"{server.url}/posts.json"), Work(tmp_path / "work"), QUIET)


def test_each_query_has_pages_of_its_own(tmp_path: Path) -> None:
    source = SourceSettings(metadata="https://danbooru.donmai.us")
    one = make_listing(source, SELECT, tmp_path)
    assert one.url == "https://danbooru.donmai.us/posts.json"
    assert one.directory != make_listing(source, replace(SELECT, tags=()), tmp_path).directory
    assert one == make_listing(source, replace(SELECT, min_side=9), tmp_path)


def test_the_rate_of_the_api_is_its_own(
    tmp_path: Path, danbooru: FakeDanbooru, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    source = replace(recipe_for(danbooru.url).source, api_rate=4.0)
    client = partial(Client, sleep=slept.append, clock=lambda: 0.0)
    monkeypatch.setattr(listing_module, "Client", client)
    list(read_listing(make_listing(source, SELECT, tmp_path)))
    assert slept == [0.25 * n for n in range(1, 6)]
