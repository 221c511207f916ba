"""Data sets in stores: a real S3 server, stores that break off, and what no store may be."""

import errno
import os
from contextlib import closing
from pathlib import Path

import fsspec
import pytest
import s3fs
from pytest_httpserver import HTTPServer

from pipeline.errors import UserError
from pipeline.maintenance.verify import verify
from pipeline.shards.shard import tar_path
from pipeline.share.index import INDEX, PENDING
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.stores import remote, transfer
from pipeline.stores.files import read_range
from pipeline.stores.folder import FolderStore
from pipeline.stores.open import open_store, open_writable
from pipeline.stores.remote import RemoteStore
from pipeline.work import Work
from tests.calls import call
from tests.file_server import forget_stores
from tests.s3_server import BUCKET, KEYS
from tests.shares import QUIET, SHARD, load_index, samples_of

SECRET = "hunter2-of-the-tests"


@pytest.mark.slow
def test_from_s3_comes_what_went_there(
    made: Path, tmp_path: Path, s3: "fsspec.AbstractFileSystem"
) -> None:
    url = f"s3://{BUCKET}/sets/tiny"
    work = Work(made / "work")
    pushed = call("push", work.root, url)
    assert pushed.exit_code == 0, pushed.output
    assert "14 travelled" in pushed.stdout
    assert " 0 travelled" in call("push", work.root, f"{url}/").stdout
    names = {path.removeprefix(f"{BUCKET}/sets/tiny/") for path in s3.find(BUCKET)}
    assert names == set(load_index(made / "there").by_name) | {INDEX}
    pulled = call("pull", url, tmp_path / "again")
    assert pulled.exit_code == 0, pulled.output
    again = Work(tmp_path / "again")
    assert samples_of(again) == samples_of(work)
    assert verify(again.root) == []
    said = pushed.output + pulled.output
    for value in KEYS.values():
        assert value not in said
        for folder in (again.root, work.share_dir):
            found = [
                p for p in folder.rglob("*") if p.is_file() and value.encode() in p.read_bytes()
            ]
            assert found == [] or value == KEYS["AWS_DEFAULT_REGION"]


def test_a_push_to_s3_that_was_cut_short_goes_on(
    made: Path, tmp_path: Path, s3: "fsspec.AbstractFileSystem", monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}/sets/tiny"
    work = Work(made / "work")
    check = transfer.check_sum
    checked: list[Path] = []

    def fail_late(path: Path, sum_: str) -> None:
        checked.append(path)
        if len(checked) > 5:
            raise UserError("cut short")
        check(path, sum_)

    monkeypatch.setattr(RemoteStore, "num_connections", 1, raising=False)
    monkeypatch.setattr(remote, "check_sum", fail_late)
    with pytest.raises(UserError, match="cut short"):
        push(work, url, QUIET)
    monkeypatch.setattr(remote, "check_sum", check)
    with pytest.raises(UserError, match="not complete yet"):
        pull(url, Work(tmp_path / "again"), QUIET)
    there = RemoteStore(url).sizes()
    assert PENDING in there
    assert INDEX not in there
    moved = push(work, url, QUIET)
    assert moved.num_moved == 14 - (len(there) - 1)
    s3.rm_file(f"{BUCKET}/sets/tiny/samples/{SHARD}.tar")
    assert push(work, url, QUIET).num_moved == 1
    pull(url, Work(tmp_path / "again"), QUIET)
    assert samples_of(Work(tmp_path / "again")) == samples_of(work)


def test_a_bucket_that_refuses_is_a_sentence(
    made: Path, tmp_path: Path, s3: "fsspec.AbstractFileSystem", monkeypatch: pytest.MonkeyPatch
) -> None:
    del s3
    with pytest.raises(UserError, match="cannot be written"):
        push(Work(made / "work"), "s3://no-such-bucket/tiny", QUIET)
    with pytest.raises(UserError, match="no data set is shared there"):
        pull(f"s3://{BUCKET}/nothing", Work(tmp_path / "again"), QUIET)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    forget_stores()
    with pytest.raises(UserError, match="cannot be read") as caught:
        pull(f"s3://{BUCKET}/tiny", Work(tmp_path / "again"), QUIET)
    assert not any(value in str(caught.value) for value in list(KEYS.values())[:2])


def test_any_other_store_of_fsspecs_will_do(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SPAN", 5000)
    url = "memory://sets/tiny"
    push(Work(made / "work"), url, QUIET)
    again = Work(tmp_path / "again")
    again.incoming_dir.mkdir(parents=True)
    whole = tar_path(made / "there" / "samples", SHARD).read_bytes()
    (again.incoming_dir / f"{SHARD}.tar").write_bytes(whole[:7000])
    pull(url, again, QUIET)
    assert samples_of(again) == samples_of(Work(made / "work"))
    files = fsspec.filesystem("memory")
    files.pipe_file(f"/sets/tiny/samples/{SHARD}.tar", whole + b"more")
    with pytest.raises(UserError, match="not what its index says"):
        pull(url, Work(tmp_path / "third"), QUIET)
    files.rm("/sets", recursive=True)


@pytest.mark.parametrize(
    ("said", "is_end"),
    [
        ("connection lost: memory://orange/mid-range/tiny", False),
        ("416 Client Error: Requested Range Not Satisfiable for url: https://HOST/orange", True),
        ("The requested range cannot be satisfied.", True),
        ("The range specified is invalid for the current size of the resource.", True),
        ("InvalidRange", True),
        ("Offset=9 out of the range [0, 8); OPEN", True),
    ],
)
def test_what_stores_say_of_a_files_end_is_told_from_what_breaks_off(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, is_end: bool
) -> None:
    def fail_late(place: str, start: int, stop: int) -> bytes:
        if start:
            raise OSError(said)
        return read_range(place, start, stop)

    url = "memory://orange/mid-range/tiny"
    push(Work(made / "work"), url, QUIET)
    monkeypatch.setattr(remote, "SPAN", 5000)
    monkeypatch.setattr(remote, "read_range", fail_late)
    work = Work(tmp_path / "again")
    with pytest.raises(UserError, match="not what its index says" if is_end else "connection lost"):
        pull(url, work, QUIET)
    assert any(path.stat().st_size == 5000 for path in work.incoming_dir.iterdir()) != is_end
    fsspec.filesystem("memory").rm("/orange", recursive=True)


def test_a_store_that_sends_whole_files_does_not_fill_the_disk(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "memory://whole-only/tiny"
    push(Work(made / "work"), url, QUIET)
    files = fsspec.filesystem("memory")
    monkeypatch.setattr(type(files), "cat_file", lambda self, path, **_: self.open(path).read())
    pull(url, Work(tmp_path / "again"), QUIET)
    assert samples_of(Work(tmp_path / "again")) == samples_of(Work(made / "work"))
    monkeypatch.setattr(remote, "SPAN", 5000)
    work = Work(tmp_path / "third")
    with pytest.raises(UserError, match="its store sends whole files only"):
        pull(url, work, QUIET)
    assert max(path.stat().st_size for path in work.incoming_dir.iterdir()) == 5000
    files.rm("/whole-only", recursive=True)


def _break_off(monkeypatch: pytest.MonkeyPatch, *errors: Exception | None) -> list[float]:
    """Let reading fail with these in turn, None for an answer; return what is slept meanwhile."""
    failing, slept = iter(errors), list[float]()

    def read(place: str, start: int, stop: int) -> bytes:
        if error := next(failing, None):
            raise RuntimeError("no luck") from error
        return b"data"

    monkeypatch.setattr(remote, "read_range", read)
    monkeypatch.setattr("pipeline.stores.remote.time.sleep", slept.append)
    return slept


def test_a_store_that_has_answered_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = OSError(errno.EBUSY, "Please reduce your request rate")  # s3fs's word for HTTP 503
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    slept = _break_off(monkeypatch, None, busy, refused, TimeoutError(), refused)
    store = RemoteStore("memory://waited-for")
    for _ in range(2):
        assert store.read("index.json", 99) == b"data"
    assert slept == [1, 2, 4]  # the first time it is asked again at once, on a new connection
    monkeypatch.setattr(remote, "PATIENCE", 0)
    _break_off(monkeypatch, refused, refused)
    with pytest.raises(UserError, match="cannot be read"):
        store.read("index.json", 99)


@pytest.mark.parametrize("error", [ConnectionRefusedError(), None])
def test_a_store_that_never_answered_or_says_no_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    has_answered = [] if error else [None]
    error = error or PermissionError(errno.EACCES, "Forbidden")
    slept = _break_off(monkeypatch, *has_answered, error, error)
    store = RemoteStore("memory://waited-for")
    for _ in has_answered:
        store.read("index.json", 99)
    with pytest.raises(UserError, match="cannot be read"):
        store.read("index.json", 99)
    assert slept == []


def test_a_file_that_is_read_at_once_has_a_largest_size(
    tmp_path: Path, httpserver: HTTPServer
) -> None:
    """An index, that is, which a stranger may have made as large as no memory is."""
    data = b"x" * 10
    (tmp_path / "index.json").write_bytes(data)
    fsspec.filesystem("memory").pipe_file("/capped/index.json", data)
    httpserver.expect_request("/capped/index.json").respond_with_data(data)
    for url in (str(tmp_path), "memory://capped", httpserver.url_for("/capped")):
        with closing(open_store(url)) as store:
            assert store.read("index.json", 10) == data
            with pytest.raises(UserError, match=r"index\.json: larger than 9 bytes"):
                store.read("index.json", 9)


@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS, None])
def test_where_the_kernel_copies_nothing_it_is_read_and_written(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, "no")

    if code is None:
        monkeypatch.delattr(os, "copy_file_range")
    else:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    pull(str(made / "there"), Work(tmp_path / "again"), QUIET)
    assert samples_of(Work(tmp_path / "again")) == samples_of(Work(made / "work"))


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("pipe:cat /etc/passwd", "no such store"),
        ("pipe:touch x", "no such store"),
        ("pipe://cat", "cannot be (read from|written to); possible: a plain path, .*s3://"),
        ("file:/etc", "no such store"),
        ("me@host:/data", "over SSH one is given as sftp://USER@HOST/FOLDER"),
        ("file://localhost/data", "given as file:///FOLDER"),
        ("data:text/plain,x", "no such store"),
        ("simplecache::s3://bucket/x", "a chain of file systems"),
        ("zip://x::file:///x.zip", "a chain of file systems"),
        ("reference:///x", "cannot be (read from|written to); possible"),
        ("github://a:b@/x", "user or password"),
        ("ftp://host/x", "cannot be (read from|written to); possible"),
        ("dask://x", "cannot be (read from|written to); possible"),
        ("", "URL: is empty"),
        ("s3://", "names no bucket; give one, as in s3://BUCKET/NAME"),
        ("s3:///sets/tiny", "names no bucket; give one, as in s3://BUCKET/sets/tiny"),
        ("memory:///", "names no folder"),
        ("webhdfs:///x", "names no host; give one, as in webhdfs://HOST/x"),
        ("sftp://", "names no host; give one, as in sftp://HOST/NAME"),
        ("sftp://[::1/x", "is no URL: "),
        (f"sftp://me:{SECRET}@[::1/x", "is no URL: "),
        (f"sftp://:{SECRET}@host/x", "user or password"),
        (f"pipe://me:{SECRET}@host/x", "user or password"),
        ("dbfs:///x", "set FSSPEC_DBFS_INSTANCE, FSSPEC_DBFS_TOKEN"),
        (f"https://me:{SECRET}@host/x", "user or password"),
        (f"https://{SECRET}@host/x", "user or password"),
        (f"s3://KEY:{SECRET}@bucket/x", "user or password"),
        (f"sftp://me:{SECRET}@host/x", "user or password"),
        (f"s3://KEY:slash/{SECRET}@bucket/x", "user or password"),
        (f"sftp://me:slash/{SECRET}@host/x", "user or password"),
        (f"https://me:slash/{SECRET}@host/x", "user or password"),
        (f"s3://KEY:80/{SECRET}@bucket/x", "user or password"),
        (f"sftp://me:123456/{SECRET}@host/x", "user or password"),
        (f"https://host/x?X-Amz-Signature={SECRET}", "query or fragment"),
        (f"az://container/x?sig={SECRET}", "query or fragment"),
        (f"https://host/x#{SECRET}", "query or fragment"),
        ("hf://someone/tiny", "name a data set repository"),
        ("hf://datasets/someone", "name a data set repository"),
        ("hf://spaces/someone/tiny", "name a data set repository"),
        ("hf://datasets/someone/tiny/../../x", "name a data set repository"),
    ],
)
def test_what_is_no_store_or_holds_a_secret_is_refused(url: str, what: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        open_store(url)
    assert SECRET not in str(caught.value)
    with pytest.raises(UserError, match=what):
        open_writable(url)


def test_a_port_before_a_folder_with_an_at_sign_is_no_password() -> None:
    for host in ("127.0.0.1:8000", "[::1]", "[::1]:8000", "host"):
        assert open_store(f"https://{host}/set@2").url == f"https://{host}/set@2"


def test_a_colon_in_a_folders_name_is_no_scheme(tmp_path: Path) -> None:
    for place in (f"{tmp_path}/a:b", "./a:b", f"file://{tmp_path}", "hf"):
        assert isinstance(open_store(place), FolderStore)


def test_credentials_never_reach_the_card(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "NURIE_AUTHORIZATION"):
        monkeypatch.setenv(name, SECRET)
    push(Work(made / "work"), str(tmp_path / "there"), QUIET)
    for path in (tmp_path / "there").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
