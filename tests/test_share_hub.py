"""The Hub's own client, in processes of its own, against as much of a hub as loopback can have.

Not driven: Xet uploads and downloads, the real Hub's answers, its sign-in.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from pipeline.maintenance.verify import verify
from pipeline.share.index import INDEX, PENDING
from pipeline.work import Work
from tests.fake_hub import TOKEN, FakeHub
from tests.shares import make_prepared, samples_of

ROOT = Path(__file__).resolve().parent.parent
URL = "hf://datasets/someone/tiny"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return make_prepared(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def hub(httpserver: HTTPServer) -> FakeHub:
    return FakeHub(httpserver, "someone/tiny")


def call(hub: FakeHub, home: Path, *arguments: object, token: str = TOKEN) -> tuple[int, str]:
    """Run a command as a user of that hub does; return its exit code and all that it says."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NURIE_DEBUG": "",
    }
    done = subprocess.run(
        [sys.executable, "cli.py", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_from_the_hub_comes_what_went_there(hub: FakeHub, work: Work, tmp_path: Path) -> None:
    code, said = call(hub, tmp_path, "push", work.root, URL)
    assert code == 0, said
    assert "14 travelled" in said
    assert hub.is_private is True
    assert {name for name in hub.files if name.startswith("samples/")} == {
        f"samples/{name}" for name in samples_of(work)
    }
    assert INDEX in hub.files
    assert PENDING not in hub.files
    assert INDEX not in hub.commits[-3]  # it came last, but for the pending one's end
    card = hub.files["README.md"].decode()
    assert 'load_dataset("someone/tiny", split="train"' in card
    assert not any(TOKEN.encode() in data for data in hub.files.values())

    num_commits, num_uploads = len(hub.commits), len(hub.uploads)
    code, said = call(hub, tmp_path, "push", work.root, URL)
    assert (code, " 0 travelled" in said) == (0, True), said
    assert (len(hub.commits), len(hub.uploads)) == (num_commits, num_uploads)

    code, said = call(hub, tmp_path, "pull", URL, tmp_path / "again")
    assert code == 0, said
    assert samples_of(Work(tmp_path / "again")) == samples_of(work)
    assert verify(tmp_path / "again") == []


@pytest.mark.slow
def test_a_push_to_the_hub_that_was_cut_short_goes_on(
    hub: FakeHub, work: Work, tmp_path: Path
) -> None:
    hub.commits.append({"README.md": b"of a repository made on the Hub's own page"})
    hub.fail_after = 4
    code, said = call(hub, tmp_path, "push", work.root, URL)
    assert code == 2
    assert said.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said
    code, said = call(hub, tmp_path, "pull", URL, tmp_path / "again")
    assert code == 2
    assert "its push is not complete yet" in said
    hub.fail_after = 10**6
    code, said = call(hub, tmp_path, "push", work.root, URL)
    assert code == 0, said
    assert len(hub.uploads) == len(set(hub.uploads))  # nothing twice
    code, said = call(hub, tmp_path, "pull", URL, tmp_path / "again", "--split", "test")
    assert code == 0, said


@pytest.mark.slow
def test_a_hub_that_refuses_is_a_sentence(hub: FakeHub, work: Work, tmp_path: Path) -> None:
    code, said = call(hub, tmp_path, "push", work.root, URL, token="hf_wrong")
    assert (code, said.count("\n")) == (2, 1), said
    assert said.startswith(f"error: {URL}: cannot be ")
    assert "hf_wrong" not in said
    code, said = call(hub, tmp_path, "pull", URL, tmp_path / "again")
    assert (code, said.count("\n")) == (2, 1), said
    assert "no data set is shared there" in said
