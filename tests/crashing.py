"""The data stages in forked children that meet a fault at a chosen operation on disk.

As a program, ``python -m tests.crashing SCENARIO FAULT ROOT FIRST STEP``, it lets a run meet the
fault at its FIRST-th, (FIRST + STEP)-th ... operation, looks at the disk, runs the same commands
again, and prints a line of JSON each time. ``kill,interrupt`` are two faults, each in its turn. The
first line has all operations of a run that meets none.
"""

import errno
import itertools
import json
import os
import pickle
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from pipeline import run
from pipeline.disk import hash_file
from pipeline.executor import Summary
from pipeline.hold import WHOLE, Part
from pipeline.maintenance.repair import repair
from pipeline.maintenance.takedown import take_down
from pipeline.maintenance.verify import verify
from pipeline.recipe_file import load_recipe
from pipeline.shards.shard import ShardWriter, list_shards
from pipeline.share.index import INDEX, read_index
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.work import Work
from tests.pictures import draw_picture, encoded

QUIET = Console(quiet=True)
NUM_POSTS = 6
Step = Callable[[Path, Work], object]
Notice = Callable[..., None]


def make_source(root: Path, images: str = "{root}/original/{{id}}.jpg") -> None:
    """Write a recipe, metadata and pictures to ``root``: six posts in two shards."""
    (root / "original").mkdir(parents=True)
    posts = []
    for post_id in range(1, NUM_POSTS + 1):
        tags = f"solo number_{post_id}"
        sides = {"image_width": 72, "image_height": 72}
        posts.append({"id": post_id, "rating": "s", "file_ext": "jpg", "tag_string": tags} | sides)
        original_path(root, post_id).write_bytes(encoded(draw_picture(post_id, 72, 72)))
    (root / "posts.json").write_text("\n".join(map(json.dumps, posts)))
    (root / "recipe.toml").write_text(
        f"""
        source.metadata = "{root}/posts.json"
        source.images = "{images.format(root=root)}"
        source.layout = "original"
        source.rate = 0
        prepare = {{size = 32, min_side = 16}}
        split = {{train = 0.5, val = 0.5, test = 0, shard_size = 4}}
        """
    )


def original_path(root: Path, post_id: int) -> Path:
    return root / "original" / f"{post_id}.jpg"


def fetch(root: Path, work: Work, **options: Any) -> Summary:
    return run.fetch(load_recipe(str(root / "recipe.toml")), work, QUIET, **options)


def prepare(
    root: Path,
    work: Work,
    num_workers: int = 1,
    store: str = "",
    part: Part = WHOLE,
    **settings: Any,
) -> Summary:
    recipe = load_recipe(str(root / "recipe.toml"))
    recipe = replace(recipe, prepare=replace(recipe.prepare, **settings))
    return run.prepare(recipe, work, QUIET, num_workers=num_workers, store=store, part=part)


def make_work(root: Path) -> Work:
    """Write a source to ``root``, fetch and prepare it; returns the work folder, ``root/work``."""
    make_source(root)
    work = Work(root / "work")
    _both(root, work)
    return work


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a folder has been through, and the commands that then meet a fault.

    A folder that ``is_damaged`` before may still be so after the fault; that is no lie.
    """

    before: Step
    commands: Step
    is_damaged: bool = False


def _both(root: Path, work: Work, **options: Any) -> None:
    fetch(root, work, **options)
    prepare(root, work)


def _plan_half(root: Path, work: Work) -> None:
    """Fetch half of the posts; then the source has these no more."""
    _both(root, work, limit=NUM_POSTS // 2)
    for post_id in range(1, 1 + NUM_POSTS // 2):
        original_path(root, post_id).unlink()


def _fail_once(root: Path, work: Work) -> None:
    """Fetch all posts but one, which cannot be read; then the source has that one only."""
    odd = original_path(root, 4)
    data = odd.read_bytes()
    odd.unlink()
    odd.mkdir()
    _both(root, work)
    shutil.rmtree(root / "original")
    odd.parent.mkdir()
    odd.write_bytes(data)


def _damage(root: Path, work: Work) -> None:
    """Finish a run; then damage the plan, both shards of originals, a ledger, and some samples."""
    _both(root, work)
    harmed = [work.plan_path, *sorted(work.raw_dir.glob("*.tar"))]
    harmed += [next(work.ledger_dir.iterdir()), *work.samples_dir.glob("train*")]
    for path in harmed:
        data = bytearray(path.read_bytes())
        data[len(data) // 5] ^= 1
        path.write_bytes(data)


def pushed(work: Work) -> Path:
    """Return where a folder is pushed to: beside it."""
    return work.root.with_name("there")


def _share(root: Path, work: Work) -> None:
    """Leave a shared data set beside the folder."""
    source = Work(root / "source")
    _both(root, source)
    push(source, str(root / "there"), QUIET)


SCENARIOS = {
    "from nothing": Scenario(lambda root, work: None, _both),
    "other settings": Scenario(_both, lambda root, work: prepare(root, work, size=48)),
    "another plan": Scenario(_plan_half, lambda root, work: _both(root, work, replan=True)),
    "retry": Scenario(_fail_once, lambda root, work: _both(root, work, retry_failed=True)),
    "push": Scenario(_both, lambda root, work: push(work, str(pushed(work)), QUIET)),
    "pull": Scenario(_share, lambda root, work: pull(str(root / "there"), work, QUIET)),
    "takedown": Scenario(_both, lambda root, work: take_down(work, [2, 5])),
    "repair": Scenario(_damage, lambda root, work: repair(work, QUIET), is_damaged=True),
}


def watch(directory: Path, notice: Notice) -> None:
    """Call ``notice(kind, path, ...)`` before all that this process does to files in a folder.

    Python's audit events tell of files that are opened for writing, renamed and removed. Writing
    and syncing have no events and are patched.
    """

    def tell(kind: str, *paths: object) -> None:
        if all(str(path).startswith(f"{directory}/") for path in paths):
            notice(kind, *map(str, paths))

    made: dict[str, object] = {}

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            tell("open", args[0])
        elif event == "os.rename":
            tell("rename", *args[:2])
        elif event in ("os.remove", "os.rmdir") and os.path.lexists(path := _locate(*args)):
            tell("remove", path)
        elif event == "os.mkdir" and not os.path.lexists(args[0]):
            mine = object()  # of threads that make the same folder one is told of, always
            if made.setdefault(str(args[0]), mine) is mine:
                tell("mkdir", args[0])

    sys.addaudithook(audit)
    _tell_before(os, "fsync", tell, _path_of)
    _tell_before(ShardWriter, "add", tell, lambda shard, *_: shard._file.name)
    _tell_before(pq.ParquetWriter, "write_table", tell, lambda writer, *_: writer.where)
    _tell_before(pq.ParquetWriter, "close", tell, lambda writer: writer.where)


def _tell_before(owner: Any, name: str, tell: Notice, locate: Callable[..., Any]) -> None:
    plain = getattr(owner, name)

    def told(*args: Any) -> Any:
        tell(name, locate(*args))
        return plain(*args)

    setattr(owner, name, told)


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _locate(path: Any, dir_fd: int = -1) -> str:
    return str(path) if dir_fd < 0 else f"{_path_of(dir_fd)}/{path}"


def meet_fault(fault: str, number: int, directory: Path) -> None:
    """Let this process meet a fault instead of its ``number``-th operation in ``directory``.

    A full disk stays full: what takes room fails from there on.
    """
    counter = itertools.count(1)  # which threads may share

    def notice(kind: str, *paths: str) -> None:
        count = next(counter)
        if count == number and fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if count == number and fault == "interrupt":
            raise KeyboardInterrupt
        takes_room = kind in ("open", "mkdir", "add", "write_table", "close")
        if fault == "full disk" and (count == number or (count > number and takes_room)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    watch(directory, notice)


def begin_child(function: Callable[[], Any]) -> Callable[[], Any]:
    """Run ``function`` in a forked child; return what waits for it, as ``in_child`` does."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writer, "wb") as file:
                pickle.dump(function(), file)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writer)

    def wait() -> Any:
        with os.fdopen(reader, "rb") as file:
            data = file.read()
        _, status = os.waitpid(child, 0)
        return status or pickle.loads(data)

    return wait


def in_child(function: Callable[[], Any]) -> Any:
    """Return what ``function`` returns in a forked child, or the status with which it ended."""
    return begin_child(function)()


def contents(work: Work) -> dict[str, bytes]:
    """Return all files that must not depend on what a run went through."""
    folders = (work.raw_dir, work.samples_dir, pushed(work))
    found: dict[str, bytes] = {}
    for folder in folders:
        paths = [path for path in folder.rglob("*") if path.is_file()]
        found |= {str(p.relative_to(folder.parent)): p.read_bytes() for p in paths}
    return found


def temporaries(work: Work) -> list[str]:
    folders = (work.root, pushed(work))
    return sorted(path.name for folder in folders for path in folder.rglob(".*.tmp"))


def find_lies(work: Work, scratch: Path) -> list[str]:
    """Return what is wrong with the shards that count as committed, whatever else lies there."""

    def uncommitted(directory: str, names: list[str]) -> set[str]:
        committed = list_shards(Path(directory))
        tars = {name for name in names if name.endswith(".tar") and name[:-4] not in committed}
        return tars | {name for name in names if name.endswith(".tmp")}

    there = pushed(work)
    if (there / INDEX).exists():
        index = read_index((there / INDEX).read_bytes(), INDEX)
        lies = [f.name for f in index.files if hash_file(there / f.name) != f.sha256]
        if lies:
            return lies
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(work.root, scratch, ignore=uncommitted)
    copy = Work(scratch)
    if copy.plan_path.is_file():
        return [
            str(problem)
            for problem in verify(scratch)
            if problem.path != copy.removals_path and not problem.is_stale
        ]
    return [f"{name} without a plan" for name in list_shards(copy.raw_dir)]


@dataclass(frozen=True, slots=True)
class Trial:
    """What one fault came to.

    Attributes:
        number: at which operation it came, from 1.
        operation: what that was.
        end: the error with which the run ended; for a kill its signal's number.
        left: temporaries that were there afterwards.
        lies: what was wrong with shards that counted as committed then.
        problems: what verify said after the same commands had run again.
        different: files that were then not those of an undisturbed run.
    """

    number: int
    operation: str
    end: str
    left: list[str]
    lies: list[str]
    problems: list[str]
    different: list[str]


class Trials:
    """One scenario, to meet a fault at any operation."""

    def __init__(self, scenario: Scenario, root: Path) -> None:
        self._commands = scenario.commands
        self._is_damaged = scenario.is_damaged
        self._root = root
        self._base = Work(root / "base" / "work")
        self._work = Work(root / "trial" / "work")

        def set_up() -> None:
            make_source(root)
            self._base.root.mkdir(parents=True)
            scenario.before(root, self._base)

        in_child(set_up)
        self.operations, self._expected = in_child(self._run_undisturbed)

    def _run_undisturbed(self) -> tuple[list[str], dict[str, bytes]]:
        shutil.copytree(self._base.root.parent, self._work.root.parent)
        operations: list[str] = []
        place = f"{self._work.root.parent}/"
        watch(
            self._work.root.parent,
            lambda *words: operations.append(" ".join(words).replace(place, "")),
        )
        self._commands(self._root, self._work)
        return operations, contents(self._work)

    def meet(self, fault: str, number: int) -> Trial:
        """Let a run meet a fault at its ``number``-th operation; look; run it again."""

        def run_into_it() -> str:
            meet_fault(fault, number, self._work.root.parent)
            try:
                self._commands(self._root, self._work)
            except BaseException as error:
                return f"{type(error).__name__}: {error}"
            return ""

        shutil.rmtree(self._work.root.parent)
        shutil.copytree(self._base.root.parent, self._work.root.parent)
        end = str(in_child(run_into_it))
        left = temporaries(self._work)
        found = in_child(self._look_and_run_again)
        return Trial(number, self.operations[number - 1], end, left, *found)

    def _look_and_run_again(self) -> tuple[list[str], list[str], list[str]]:
        lies = [] if self._is_damaged else find_lies(self._work, self._root / "scratch")
        self._commands(self._root, self._work)
        problems = [*map(str, verify(self._work.root)), *temporaries(self._work)]
        found = contents(self._work)
        names = sorted(found.keys() | self._expected.keys())
        return lies, problems, [n for n in names if found.get(n) != self._expected.get(n)]


def _sync_nothing(fd: Any) -> None:
    """Stand in for fsync, which would cost most of the time."""


def main(scenario: str, faults: str, root: Path, first: int, step: int) -> None:
    # What every child would import is imported once.
    pa.Table.from_pylist([{"a": 1}])
    for name in ("pyarrow.dataset", "fsspec.implementations.local"):
        import_module(name)
    os.fsync = _sync_nothing  # the dead lose nothing that they wrote, synced or not
    trials = Trials(SCENARIOS[scenario], root)
    print(json.dumps(trials.operations))
    for fault in faults.split(","):
        for number in range(first, len(trials.operations) + 1, step):
            trial = asdict(trials.meet(fault, number))
            print(json.dumps({"fault": fault, **trial}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:]))
