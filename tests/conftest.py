"""Fixtures that several tests share."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import hypothesis
import pytest

from tests.s3_server import lead_to, serve_s3

if TYPE_CHECKING:
    from tests.test_crash_commands import Source

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
    from tests.test_crash_commands import make_undisturbed

    return make_undisturbed(tmp_path_factory.mktemp("local"))


@pytest.fixture
def scratch_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where scratch folders are, of this process and of those that it starts."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return place


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Return the folder of real pictures in Danbooru2021's shape; skips where it is absent."""
    if not MIRROR.is_dir():
        pytest.skip("the mirror of real pictures is not beside the repository")
    return MIRROR
