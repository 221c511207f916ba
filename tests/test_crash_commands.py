"""Real commands that are stopped, starved or killed, alone and in pairs, and then run again."""

import gc
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import run
from pipeline.counts import Fates
from pipeline.errors import UserError
from pipeline.executor import Stage, Tick
from pipeline.maintenance.verify import verify
from pipeline.work import Work
from tests.crashing import contents, fetch, find_lies, make_source, meet_fault, prepare, temporaries
from tests.real_commands import LIMIT, Gate, Source, finish, run_command, start


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("source")
    make_source(root, "http://127.0.0.1:1/original/{{id}}.jpg")
    work = Work(root / "undisturbed")
    with Gate(root, 1000) as gate:
        for command in (
            Source(root, {}).fetch(gate, work),
            Source(root, {}).command("prepare", work),
        ):
            run_command(command)
    return Source(root, contents(work))


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


def assert_mended(source: Source, work: Work, gate: Gate, num_workers: int = 1) -> None:
    """Run the same commands again; they have to make what an undisturbed run makes."""
    run_command(source.fetch(gate, work, num_workers))
    run_command(source.command("prepare", work))
    assert contents(work) == source.expected
    assert verify(work.root) == []
    assert temporaries(work) == []


def assert_group_is_gone(leader: int) -> None:
    deadline = threading.Event()
    for _ in range(1200):
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return
        deadline.wait(0.1)
    pytest.fail("processes of the command are still there")


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_stops_and_the_same_command_goes_on(
    source: Source, work: Work, tmp_path: Path, num_workers: int
) -> None:
    with Gate(source.root, num_free=3) as gate:
        process = start(source.fetch(gate, work, num_workers))
        assert gate.is_full.wait(LIMIT)
        os.killpg(process.pid, signal.SIGINT)
        code, said = finish(process)
        assert code == 130, said
        assert said.splitlines()[-1] == "stopped; the same command goes on from here."
        assert "Traceback" not in said
        assert_group_is_gone(process.pid)
        assert find_lies(work, tmp_path / "scratch") == []
        gate.open()
        assert_mended(source, work, gate, num_workers)


@pytest.mark.slow
def test_a_killed_command_takes_its_workers_along(
    source: Source, work: Work, tmp_path: Path
) -> None:
    with Gate(source.root, num_free=3) as gate:
        process = start(source.fetch(gate, work, 2))
        assert gate.is_full.wait(LIMIT)
        process.kill()
        finish(process)
        assert_group_is_gone(process.pid)
        assert find_lies(work, tmp_path / "scratch") == []
        gate.open()
        assert_mended(source, work, gate, 2)


@pytest.mark.slow
def test_a_second_run_on_a_folder_is_refused(source: Source, work: Work) -> None:
    with Gate(source.root, num_free=3) as gate:
        process = start(source.fetch(gate, work))
        assert gate.is_full.wait(LIMIT)
        for second in (source.fetch(gate, work), source.command("prepare", work)):
            code, said = finish(start(second))
            assert code == 2
            assert said == (
                f"error: {work.root}: another run is using this folder; wait until it has ended.\n"
            )
        gate.open()
        assert finish(process)[0] == 0
        assert_mended(source, work, gate)


@dataclass(frozen=True)
class Dying:
    """A stage whose first worker is killed instead of its ``number``-th operation on disk."""

    stage: Stage
    number: int
    directory: Path
    marker: Path

    def __call__(self, name: str, tick: Tick) -> Fates:
        try:
            self.marker.open("x").close()
        except FileExistsError:
            return self.stage(name, tick)
        meet_fault("kill", self.number, self.directory)
        fates = self.stage(name, tick)
        self.marker.with_suffix(".survived").touch()
        return fates


def die_once(monkeypatch: pytest.MonkeyPatch, work: Work, number: int, marker: Path) -> None:
    for name in ("FetchStage", "PrepareStage"):
        plain = getattr(run, name)

        def make(
            *args: object,
            plain: Callable[..., Stage] = plain,
            name: str = name,
            **options: object,
        ) -> Dying:
            stage = plain(*args, **options)
            return Dying(stage, number, work.root, marker.with_name(f"{name}.{number}"))

        monkeypatch.setattr(run, name, make)


def survivors(marker: Path) -> list[str]:
    return sorted(path.name for path in marker.parent.glob("*.survived"))


def run_both(source: Source, work: Work, num_workers: int = 1) -> None:
    for command in (fetch, prepare):
        summary = command(source.root, work, num_workers=num_workers)
        assert not summary.errors


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(n, marks=pytest.mark.soak if n % 5 != 2 else pytest.mark.slow)
        for n in range(1, 24)
    ],
)
def test_a_killed_worker_costs_nothing(
    local: Source, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    die_once(monkeypatch, work, number, tmp_path / "marker")
    run_both(local, work, num_workers=2)
    assert survivors(tmp_path / "marker") == []
    assert contents(work) == local.expected
    assert verify(work.root) == []
    assert temporaries(work) == []


@contextmanager
def small_disk(place: Path, num_bytes: int) -> Iterator[Callable[[int], None]]:
    """Mount a file system of so many bytes; yields what gives it another size."""

    def mount(*arguments: object) -> None:
        command = ["mount", "-t", "tmpfs", *map(str, arguments), str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")

    place.mkdir()
    mount("-o", f"size={num_bytes}", "none")
    try:
        yield lambda size: mount("-o", f"remount,size={size}", "none")
    finally:
        gc.collect()  # a writer that failed keeps its file open until then, on Python 3.13
        subprocess.run(["umount", str(place)], check=True)


def check_full_disk(local: Source, disk: Path, num_pages: int) -> bool:
    """Run on a disk of so many pages, then with room; return whether it was too small."""
    work = Work(disk / "work")
    with small_disk(disk, num_pages * resource.getpagesize()) as set_size:
        try:
            run_both(local, work)
            is_full = False
        except UserError as error:
            assert str(error) == (
                f"{work.root}: no space left on device; make room there and run the same command "
                "again."
            )
            is_full = True
        assert not work.root.exists() or find_lies(work, local.root / "scratch") == []
        set_size(2**24)
        run_both(local, work)
        assert contents(work) == local.expected
        assert verify(work.root) == []
        assert temporaries(work) == []
    disk.rmdir()
    return is_full


@pytest.mark.slow
def test_a_full_disk_stops_the_run_with_advice(local: Source, tmp_path: Path) -> None:
    sizes = (2, 9, 16, 23, 29, 200)
    found = [check_full_disk(local, tmp_path / "disk", num_pages) for num_pages in sizes]
    assert found == [True, True, True, True, True, False]


@pytest.mark.slow
def test_a_disk_may_be_full_at_any_page(local: Source, tmp_path: Path) -> None:
    num_pages = 1
    while check_full_disk(local, tmp_path / "disk", num_pages):
        num_pages += 1
    assert num_pages > 29


@pytest.mark.slow
def test_a_limit_on_files_is_a_full_disk_too(source: Source, work: Work) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    with Gate(source.root, num_free=1000) as gate:
        code, said = finish(start(source.fetch(gate, work), limit))
        assert code == 2, said
        advice = "file too large; make room there and run the same command again.\n"
        assert said == f"error: {work.root}: {advice}"
        assert_mended(source, work, gate)
