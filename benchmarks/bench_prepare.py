"""prepare: CPU milliseconds a picture, share of the cores that is busy, and memory a worker.

    python -m benchmarks.bench_prepare [--pictures FOLDER] [--repeats 5] [--workers 2]

FOLDER holds pictures in Danbooru2021's 512px layout (``0XXX/ID.jpg``); drawn dolls are taken where
none is given. Each repeat prepares all of them anew from raw shards into 256 px samples, sketch
and sums included.
"""

import argparse
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.source_folder import QUIET, ensure_pictures, fetch_originals
from pipeline.run import prepare


def cpu_seconds() -> float:
    own, workers = (resource.getrusage(who) for who in (0, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures = ensure_pictures(options.pictures, Path(folder) / "source")
        recipe, work = fetch_originals(pictures, Path(folder) / "work", 256, options.workers)
        cpu, wall = [], []
        for _ in range(options.repeats):
            shutil.rmtree(work.samples_dir, ignore_errors=True)
            before, started = cpu_seconds(), time.perf_counter()
            summary = prepare(recipe, work, QUIET, num_workers=options.workers)
            cpu.append((cpu_seconds() - before) / summary.fates.total() * 1e3)
            wall.append((time.perf_counter() - started) / summary.fates.total() * 1e3)
        print(dict(summary.fates), f"{options.workers} workers")
    busy = statistics.median(c / w / options.workers for c, w in zip(cpu, wall, strict=True))
    print(f"CPU a picture: {min(cpu):.2f} / {statistics.median(cpu):.2f} / {max(cpu):.2f} ms")
    print(f"wall a picture: {min(wall):.2f} / {statistics.median(wall):.2f} / {max(wall):.2f} ms")
    print(f"busy: {busy:.0%} of {options.workers} cores, worker start-up included")
    peak = max(resource.getrusage(who).ru_maxrss for who in (0, resource.RUSAGE_CHILDREN))
    print(f"peak memory of the largest process: {peak / 1024:.0f} MB")


if __name__ == "__main__":
    main()
