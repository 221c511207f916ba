import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import fsspec
import pytest
from fsspec.registry import _registry

from pipeline.errors import UserError, WholeFilesOnlyError
from pipeline.stores.files import check_store, file_system, first_line, read_store
from pipeline.urls import scheme_of, without_password


@pytest.fixture(params=["path", "file", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder of each kind with a file ``a`` of a hundred bytes and an empty one."""
    roots = {"path": str(tmp_path), "file": f"file://{tmp_path}", "memory": "memory://stores-test"}
    root = roots[request.param]
    files = fsspec.filesystem("memory" if request.param == "memory" else "file")
    for name, data in {"a": bytes(range(100)), "empty": b""}.items():
        files.pipe_file(f"{root}/{name}", data)
    yield root
    files.rm(root, recursive=True)


def test_a_file_is_read_up_to_the_cap(root: str) -> None:
    whole = read_store(f"{root}/a", 100)
    assert (str(whole.fate), whole.content) == ("fetched", bytes(range(100)))
    assert whole.num_attempts == 1
    assert str(read_store(f"{root}/a", 99).fate) == "rejected/too_many_bytes"
    assert read_store(f"{root}/a", 99).content == b""
    assert str(read_store(f"{root}/empty", 99).fate) == "rejected/empty"
    assert str(read_store(f"{root}/b", 99).fate) == "missing/no_file"
    assert str(read_store(f"{root}/a/b", 99).fate) == "missing/no_file"


def test_a_span_is_read_whole_or_not_at_all(root: str) -> None:
    assert read_store(f"{root}/a", 99, range(10, 30)).content == bytes(range(10, 30))
    short = read_store(f"{root}/a", 99, range(90, 120))
    assert (str(short.fate), short.content) == ("failed/truncated", b"")
    assert str(read_store(f"{root}/a", 99, range(500, 520)).fate) == "failed/truncated"
    assert str(read_store(f"{root}/a", 19, range(10, 30)).fate) == "rejected/too_many_bytes"


def test_a_store_that_sends_whole_files_serves_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins where the span does is taken; what does not is not, whatever came."""
    files = fsspec.filesystem("memory")
    files.pipe_file("/whole-only/a", bytes(range(100)))
    monkeypatch.setattr(type(files), "cat_file", lambda self, path, **_: self.open(path).read())
    place = "memory://whole-only/a"
    assert read_store(place, 100).content == bytes(range(100))
    assert str(read_store(place, 99).fate) == "rejected/too_many_bytes"
    assert read_store(place, 99, range(20)).content == bytes(range(20))
    with pytest.raises(WholeFilesOnlyError, match="a: its store sends whole files only"):
        read_store(place, 99, range(10, 30))
    files.rm("/whole-only", recursive=True)


def test_what_cannot_be_read_may_be_another_time(tmp_path: Path) -> None:
    assert str(read_store(str(tmp_path), 99).fate) == "failed/io"


def test_a_store_without_credentials_is_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture is to blame, and no other shard would fare better."""

    class NoCredentialsError(Exception):
        """As botocore has it, which is no OSError."""

    def refuse(*_: object, **__: object) -> bytes:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr("pipeline.stores.files.read_range", refuse)
    told = r"^s3://bucket/1\.jpg: Unable to locate credentials\. .* FSSPEC_S3_ANON=true"
    with pytest.raises(UserError, match=told):
        read_store("s3://bucket/1.jpg", 99)


def test_stores_are_told_by_their_scheme() -> None:
    assert scheme_of("/data/a:b/{id}") == "file"
    assert scheme_of("s3://bucket/{id}") == "s3"


@pytest.mark.parametrize(
    "place",
    [
        "pipe://cat /etc/passwd",
        "ftp://a.org/1",
        "reference:///data/1",
        "github://a:b@/1",
        "sftp://a/1",
        "S3://bucket/1",
    ],
)
def test_other_stores_are_refused(place: str) -> None:
    with pytest.raises(UserError, match=r"read from; possible: a plain path, http://, .*, s3://"):
        check_store(place)


@pytest.mark.parametrize("place", ["simplecache::s3://bucket/1", "zip://a.png::file:///data/a.zip"])
def test_a_chain_of_stores_is_refused(place: str) -> None:
    with pytest.raises(UserError, match="a chain of file systems"):
        check_store(place)


@pytest.mark.parametrize(
    ("place", "right"),
    [
        ("s3:///{id}.jpg", "names no bucket; give one, as in s3://BUCKET/{id}.jpg."),
        ("az:///512px/{id}.jpg", "names no container; give one, as in az://CONTAINER/512px/{id}"),
        ("gs://", "names no bucket; give one, as in gs://BUCKET/NAME."),
        (
            "hf:///{id}.jpg",
            "names no repository; give one, as in hf://datasets/OWNER/NAME/{id}.jpg.",
        ),
    ],
)
def test_a_url_without_a_bucket_is_refused(place: str, right: str) -> None:
    with pytest.raises(UserError) as caught:
        check_store(place)
    assert right in str(caught.value)


def test_a_store_whose_package_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("az", "hf"):  # classes that an earlier test has had found
        monkeypatch.delitem(_registry, scheme, raising=False)
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(UserError, match="adlfs"):
        check_store("az://container/{id}")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # of which its library says nothing
    with pytest.raises(UserError, match=r"^hf://datasets/o/n: .* pip install -e '\.\[hub\]'"):
        check_store("hf://datasets/o/n")


@pytest.mark.parametrize(
    ("url", "settings", "name"),
    [
        ("sftp://a.org/x/y", {"host": "a.org"}, "/x/y"),
        ("ssh://me@A.org:2222/x", {"host": "A.org", "port": 2222, "username": "me"}, "/x"),
        ("smb://GROUP;me@nas/share/x", {"host": "nas", "username": "GROUP;me"}, "/share/x"),
        ("webhdfs://me@node:9870/x", {"host": "node", "port": 9870, "user": "me"}, "/x"),
        ("hdfs://node:8020/x", {"host": "node", "port": 8020}, "/x"),
        ("dbfs:///x", {}, "/x"),
    ],
)
def test_what_a_url_says_of_its_server_is_handed_on(
    monkeypatch: pytest.MonkeyPatch, url: str, settings: dict[str, object], name: str
) -> None:
    """Each store's own class takes the URL apart; only the connection is left out."""
    scheme = scheme_of(url)
    real = {"ssh": "sftp", "hdfs": "arrow"}.get(scheme, scheme)
    for missing in ("smbclient", "smbprotocol", "smbprotocol.exceptions"):
        monkeypatch.setitem(sys.modules, missing, Mock())
    kind = fsspec.get_filesystem_class(scheme)
    monkeypatch.setattr(kind, "__init__", lambda self, **options: taken.append(options))
    taken: list[dict[str, object]] = []
    kind.clear_instance_cache()
    assert real in kind.__module__
    assert file_system(url)[1] == name
    assert taken == [settings]
    kind.clear_instance_cache()


def test_a_password_is_not_shown() -> None:
    for place in (
        "sftp://me:hunter2@a.org/{id}",
        "s3://me:hunter2@bucket::file://x",
        "pipe://:hunter@2@x",
    ):
        with pytest.raises(UserError) as caught:
            check_store(place)
        assert "hunter" not in str(caught.value)
    assert first_line(OSError("401 for 'https://me:a@b@host/x'.")) == "401 for 'https://host/x'"
    assert without_password("sftp://me@host/x: a:b@c") == "sftp://me@host/x: a:b@c"
    assert without_password("s3://key:hunt/er@bucket/{id}") == "s3://bucket/{id}"
    assert without_password("s3://key:80hunter@bucket/{id}") == "s3://bucket/{id}"
    assert without_password("s3://key:80/hunter@bucket/{id}") == "s3://bucket/{id}"
    assert without_password("sftp://me:123456/hunter@host/x") == "sftp://host/x"
    assert without_password("http://host:80/{id}@2x.jpg") == "http://host:80/{id}@2x.jpg"
