"""The cache of shards: what is downloaded, in which order, what stays, and who waits for it."""

import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import UserError
from tests.share_caches import SIZE, caching, content_of, count_open_files, names_in, read, until


def test_what_is_wanted_soon_is_waited_for_and_comes_once(tmp_path: Path) -> None:
    with caching(tmp_path, 8) as (cache, downloader):
        cache.expect(["ba", "dc"])
        for _ in range(3):
            assert [read(cache, shard) for shard in "abcd"] == [content_of(s) for s in "abcd"]
        assert downloader.downloaded == ["b", "a", "d", "c"]
        cache.expect(["dc", "ab"])
        assert read(cache, "a") == content_of("a")
        assert len(downloader.downloaded) == 4


def test_what_comes_next_is_brought_before_anybody_asks(tmp_path: Path) -> None:
    with caching(tmp_path, 4) as (cache, downloader):
        cache.expect(["ab", "cd", "ef"])
        until(lambda: names_in(tmp_path) == set("abcd"))
        cache.expect(["cd", "ef"])
        until(lambda: names_in(tmp_path) == set("cdef"))
        assert downloader.downloaded == list("abcdef")
        assert downloader.most <= 4 * SIZE


def test_what_is_wanted_in_several_windows_is_wanted_in_the_first(tmp_path: Path) -> None:
    with caching(tmp_path, 1) as (cache, _):
        cache.expect(["a", "b", "c", "a"])
        assert read(cache, "a") == content_of("a")
        cache.expect(["b", "a", "b"])
        assert read(cache, "b") == content_of("b")


def test_what_is_wanted_again_the_latest_makes_way(tmp_path: Path) -> None:
    with caching(tmp_path, 3) as (cache, downloader):
        cache.expect(["abc"])
        until(lambda: names_in(tmp_path) == set("abc"))
        cache.expect(["d", "a", "c", "b"])
        until(lambda: names_in(tmp_path) == set("dac"))
        assert read(cache, "d") == content_of("d")
        cache.expect(["a", "c", "b"])
        until(lambda: names_in(tmp_path) == set("abc"))
        assert downloader.downloaded == list("abcdb")


def test_nothing_makes_way_for_what_is_wanted_later(tmp_path: Path) -> None:
    with caching(tmp_path, 2) as (cache, downloader):
        cache.expect(["abc", "d"])
        assert read(cache, "a") == content_of("a")
        assert read(cache, "b") == content_of("b")
        assert read(cache, "c") is None
        assert read(cache, "d") is None
        assert read(cache, "e") is None
        cache.expect(["abc", "d"])
        assert read(cache, "c") is None
        assert downloader.downloaded == ["a", "b"]


def test_what_is_kept_comes_after_the_first_window_and_stays(tmp_path: Path) -> None:
    with caching(tmp_path, 4) as (cache, downloader):
        cache.keep("gh")
        for window in (["a", "b", "c"], ["b", "c"], ["c", "d"], ["d", "e"]):
            cache.expect(window)
            assert read(cache, window[0]) == content_of(window[0])
            assert read(cache, "g") == content_of("g")
            assert read(cache, "h") == content_of("h")
        assert downloader.downloaded[:3] == ["a", "g", "h"]
        assert downloader.downloaded.count("g") == 1


def test_what_is_on_its_way_but_not_wanted_soon_is_not_waited_for(tmp_path: Path) -> None:
    with caching(tmp_path, 8) as (cache, downloader):
        downloader.gate.clear()
        cache.expect(["a", "b", "c"])
        assert read(cache, "c") is None
        found: list[object] = []

        def wait_for(shard: str, is_patient: bool) -> None:
            found.append(cache.find(shard, is_patient=is_patient))

        threads = [
            threading.Thread(target=wait_for, args=arguments)
            for arguments in (("a", False), ("c", True))
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        assert found == []
        downloader.gate.set()
        for thread in threads:
            thread.join(120)
        assert len(found) == 2
        assert None not in found


def test_what_is_on_its_way_takes_its_room(tmp_path: Path) -> None:
    with caching(tmp_path, 2) as (cache, downloader):
        downloader.gate.clear()
        cache.expect(["ad"])
        until(lambda: downloader.downloaded == ["a"])
        cache.expect(["bc"])
        downloader.gate.set()
        assert read(cache, "b") == content_of("b")
        assert read(cache, "c") is None
        assert downloader.downloaded == ["a", "b"]  # nobody wants d any more


def test_what_has_made_way_is_open_no_more(tmp_path: Path) -> None:
    """Or its room on the disk would not be free."""
    with caching(tmp_path, 1) as (cache, _):
        cache.expect(["a"])
        assert read(cache, "a") == content_of("a")
        cache.expect(["b"])
        assert read(cache, "b") == content_of("b")
        with pytest.raises(FileNotFoundError):
            cache._pool.open(cache._paths["a"])


def test_a_closed_cache_lets_go_of_whoever_waits_and_of_its_files(tmp_path: Path) -> None:
    before = count_open_files()
    with caching(tmp_path, 8) as (cache, downloader):
        cache.expect(["a"])
        assert read(cache, "a") == content_of("a")
        downloader.gate.clear()
        cache.expect(["bc"])
        until(lambda: downloader.downloaded == ["a", "b"])
        waiting = threading.Thread(target=cache.find, args=("b",), daemon=True)
        waiting.start()
        time.sleep(0.05)
        cache.close()
        waiting.join(120)
        assert not waiting.is_alive()
        downloader.gate.set()
        for thread in threading.enumerate():
            if thread.name == "shards":
                thread.join(120)
        assert downloader.downloaded == ["a", "b"]
    assert count_open_files() == before


def test_what_cannot_be_had_is_said_to_whoever_waits_and_asked_for_again_later(
    tmp_path: Path,
) -> None:
    with caching(tmp_path, 8) as (cache, downloader):
        downloader.broken.add("a")
        cache.expect(["ab"])
        with pytest.raises(UserError, match="a cannot be had"):
            cache.find("a")
        assert read(cache, "b") == content_of("b")
        downloader.broken.clear()
        cache.expect(["ab"])
        assert read(cache, "a") == content_of("a")
