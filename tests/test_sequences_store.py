"""Sequences with S3, whose requests fail: to share in, or as the store of a folder's shards."""

import errno
import itertools
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs

from pipeline.stores import remote
from pipeline.work import Work
from tests.shard_stores import URL
from tests.stories import Story, seeds

REQUEST_FAULTS = ("killed request", "lost answer", "outage")


def meet_request(fault: str, number: int) -> None:
    """Let this process meet a fault at its ``number``-th request to S3, some after it was done.

    Args:
        fault: ``killed request``; ``lost answer``, after which it asks again; or ``outage``, which
            lasts longer than it waits.
        number: of the request.
    """
    plain, counter = s3fs.S3FileSystem._call_s3, itertools.count(1)

    async def call(files: Any, *words: Any, **options: Any) -> Any:
        count = next(counter)
        is_met = count >= number if fault == "outage" else count == number
        if not is_met:
            return await plain(files, *words, **options)
        if count % 2:
            await plain(files, *words, **options)
        if fault == "killed request":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    s3fs.S3FileSystem._call_s3 = call
    if fault == "outage":
        remote.PATIENCE = 0.0
    time.sleep = lambda seconds: None  # between two tries


class SharedStory(Story):
    """A story of a folder that is shared in S3, whose requests meet faults as well."""

    faults = ("", "", "kill", "full disk", *REQUEST_FAULTS)

    def __init__(self, seed: int, root: Path, files: "fsspec.AbstractFileSystem") -> None:
        super().__init__(seed, root)
        self._there = self.shared = URL
        self._files = files

    def meet_fault(self, fault: str, number: int) -> None:
        if fault in REQUEST_FAULTS:
            meet_request(fault, number)
        else:
            super().meet_fault(fault, number)

    def bring_shared(self) -> Path:
        copy = self._root / "copy"
        self._files.invalidate_cache()
        self._files.get(URL, str(copy), recursive=True)
        return copy

    def check_swept(self) -> None:
        super().check_swept()
        assert [*Path(tempfile.gettempdir()).iterdir()] == []


class StoreStory(SharedStory):
    """A story whose shards lie in S3; the metadata stay, for a store holds one plan only."""

    settings = ("prepare.size=32", "prepare.size=48", "prepare.near_duplicates=-1")
    changes = ("picture", "setting")

    def steps(self) -> list[Callable[[], None]]:
        return [*super().steps() * 2, self.lose_folder]

    def by_recipe(self, command: str, *words: object, work: Path | None = None) -> list[object]:
        store = ("--store", URL) if work is None else ()
        return super().by_recipe(command, *words, *store, work=work)

    def make(self) -> None:
        commands = [["fetch"], ["fetch", "--retry-failed"]]
        commands += [["prepare"]] * 3 * self._work.plan_path.exists()
        self.risk(*self.by_recipe(*self._chance.choice(commands)))

    def look_after(self) -> None:
        work, post_id = self._work.root, self._chance.choice([*self._posts])
        commands: list[list[object]] = [["push", work, URL], ["pull", URL, self._root / "far"]]
        commands += [["takedown", work, post_id, "--store", URL]] * 2
        self.risk(*self._chance.choice(commands))

    def damage(self) -> None:
        """Damage a shard's file; of a plan nothing is read before it is put anew."""
        paths = [x for x in self._files.find(URL) if re.search(r"(raw|ledger|samples)/", x)]
        for path in self._chance.sample(paths, min(1, len(paths))):
            self.told.append(f"damage {path}")
            data = bytearray(self._files.cat_file(path))
            data[self._chance.randrange(len(data))] ^= 1
            if self._chance.random() < 0.5:
                self._files.pipe_file(path, bytes(data))
            else:
                self._files.rm_file(path)

    def lose_folder(self) -> None:
        self.told.append("lose the folder")
        shutil.rmtree(self._work.root, ignore_errors=True)

    def mend(self) -> None:
        """Prepare anew, which looks at every original, and do what is said until all is well."""
        self._settings["prepare.size"] = "40"
        work, again = self._work.root, self._root / "again"
        for _ in range(12):
            start = len(self.told)
            commands = [self.by_recipe("fetch", "--retry-failed"), self.by_recipe("prepare")]
            commands += [["push", work, URL], ["pull", URL, again], ["verify", again]]
            if all(self.do(*words).exit_code == 0 for words in commands):
                return
            self.follow("\n".join(self.told[start:]))

    def follow(self, said: str) -> None:
        """Do what commands say."""
        self._files.invalidate_cache()
        if "a takedown was cut short" in said:
            said += self.do("takedown", self._work.root, "--store", URL).output
        if "still knows them. Remove it" in said:
            shutil.rmtree(self._work.root)
        wrong = re.findall(r"(s3\S+): damaged, or not the rows of .*Remove it there", said)
        wrong += re.findall(r"damaged; its bytes .*Remove (s3\S+),", said)
        wrong += re.findall(r"^(s3\S+): is not what its index says", said, re.M)
        for url in wrong:
            if self._files.exists(url):
                self._files.rm_file(url)

    def end(self) -> None:
        self.mend()
        again = Work(self._root / "again")
        self.must("status", self._work.root)
        self.must("verify", again.root)
        copy = Work(self.bring_shared())
        self.check_against_afresh(copy, again)
        self.check_taken_down(self._work.root, copy.root, again.root)
        self.check_swept()


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced", "scratch_dir")
@pytest.mark.parametrize("kind", [SharedStory, StoreStory])
@pytest.mark.parametrize("seed", seeds(1, 3, 12))
def test_s3_whose_requests_fail_ends_with_the_samples_of_one_run(
    tmp_path: Path, kind: type[SharedStory], seed: int, s3: "fsspec.AbstractFileSystem"
) -> None:
    kind(seed, tmp_path, s3).live(12)
