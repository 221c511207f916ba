"""Every benchmark at its smallest: it ends well, and prints the figures that it promises.

Those that compare two sides end with an error where these did not do the same work.
"""

import importlib.util
import io
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import ablation, run_all
from benchmarks.bench_colorize import write_untrained
from benchmarks.bench_step import prepare_dolls
from benchmarks.many_samples import write_many

ROOT = Path(__file__).resolve().parent.parent

COPIED = "? s, # MB/s, ? s CPU, # of cp, # of cp and sync"
TOOK = "? s CPU, ? s, peak # MB"
RATE = "# samples/s, # ms of CPU a sample"


def bench(
    arguments: str,
    *promised: str,
    here: bool = False,
    needs: str = "",
    gpu: bool = False,
) -> Any:
    """Return a benchmark's command, whether to run it in this process, and what it is to print.

    In these lines # is a figure above zero and ? any figure; widths of columns do not matter.
    """
    is_there = not needs or importlib.util.find_spec(needs) is not None
    marks = [
        pytest.mark.skipif(not is_there, reason=f"needs {needs}"),
        pytest.mark.skipif(gpu and not torch.cuda.is_available(), reason="needs a GPU"),
    ]
    return pytest.param(arguments, here, promised, marks=marks, id=arguments)


BENCHMARKS = [
    bench(
        "ablation {work} --epochs 1 --only 'one shade a cell, its mean colour'",
        "| | following | chroma error | regional error | paper error | psnr |",
        "| one shade a cell, its mean colour | ? | # | # | # | # |",
        here=True,
    ),
    bench(
        "bench_colorize {checkpoint} --repeats 1 --threads {threads} --sides 64",
        "{checkpoint}, model's side 256 px, loaded in # s",
        "64 px: # / # / # ms a picture, # ms of CPU",
        here=True,
    ),
    bench(
        "bench_duplicates --hashes 100000 --planted 1000 --repeats 1",
        "seconds: ? / ? / ? (least, median, most)",
        "cpu_seconds: ? / ? / ? (least, median, most)",
        "peak memory: # MB, # MB before the search",
        "100000 hashes, 1000 planted, 0 of them missed",
        "# hashes with company",
    ),
    bench(
        "bench_fetch --pictures {pictures} --repeats 1 --alone",
        "132 pictures, # cores, 0 s before an answer",
        "ours # pictures/s, # CPU ms a picture, lost [6] [#]",
    ),
    bench(
        "bench_gpu {work} --models reference --variants fp32 --batch-size 8 --size small",
        "reference fp32 # samples/s, #% of bf16's ceiling, ?% waiting, l1 #, # GiB, # s with all",
        here=True,
        gpu=True,
    ),
    bench(
        "bench_loader {large} --repeats 1 --batches 8",
        f"ours {RATE} [#]",
        f"webdataset {RATE}; ours # times as fast, by CPU time # [#]",
    ),
    bench(
        "bench_lock --posts 300",
        "300 posts, # tags a post: # MB",
        "written in # s, read and checked in # s",
        "# tags.list.element",
    ),
    bench(
        "bench_prepare --pictures {pictures} --repeats 1 --workers 1",
        "CPU a picture: # / # / # ms",
        "wall a picture: # / # / # ms",
        "busy: #% of 1 cores, worker start-up included",
        "peak memory of the largest process: # MB",
    ),
    bench(
        "bench_ray --pictures {pictures} --repeats 1 --workers 2",
        "132 pictures, # shards, 2 workers, load ?",
        "local # pictures/s [#]",
        "ray # pictures/s [#]",
        "Ray has # times the local rate (median of the pairs)",
        needs="ray",
    ),
    bench(
        "bench_resume --samples 64 --repeats 1 --models reference",
        "64 samples: opened in # s, first batch # s later",
        "reference checkpoint of # MB: read and checked in # s, put back in ? s",
        here=True,
    ),
    bench(
        "bench_scale --shards 10 --posts 40 --planned 300 900",
        f"make the folder {TOOK}",
        "10 shards of 40 posts, plan of ? MB",
        f"status {TOOK}; 400 fates, adds up: True",
        f"a worker's first shard {TOOK}",
        f"near duplicates {TOOK}; # duplicates",
        "rows of raw: # bytes a post",
        "rows of samples: # bytes a post",
        "rows of ledger: # bytes a post",
        f"plan 300 posts {TOOK}",
        f"plan 900 posts {TOOK}",
    ),
    bench(
        "bench_selection --gb 0.02 --repeats 1",
        "# posts out of # MB, # cores",
        "DuckDB # MB/s, # CPU s a GB, peak memory # MiB [#]",
        "ours # MB/s, # CPU s a GB, peak memory # MiB [#]",
        "ours is # times as fast (median of 1 pairs)",
        "our peak memory for # MB: # MiB",
        needs="duckdb",
    ),
    bench(
        "bench_share --gigabytes 0.005 --repeats 1",
        "? GB, median of 1, # cores",
        *(f"{step} {COPIED}" for step in ("cp", "cp, sync", "push", "pull")),
    ),
    bench(
        "bench_step {few} --steps 4 --batch-size 2 --width 0.125 --models zhang2017",
        f"zhang2017 style features computed {RATE}, ?% waiting",
        f"zhang2017 style features kept {RATE}, ?% waiting",
        "zhang2017 kept features: # times as fast by CPU time",
        here=True,
    ),
    bench(
        "bench_stream {work} --repeats 1 --epochs 1",
        "# MB in shards, the cache holds 100% of it",
        "epoch 1: disk #, http # samples/s; # times the disk's rate, # by CPU time",
        here=True,
    ),
    bench(
        "bench_stream {work} --repeats 1 --epochs 1 --train",
        "epoch 1: disk #, http # samples/s; # times the disk's rate, # by CPU time "
        "waiting: ?% in disk, ?% in http",
        here=True,
    ),
    bench(
        "study_average_colour {few}/samples --steps 3 --only 'BatchNorm, on'",
        "probe, fc1: R^2 ? of the mean colour, spread over pictures # of the mean size",
        "probe, colours: R^2 ? of the mean colour, spread over pictures # of the mean size",
        "following highest chroma error PSNR",
        "BatchNorm, on the sketch, 4 x ? ? # #",
        "marks ? ? ? ? ? ? ? ?",
        here=True,
    ),
    bench(
        "study_full_size {checkpoint} {work} --pictures 1",
        "1 pictures, model's size 256 x 256 px",
        *(
            f"{who}, {how}: PSNR #, chroma error #, paper error ?"
            for who in ("the model", "a perfect model")
            for how in ("enlarged", "filled")
        ),
        here=True,
    ),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | int]:
    """Return what benchmarks are given: pictures, samples, a checkpoint, and threads as usual."""
    folder = tmp_path_factory.mktemp("benchmarks")
    write_many(folder / "large" / "samples", "train", 32, shard_size=32, size=256)
    for split, num_samples in (("train", 16), ("val", 8), ("test", 8)):
        write_many(folder / "few" / "samples", split, num_samples, shard_size=16, size=64)
    return {
        "few": folder / "few",
        "large": folder / "large",
        "work": prepare_dolls(folder, 36, 2),
        "pictures": folder / "mirror" / "512px",
        "checkpoint": write_untrained(folder / "a.safetensors", "reference", "small"),
        "threads": torch.get_num_threads(),
    }


def run_here(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """Run a benchmark in this process: most take less time than importing torch once more."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.setattr(sys, "argv", command[2:])
        patch.setattr(subprocess, "run", run_here)
        importlib.import_module(command[2]).main()
    return subprocess.CompletedProcess(command, 0, said.getvalue())


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "here", "promised"), BENCHMARKS)
def test_a_benchmark_prints_what_it_promises(
    arguments: str,
    here: bool,
    promised: tuple[str, ...],
    places: dict[str, Path | int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    name, *words = (word.format(**places) for word in shlex.split(arguments))
    run = run_here if here else subprocess.run
    done = run(
        [sys.executable, "-m", f"benchmarks.{name}", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    output: str = done.stdout
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for line in promised:
        pattern = re.escape(line.format(**places))
        pattern = pattern.replace(r"\#", r"(\d[\d.e+-]*)").replace(r"\?", r"\S+?")
        found = [match for match in map(re.compile(pattern).fullmatch, lines) if match]
        assert len(found) == 1, f"{line}\n{output}"
        assert all(float(figure) > 0 for figure in found[0].groups()), found[0].group()


def test_every_benchmark_is_run_here() -> None:
    scripts = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "__main__" in path.read_text(encoding="utf-8")
    }
    here = {shlex.split(str(case.values[0]))[0] for case in BENCHMARKS}
    assert here | {"loaders", "run_all"} == scripts  # the child of bench_loader, and what follows


def test_all_of_them_run_and_those_that_fail_are_named_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        ran.append(command[-1])
        return SimpleNamespace(returncode=int(command[-1].endswith(("gpu", "share"))))

    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(SystemExit, match=r"^failed: bench_gpu, bench_share$"):
        run_all.main()
    assert ran == [f"benchmarks.{p.stem}" for p in sorted(ROOT.glob("benchmarks/bench_*.py"))]


def test_what_the_ablation_takes_away_is_there() -> None:
    for constants in ablation.PARTS.values():
        with ablation.changed(constants):
            pass
    with pytest.raises(SystemExit, match="neither match nor reference has GONE"):
        ablation.changed({"GONE": 1}).__enter__()
