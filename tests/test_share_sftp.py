"""Data sets on a real SFTP server: a store whose URL names a host, a port and a user."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import fsspec
import pytest
from fsspec.implementations.sftp import SFTPFileSystem

from pipeline.disk import temporary_path
from pipeline.errors import UserError
from pipeline.maintenance.takedown import take_down
from pipeline.maintenance.verify import verify
from pipeline.planning.plan import planned_shards
from pipeline.shards.shard import tar_path
from pipeline.share.index import INDEX, PENDING
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.stores.files import read_range
from pipeline.stores.open import open_store
from pipeline.stores.remote import RemoteStore
from pipeline.work import Work
from tests.crashing import contents
from tests.file_server import forget_stores
from tests.files import flip
from tests.real_commands import Source
from tests.sftp_server import PASSWORD, SftpServer, serve_sftp
from tests.shard_stores import both, contents_of
from tests.shares import QUIET, load_index, make_prepared, samples_of

SHARD = "train-000000"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return make_prepared(tmp_path_factory.mktemp("sftp"))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SftpServer]:
    """An empty server, whose password is set as users set it."""
    monkeypatch.setenv("FSSPEC_SFTP_PASSWORD", PASSWORD)
    monkeypatch.setitem(fsspec.config.conf, "sftp", {"password": PASSWORD})  # read long ago
    root = tmp_path / "server"
    root.mkdir()
    with serve_sftp(root) as server:
        yield server
    forget_stores()


def run(*arguments: object) -> str:
    """Run a command in a process of its own; return all that it says."""
    command = [sys.executable, "cli.py", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_from_a_server_comes_what_went_there(
    made: Work, server: SftpServer, tmp_path: Path
) -> None:
    url = f"{server.url}/sets/tiny"
    said = run("push", made.root, url)
    assert "14 travelled" in said
    there = server.root / "sets" / "tiny"
    index = load_index(there)
    names = {p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()}
    assert names == {INDEX, *index.by_name}
    assert index.url == url
    said += run("--debug", "pull", url, tmp_path / "again")
    assert samples_of(Work(tmp_path / "again")) == samples_of(made)
    assert verify(tmp_path / "again") == []
    assert push(made, f"{url}/", QUIET).num_moved == 0
    assert PASSWORD not in said
    for folder in (there, tmp_path / "again", made.share_dir):
        for path in folder.rglob("*"):
            assert not path.is_file() or PASSWORD.encode() not in path.read_bytes()


def test_what_was_cut_short_goes_on(
    made: Work, server: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server.url}/tiny"
    push(made, url, QUIET)
    there = server.root / "tiny"
    whole = (there / "samples" / f"{SHARD}.tar").read_bytes()
    (there / INDEX).rename(there / PENDING)
    (there / "samples" / f"{SHARD}.tar").write_bytes(whole[:7000])
    with pytest.raises(UserError, match="not complete yet"):
        pull(url, Work(tmp_path / "again"), QUIET)
    assert push(made, url, QUIET).num_moved == 1
    assert (there / "samples" / f"{SHARD}.tar").read_bytes() == whole
    again = Work(tmp_path / "again")
    again.incoming_dir.mkdir(parents=True, exist_ok=True)
    (again.incoming_dir / f"{SHARD}.tar").write_bytes(whole[:7000])
    starts: list[int] = []

    def watch(place: str, start: int, stop: int) -> bytes:
        starts.append(start)
        return read_range(place, start, stop)

    monkeypatch.setattr("pipeline.stores.remote.read_range", watch)
    pull(url, again, QUIET)
    assert 7000 in starts
    assert samples_of(again) == samples_of(made)


class Killed(BaseException):
    pass


@pytest.mark.usefixtures("scratch_dir")
@pytest.mark.parametrize("number", [1, 4, 6, 11])
def test_no_half_of_a_file_has_its_name(
    local: Source,
    server: SftpServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """The store's identity, a ledger, rows of originals and of samples."""
    put_file, numbers = SFTPFileSystem.put_file, itertools.count(1)
    half = tmp_path / "half"

    def put_half(files: SFTPFileSystem, path: str, place: str) -> None:
        if next(numbers) != number:
            put_file(files, path, place)
            return
        half.write_bytes(Path(path).read_bytes()[: Path(path).stat().st_size // 2])
        put_file(files, str(half), place)
        raise Killed

    def run_all(url: str, work: Work) -> None:
        both(local, work, url)
        push(work, url, QUIET)

    monkeypatch.setattr(SFTPFileSystem, "put_file", put_half)
    with pytest.raises(Killed):
        run_all(f"{server.url}/store", Work(tmp_path / "work"))
    run_all(f"{server.url}/store", Work(tmp_path / "work"))
    assert contents_of(server.root / "store") == local.expected
    assert verify(server.root / "store") == []


def test_what_a_killed_put_left_goes_with_the_file(made: Work, server: SftpServer) -> None:
    push(made, f"{server.url}/tiny", QUIET)
    tar = tar_path(server.root / "tiny" / "samples", SHARD)
    temporary_path(tar).write_bytes(b"half of it")
    RemoteStore(f"{server.url}/tiny").remove([f"samples/{SHARD}.tar"])
    assert not tar.exists()
    assert not temporary_path(tar).exists()


def test_a_server_that_cannot_replace_files_is_written_as_well(
    made: Work, server: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object) -> None:
        raise asyncssh.SFTPOpUnsupported("none of OpenSSH's words is known here")

    monkeypatch.setattr(asyncssh.SFTPServer, "posix_rename", refuse)
    url = f"{server.url}/tiny"
    push(made, url, QUIET)
    pull(url, Work(tmp_path / "again"), QUIET)
    assert samples_of(Work(tmp_path / "again")) == samples_of(made)
    assert list(server.root.rglob("*.tmp")) == []


def test_a_tar_that_was_tampered_with_is_refused(
    made: Work, server: SftpServer, tmp_path: Path
) -> None:
    push(made, f"{server.url}/tiny", QUIET)
    flip(tar_path(server.root / "tiny" / "samples", SHARD))
    with pytest.raises(UserError, match=f"{SHARD}.tar: is not what its index says"):
        pull(f"{server.url}/tiny", Work(tmp_path / "again"), QUIET)
    assert SHARD not in [path.stem for path in (tmp_path / "again").rglob("*.tar")]


def test_a_connection_that_broke_is_made_anew(made: Work, server: SftpServer) -> None:
    url = f"{server.url}/tiny"
    push(made, url, QUIET)
    store, num_logins = RemoteStore(url), server.num_logins
    assert store.read_range(INDEX, range(5)) == b'{\n  "'
    assert server.num_logins == num_logins
    server.drop()
    assert store.read_range(INDEX, range(5)) == b'{\n  "'
    assert server.num_logins == num_logins + 1
    server.drop()
    store.remove([INDEX, "samples/none"])
    assert INDEX not in store.sizes()


def test_who_is_not_let_in_is_told(server: SftpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "sftp", {"password": f"not-{PASSWORD}"})
    with pytest.raises(UserError, match=rf"{server.url}/x: Authentication failed") as caught:
        open_store(f"{server.url}/x")
    assert PASSWORD not in str(caught.value)


@pytest.mark.slow
@pytest.mark.usefixtures("scratch_dir")
def test_shards_are_made_there_and_posts_taken_out_of_them(
    local: Source, server: SftpServer, tmp_path: Path
) -> None:
    url, work = f"{server.url}/store", Work(tmp_path / "work")
    both(local, work, url, num_workers=2)
    assert contents_of(server.root / "store") == local.expected
    push(work, url, QUIET)
    take_down(work, [2], store=url)
    on_disk = Work(tmp_path / "disk")
    both(local, on_disk, str(tmp_path / "store"))
    take_down(on_disk, [2], store=str(tmp_path / "store"))
    assert contents_of(server.root / "store") == contents_of(tmp_path / "store") != local.expected
    assert contents(work) == contents(on_disk)
    push(work, url, QUIET)
    pull(url, Work(tmp_path / "again"), QUIET)
    assert planned_shards(Work(tmp_path / "again").plan_path) == planned_shards(work.plan_path)
    assert verify(tmp_path / "again") == []
