"""duplicates: seconds and peak memory to find the near duplicates among 3 million hashes.

    python -m benchmarks.bench_duplicates [--hashes 3000000] [--planted 30000] [--repeats 5]

Random 64-bit hashes, of which some are planted as another one with 0 to 4 bits flipped. The
search must find every one of these; what it found by chance besides is counted, too. Each repeat
is a process of its own, whose peak memory is given as a whole and without what it held before the
search.
"""

import argparse
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from pipeline.stages.duplicates import neighbours

MAX_BITS = 4  # the recipes' default


@dataclass(frozen=True, slots=True)
class Run:
    seconds: float
    cpu_seconds: float
    peak_mb: float
    before_mb: float
    num_missed: int
    num_with_company: int


def make_hashes(num: int, num_planted: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return hashes, shuffled, and pairs (N x 2) of which each must be found near the other."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, num - num_planted, dtype=np.uint64)
    copies = hashes[rng.choice(len(hashes), num_planted, replace=False)]
    bits = rng.permuted(np.tile(np.arange(64, dtype=np.uint64), (num_planted, 1)), axis=1)
    is_flipped = np.arange(MAX_BITS) < rng.integers(0, MAX_BITS + 1, (num_planted, 1))
    flips = np.where(is_flipped, np.uint64(1) << bits[:, :MAX_BITS], np.uint64(0))
    planted = copies ^ np.bitwise_or.reduce(flips, axis=1)
    pairs = np.stack([copies, planted], axis=1)
    return rng.permutation(np.concatenate([hashes, planted])), pairs


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def search(num: int, num_planted: int) -> Run:
    hashes, pairs = make_hashes(num, num_planted)
    before, cpu, started = peak_mb(), time.process_time(), time.perf_counter()
    near = neighbours(hashes, MAX_BITS)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    peak = peak_mb()
    missed = sum(other not in near.get(one, ()) for one, other in pairs.tolist())
    return Run(seconds, cpu_seconds, peak, before, missed, len(near))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hashes", type=int, default=3_000_000)
    parser.add_argument("--planted", type=int, default=30_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    runs = []
    for _ in range(options.repeats):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            runs.append(pool.submit(search, options.hashes, options.planted).result())
    for name in ("seconds", "cpu_seconds"):
        values = [getattr(run, name) for run in runs]
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name}: {low:.1f} / {middle:.1f} / {high:.1f} (least, median, most)")
    worst = max(runs, key=lambda run: run.peak_mb)
    print(f"peak memory: {worst.peak_mb:.0f} MB, {worst.before_mb:.0f} MB before the search")
    print(f"{options.hashes} hashes, {options.planted} planted, {worst.num_missed} of them missed")
    print(f"{worst.num_with_company} hashes with company")
    if any(run.num_missed for run in runs):
        raise SystemExit("planted duplicates were missed")


if __name__ == "__main__":
    main()
