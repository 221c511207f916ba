"""Who may work on a folder beside whom: a table of pairs, each in processes of its own."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.hold import WHOLE, Part, hold, is_held
from pipeline.work import Work

ROOT = Path(__file__).resolve().parent.parent
HOLDER = """
import sys
from pathlib import Path
from pipeline.hold import Part, hold
root, rank, world_size, lets_in = Path(sys.argv[1]), *map(int, sys.argv[2:])
with hold(root, Part(rank, world_size), print) as entry:
    if lets_in:
        entry.let_others_in()
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(root: Path, part: Part, lets_in: bool = True) -> Iterator["subprocess.Popen[str]"]:
    """Let another process hold a folder, until its standard input is closed."""
    words = [str(root), str(part.rank), str(part.world_size), str(int(lets_in))]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_that_cannot_be_written_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock, which earlier runs left there, may still be a file that can."""
    with hold(tmp_path, WHOLE, print):
        pass

    def refuse(**options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pipeline.disk.TemporaryFile", refuse)
    for part in (WHOLE, Part(0, 2)):
        with (
            pytest.raises(UserError, match=f"^{tmp_path}: cannot be written: Permission denied.$"),
            hold(tmp_path, part, print),
        ):
            pass


@pytest.mark.parametrize(
    ("there", "comes", "why_not"),
    [
        (WHOLE, WHOLE, "another run is using this folder; wait until it has ended"),
        (WHOLE, Part(0, 3), "another run is using this folder; wait until it has ended"),
        (Part(0, 3), WHOLE, "rank 0 of 3 is using this folder; wait until all have ended"),
        (Part(1, 3), Part(1, 3), "rank 1 of 3 is using this folder already"),
        (Part(0, 3), Part(0, 2), "rank 0 of 3 is using this folder; rank 0 of 2 must wait"),
        (Part(0, 3), Part(1, 2), "rank 0 of 3 is using this folder; rank 1 of 2 must wait"),
    ],
    ids=str,
)
def test_who_may_not_work_beside_whom(
    tmp_path: Path, there: Part, comes: Part, why_not: str
) -> None:
    with (
        held(tmp_path, there),
        pytest.raises(UserError, match=why_not),
        hold(tmp_path, comes, print),
    ):
        pass
    with hold(tmp_path, comes, print) as entry:  # a killed one holds nothing
        assert not entry.has_peers


@pytest.mark.parametrize("part", [WHOLE, Part(1, 3)], ids=str)
def test_a_folder_is_held_while_a_run_is_at_work_there(part: Part, tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with held(tmp_path, part):
        assert is_held(tmp_path)
    assert (tmp_path / ".lock").exists()
    assert not is_held(tmp_path)  # nor is it by what a killed one leaves there


@pytest.mark.parametrize("part", [WHOLE, Part(1, 3)], ids=str)
@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_run_whose_folder_was_moved_meanwhile_says_so(
    part: Part, is_made_again: bool, tmp_path: Path
) -> None:
    root = tmp_path / "work"
    with (
        pytest.raises(UserError, match="work: was moved or removed meanwhile; run the same"),
        hold(root, part, print),
    ):
        root.rename(tmp_path / "moved")
        if is_made_again:  # by what it writes
            root.mkdir()


def test_a_run_comes_in_while_somebody_asks_whether_one_is_there(tmp_path: Path) -> None:
    with hold(tmp_path, WHOLE, print):
        pass
    with (tmp_path / ".lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        asking = threading.Timer(0.05, lambda: fcntl.flock(lock, fcntl.LOCK_UN))
        asking.start()
        with hold(tmp_path, WHOLE, print):
            pass
        asking.join()


def test_ranks_work_side_by_side_and_know_it(tmp_path: Path) -> None:
    with held(tmp_path, Part(0, 3)), hold(tmp_path, Part(2, 3), print) as entry:
        assert entry.has_peers
        entry.let_others_in()
        with held(tmp_path, Part(1, 3)):
            pass


def test_a_whole_run_clears_the_locks_of_ranks_that_are_gone(tmp_path: Path) -> None:
    for rank in range(3):
        with hold(tmp_path, Part(rank, 3), print):
            pass
    assert len(list(tmp_path.glob(".lock.rank-*"))) == 1  # of the last: the others cleared theirs
    with hold(tmp_path, WHOLE, print):
        assert list(tmp_path.glob(".lock.rank-*")) == []


def test_a_rank_waits_for_another_that_makes_the_plan_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    with held(tmp_path, Part(0, 3), lets_in=False) as planning:

        def say(text: str) -> None:
            said.append(text)
            planning.kill()  # which ends its wait as well

        with hold(tmp_path, Part(1, 3), say) as entry:
            assert not entry.has_peers
    assert said == ["rank 1 of 3: waiting for another rank, which does what is done once for all"]


def test_a_whole_run_does_not_wait_for_a_rank_that_makes_the_plan(tmp_path: Path) -> None:
    with (
        held(tmp_path, Part(0, 3), lets_in=False),
        pytest.raises(UserError, match="a rank is coming"),
        hold(tmp_path, WHOLE, print),
    ):
        pass


def test_shards_are_dealt_in_turn() -> None:
    planned = {f"train-{i:06d}": 10 + i for i in range(7)}
    parts = [Part(rank, 3).choose(planned) for rank in range(3)]
    assert [len(part) for part in parts] == [3, 2, 2]
    assert {name: size for part in parts for name, size in part.items()} == planned
    assert WHOLE.choose(planned) == planned
    assert Part(9, 10).choose(planned) == {}


@pytest.mark.parametrize(("rank", "world_size"), [(3, 3), (-1, 3), (0, 0)])
def test_a_rank_that_is_none_is_wrong_use(rank: int, world_size: int) -> None:
    with pytest.raises(UserError, match="the ranks of N are 0 to N - 1"):
        Part(rank, world_size)


def test_a_rank_clears_up_its_own_shards_only(tmp_path: Path) -> None:
    work = Work(tmp_path)
    names = [f"train-{i:06d}" for i in range(4)]
    places = [work.raw_dir, work.samples_dir, work.ledger_dir]
    temporaries = {
        name: [
            *(place / f".{name}.parquet.tmp" for place in places),
            *(place / f".{name}.tar.tmp" for place in places[:2]),
        ]
        for name in names
    }
    for place in places:
        place.mkdir()
    for path in chain(*temporaries.values()):
        path.touch()
    with work.lock(Part(1, 2)) as run:
        chosen = run.begin(dict.fromkeys(names, 1))
        assert list(chosen) == names[1::2]
        for name in names:
            assert [path.exists() for path in temporaries[name]] == [name not in chosen] * 5
        for name in names:
            for path in temporaries[name]:
                path.touch()
    for name in names:
        assert [path.exists() for path in temporaries[name]] == [name not in chosen] * 5
    with work.lock():
        assert not [path for path in chain(*temporaries.values()) if path.exists()]
