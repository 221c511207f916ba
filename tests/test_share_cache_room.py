"""Where the cache has no room, or shares it: other processes, leftovers, and disks that fail."""

import errno
import os
import threading
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.share.cache import ShardCache, check_room
from tests.share_caches import (
    SIZE,
    caching,
    content_of,
    names_in,
    read,
    tars_of,
    until,
)


def test_what_another_process_has_removed_is_open_no_more(tmp_path: Path) -> None:
    with caching(tmp_path, 1) as (one, _), caching(tmp_path, 1) as (two, _):
        one.expect(["a"])
        assert read(one, "a") == content_of("a")
        two.expect(["b"])
        assert read(two, "b") == content_of("b")
        one.expect(["b"])
        with pytest.raises(FileNotFoundError):
            one._pool.open(one._paths["a"])


def test_a_full_disk_and_a_bug_are_errors_and_no_endless_wait(tmp_path: Path) -> None:
    errors = iter([OSError(28, os.strerror(28)), ZeroDivisionError("a bug")])

    def fail(shard: str, path: Path) -> None:
        assert not path.exists()  # a half takes no room on a full disk
        path.write_bytes(b"half")
        raise next(errors)

    cache = ShardCache(tmp_path, 8 * SIZE, tars_of("a"), fail, 1)
    for what in ("a cannot be kept: No space left", "a bug"):
        cache.expect(["a"])
        with pytest.raises(UserError, match=what):
            cache.find("a")
    cache.close()


def test_a_disk_that_gives_nothing_up_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    """One that was mounted anew to be read only, say: what is half there cannot be removed."""

    def fail(shard: str, path: Path) -> None:
        path.mkdir()  # which cannot be removed as a file either
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    cache = ShardCache(tmp_path, 8 * SIZE, tars_of("a"), fail, 1)
    cache.expect(["a"])
    until(lambda: not cache._coming and not cache._queue)
    with pytest.raises(UserError, match="a cannot be kept: Read-only file system"):
        cache.find("a")
    cache.close()


def test_what_others_left_makes_way_the_oldest_first_and_other_files_stay(tmp_path: Path) -> None:
    old = {name: tmp_path / f"{tar.sha256}.tar" for name, tar in tars_of("xyz").items()}
    for age, (name, path) in enumerate(old.items()):
        path.write_bytes(content_of(name))
        os.utime(path, (1000 - age, 1000 - age))
    mine = tmp_path / "notes.tar"
    mine.write_bytes(b"m" * SIZE)
    with caching(tmp_path, 4) as (cache, _):
        cache.expect(["ab"])
        until(lambda: names_in_or_mine(tmp_path) == {"a", "b", "x", "y", "mine"})
    assert mine.read_bytes() == b"m" * SIZE


def names_in_or_mine(directory: Path) -> set[str]:
    known = {tar.sha256: name for name, tar in tars_of("abcdefghxyz").items()} | {"notes": "mine"}
    return {known[path.stem] for path in directory.glob("*.tar")}


def test_what_was_cut_short_goes_on_and_counts(tmp_path: Path) -> None:
    tars = tars_of("abcd")
    part = tmp_path / f"{tars['a'].sha256}.tar.part"
    part.write_bytes(content_of("a")[:30])
    seen: list[bytes] = []

    def go_on(shard: str, path: Path) -> None:
        if path.exists():
            seen.append(path.read_bytes())
        path.write_bytes(content_of(shard))

    cache = ShardCache(tmp_path, 2 * SIZE, tars, go_on, 1)
    cache.expect(["ab"])
    assert read(cache, "a") == content_of("a")
    assert read(cache, "b") == content_of("b")
    assert seen == [content_of("a")[:30]]
    part = tmp_path / f"{tars['c'].sha256}.tar.part"
    part.write_bytes(content_of("c")[:30])
    cache.expect(["b", "d"])
    until(lambda: names_in(tmp_path) == set("bd"))
    assert not part.exists()
    cache.close()


def test_a_tar_that_a_power_loss_cut_short_is_brought_anew(tmp_path: Path) -> None:
    path = tmp_path / f"{tars_of('a')['a'].sha256}.tar"
    path.write_bytes(b"short")
    with caching(tmp_path, 4) as (cache, downloader):
        cache.expect(["a"])
        assert read(cache, "a") == content_of("a")
        assert downloader.downloaded == ["a"]


def test_processes_share_what_is_there(tmp_path: Path) -> None:
    with caching(tmp_path, 8) as (one, first), caching(tmp_path, 8) as (two, second):
        first.gate.clear()
        second.gate.clear()
        for cache in (one, two):
            cache.expect(["ab"])
        until(lambda: first.downloaded != [] or second.downloaded != [])
        first.gate.set()
        second.gate.set()
        for cache in (one, two):
            assert [read(cache, shard) for shard in "ab"] == [content_of(s) for s in "ab"]
        assert sorted(first.downloaded + second.downloaded) == ["a", "b"]
        three = ShardCache(tmp_path, 8 * SIZE, tars_of("ab"), first, 1)
        three.expect(["ab"])
        next(tmp_path.glob(f"{tars_of('a')['a'].sha256}.tar")).unlink()  # the other made room
        assert read(three, "a") is None
        three.close()


def test_what_another_process_is_bringing_does_not_make_way(tmp_path: Path) -> None:
    begun, gate = threading.Event(), threading.Event()

    def download_slowly(shard: str, path: Path) -> None:
        with path.open("wb") as file:
            file.write(content_of(shard)[:30])
            file.flush()
            begun.set()
            assert gate.wait(120)
            file.write(content_of(shard)[30:])

    one = ShardCache(tmp_path, 3 * SIZE, tars_of("a"), download_slowly, 1)
    one.expect(["a"])
    assert begun.wait(120)
    with caching(tmp_path, 3, "xyz") as (two, other):
        two.expect(["xyz"])
        until(lambda: other.downloaded == ["x", "y"])
        assert read(two, "z") is None
        gate.set()
        assert read(one, "a") == content_of("a")
    one.close()


def test_what_makes_way_while_it_is_looked_at_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process evicts between the listing of the folder and the look at each file."""
    gone = tmp_path / f"{tars_of('b')['b'].sha256}.tar"
    real_iterdir, real_glob = Path.iterdir, Path.glob
    old = tmp_path / f"{tars_of('x')['x'].sha256}.tar"
    old.write_bytes(content_of("x"))
    with caching(tmp_path, 1) as (cache, downloader):
        downloader.gate.clear()  # it looks into the folder, too
        with monkeypatch.context() as patch:
            patch.setattr(Path, "iterdir", lambda self: [*real_iterdir(self), gone])
            patch.setattr(Path, "glob", lambda self, pattern: [*real_glob(self, pattern), gone])
            cache.expect(["a"])
            check_room(tmp_path, SIZE, SIZE)
        assert not old.exists()
        downloader.gate.set()
        assert read(cache, "a") == content_of("a")


def test_a_cache_that_the_disk_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 5 * 10**9 - 100

    monkeypatch.setattr("shutil.disk_usage", lambda path: Full)
    ours = {f"{'a' * 64}.tar": 60, f"{'b' * 64}.tar.part": 40}
    for name, num_bytes in (ours | {"c.parquet": 9, "somebodys.tar": 9}).items():
        (tmp_path / name).write_bytes(bytes(num_bytes))  # what tars take may be taken again
    check_room(tmp_path, 5 * 10**9, 10**12)
    check_room(tmp_path, 10**12, 5 * 10**9)
    for max_bytes in (9 * 10**9, 5 * 10**9 + 1):
        with pytest.raises(UserError, match=r"room for 5\.0 GB, .* give less: --cache-size 2\.5"):
            check_room(tmp_path, max_bytes, 10**12)
