"""Fixtures that several tests share."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import hypothesis
import pytest

from tests.clients import Connect, FakeTime, make_client
from tests.s3_server import lead_to, serve_s3

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer
    from typer.testing import Result

    from model.data.samples import Samples
    from pipeline.work import Work
    from tests.real_commands import Source
    from tests.streams import CountingServer

# A busy machine must fail no test: how long an example takes is not what these tests are about.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A shell that runs the tests in the background has Ctrl-C ignored, and so would the programs have
# that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

MIRROR = Path(__file__).resolve().parent.parent.parent / "shared" / "mirror"


@pytest.fixture(autouse=True)
def _without_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a test that gives --debug in this process would leave for all that follow."""
    monkeypatch.setenv("NURIE_DEBUG", "")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's proxies, contact and keys out: tests see headers, and servers on loopback."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("NURIE_CONTACT", "DANBOORU_LOGIN", "DANBOORU_API_KEY", "DANBOORU_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake_time() -> FakeTime:
    """Return a clock that only its own ``sleep`` moves."""
    return FakeTime()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return ``make_client``, whose clients are closed at the end."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(closing(make_client(*args, **kwargs)))


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """Return the URL of a real S3 server on loopback."""
    with serve_s3() as url:
        yield url


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> "fsspec.AbstractFileSystem":
    """Return that server's files, with an empty bucket, where ``s3://`` leads for the test."""
    return lead_to(s3_url, monkeypatch)


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> "Source":
    """Return a source on disk, and what a run makes of it in a work folder of its own."""
    from tests.real_commands import make_undisturbed

    return make_undisturbed(tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where ``work``, a prepared folder, lies beside ``there``, where it was pushed to."""
    from pipeline.share.push import push
    from tests.shares import QUIET, make_prepared

    root = tmp_path_factory.mktemp("made")
    push(make_prepared(root), str(root / "there"), QUIET)
    return root


@pytest.fixture
def work(made: Path, tmp_path: Path) -> "Work":
    """Return a copy of the prepared folder, to be spoiled."""
    from pipeline.work import Work

    shutil.copytree(made / "work", tmp_path / "work")
    return Work(tmp_path / "work")


@pytest.fixture
def there(made: Path, tmp_path: Path) -> Path:
    """Return a copy of what was pushed, to be spoiled."""
    shutil.copytree(made / "there", tmp_path / "there")
    return tmp_path / "there"


@pytest.fixture(scope="session")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as ``made``, with eight shards to train on."""
    from pipeline.share.push import push
    from tests.shares import QUIET, make_prepared

    root = tmp_path_factory.mktemp("streamed")
    push(make_prepared(root, 60), str(root / "there"), QUIET)
    return root


@pytest.fixture
def counting_server(httpserver: "HTTPServer", streamed: Path) -> "CountingServer":
    """Return a server of what was pushed, which counts what it gives of each tar."""
    from tests.streams import CountingServer

    return CountingServer(httpserver, streamed / "there")


@pytest.fixture
def on_disk(streamed: Path) -> "Iterator[Samples]":
    """Return the samples to train on of the folder that was pushed."""
    from model.data.samples import Samples

    with Samples(streamed / "work" / "samples", "train") as samples:
        yield samples


@pytest.fixture(scope="module")
def samples_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of small prepared samples."""
    from tests.model_samples import write_samples

    return write_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="session")
def exported_work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a work folder with one run and its evaluation, and a lock."""
    from tests.exports import make_exported_work

    return make_exported_work(tmp_path_factory.mktemp("exported") / "work")


@pytest.fixture(scope="session")
def exported(exported_work: Path) -> "tuple[Path, Result]":
    """Return the folder of an export by the command line, and what that printed."""
    from tests.calls import call

    out = exported_work.with_name("out")
    return out, call("export", exported_work / "runs" / "first", "--out", out)


@pytest.fixture(scope="module")
def small_style_networks() -> Iterator[None]:
    """Build small style networks: for tests that do not ask what the features are."""
    from model.networks.style import STYLE_NETWORKS
    from tests.stand_ins import SMALL_STYLE_NETWORKS

    with pytest.MonkeyPatch.context() as patch:
        for name, kind in SMALL_STYLE_NETWORKS.items():
            patch.setitem(STYLE_NETWORKS, name, kind)
        yield


@pytest.fixture
def real_style_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the real ones for one test of a module that has small ones."""
    from model.networks.style import STYLE_NETWORKS
    from tests.stand_ins import REAL_STYLE_NETWORKS

    for name, kind in REAL_STYLE_NETWORKS.items():
        monkeypatch.setitem(STYLE_NETWORKS, name, kind)


@pytest.fixture
def scratch_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where scratch folders are, of this process and of those that it starts."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return place


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync nothing, for tests of deaths by which no disk loses anything."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Return the folder of real pictures in Danbooru2021's shape; skips where it is absent."""
    if not MIRROR.is_dir():
        pytest.skip("the mirror of real pictures is not beside the repository")
    return MIRROR
