"""Sequences in which pictures and data sets come from a server that has bad days."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.schema import RAW
from pipeline.shards.rows import read_rows
from pipeline.shards.shard import list_shards, rows_path
from pipeline.work import Work
from tests.faulty_folder import PATIENCE, FaultyFolder
from tests.sources import originals
from tests.stories import Story, seeds

FATES = {
    "403": "refused/http_403",
    "404": "missing/http_404",
    "410": "missing/http_410",
    "page": "rejected/not_an_image",
}
"""What becomes of a post whose answer stands."""

TRAIN = ("model='reference'", "width_multiplier=0.25", "batch_size=2", "epochs=2", "num_grid=1")


class WebStory(Story):
    """A story whose pictures, and what is shared, come over HTTP."""

    def __init__(self, seed: int, root: Path, server: FaultyFolder) -> None:
        super().__init__(seed, root, f"{server.url}/original/{{{{id}}}}.jpg")
        self.shared = f"{server.url}/there"
        self._server = server
        self._settings |= {"source.attempts": "2", "source.connections": "2"}
        self._trains = seed % 8 == 7

    def by_recipe(self, command: str, *words: object, work: Path | None = None) -> list[object]:
        hurry = ("--set", f"source.timeout={PATIENCE}") if self._server.badness else ()
        return super().by_recipe(command, *words, *hurry, work=work)

    def risk(self, *words: object) -> None:
        super().risk(*words)
        self._server.badness = self._chance.choice([0, 0.2, 0.6])  # of the next one
        self.told.append(f"badness {self._server.badness}")

    def look_after(self) -> None:
        if self._chance.random() < 0.2:
            self.risk(*self.by_recipe("lock"))
        else:
            super().look_after()

    def mend(self) -> None:
        self._server.badness = 0.0
        if self._trains:
            self._settings["prepare.size"] = "64"
        super().mend()

    def end(self) -> None:
        super().end()
        self.check_fates(self._work)
        num_asked = self._server.num_asked.total()
        self.must(*self.by_recipe("fetch"))
        assert self._server.num_asked.total() == num_asked
        self.check_locked()
        if self._trains:
            self.check_training()

    def check_fates(self, work: Work) -> None:
        """Check that each post without an original met what its fate says."""
        usual = {"fetched/", "removed/takedown"}
        if "source.max_bytes" in self._settings:
            usual.add("rejected/too_many_bytes")
        for name in list_shards(work.raw_dir):
            for row in read_rows(rows_path(work.raw_dir, name), RAW).to_pylist():
                met = self._server.met[f"/original/{row['post_id']}.jpg"]
                assert f"{row['status']}/{row['reason']}" in usual | {FATES[x] for x in met}

    def check_locked(self) -> None:
        """Fetch again by the lock, of pictures that have changed meanwhile: it says which."""
        self.must(*self.by_recipe("lock"))
        locked, then = Work(self._root / "locked"), originals(self._work)
        self._server.met.clear()
        for post_id in self._chance.sample([*self._posts], self._chance.choice([0, 3])):
            self.put_picture(post_id, self._chance.choice([0, 130]))
        for _ in range(3):
            self.risk(*self.by_recipe("fetch", "--locked", work=locked.root))
        self._server.badness = 0.0
        self.do(*self.by_recipe("fetch", "--locked", "--retry-failed", work=locked.root))
        prepared = self.do(*self.by_recipe("prepare", work=locked.root))
        self.must("verify", locked.root)
        now = originals(locked)
        different = {post for post in then.keys() | now.keys() if then.get(post) != now.get(post)}
        assert said_to_differ(locked) == different
        checked = self.do(*self.by_recipe("lock", "--check", work=locked.root))
        assert prepared.exit_code == checked.exit_code == bool(different)
        self.check_fates(locked)
        self.check_against_afresh(locked, locked, "--locked")
        self.check_swept()

    def check_training(self) -> None:
        """Train from afar, and be killed at times: the model is that of a training from disk."""
        words = ["train", self._root / "recipe.toml", "--run", "one", "--device", "cpu", "--resume"]
        words += [word for setting in TRAIN for word in ("--set", f"train.{setting}")]
        for fault in ("kill", "kill", "full disk", "", "kill", ""):
            self._server.badness = 0.2 * bool(fault)
            self.begin(fault, *words, "--work", self._root / "afar", "--shards", self.shared)()
        self.begin("", *words, "--work", self._root / "again")()
        paths = (self._root / place / "runs/one/last.safetensors" for place in ("again", "afar"))
        here, afar = map(load_file, paths)
        assert here.keys() == afar.keys()
        assert all(torch.equal(here[name], afar[name]) for name in here)


def said_to_differ(work: Work) -> set[int]:
    """Return the posts whose originals are not as locked, by what a folder says of itself."""
    if not work.differences_path.exists():
        return set()
    with work.differences_path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row["post_id"]) for row in rows if row["what"] in ("changed", "gone", "new")}


@pytest.fixture
def server(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyFolder]:
    """Return a server of the test's folder; those that ask it wait no longer than they have to."""
    for wait in ("_MAX_BACKOFF", "_MAX_HOLD", "_MAX_OUTAGE"):
        monkeypatch.setattr(f"pipeline.web.pacing.{wait}", 0.01)
    monkeypatch.setattr("pipeline.web.pacing._MAX_FAILURES", 20)
    with FaultyFolder(tmp_path, request.getfixturevalue("seed")) as server:
        yield server


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("seed", seeds(2, 6, 16))
def test_a_server_with_bad_days_costs_no_more_than_it_denied(
    tmp_path: Path, seed: int, server: FaultyFolder
) -> None:
    WebStory(seed, tmp_path, server).live(12)
