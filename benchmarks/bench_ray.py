"""prepare on Ray beside the local executor: pictures a second with as many workers, start-up aside.

    python -m benchmarks.bench_ray [--pictures FOLDER] [--repeats 3] [--workers 2]

FOLDER holds pictures in the 512px layout of Danbooru2021; drawn dolls where none is given. Ray
runs on this machine, in a cluster that is started before. Each repeat prepares all pictures with
both, one after the other. The clock starts when every worker has finished a shard, for start and
imports of processes do not count, and stops with the last shard.
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.source_folder import QUIET, ensure_pictures, fetch_originals, records_of
from pipeline.commands.common import runner_of
from pipeline.counts import Fates
from pipeline.executor import Stage, Tick, run_stage
from pipeline.planning.plan import planned_shards
from pipeline.run import make_prepare_stage


@dataclass(frozen=True)
class Timed:
    """A stage that writes down when each shard was finished, and how many posts that had."""

    stage: Stage
    log: Path

    def __call__(self, name: str, tick: Tick) -> Fates:
        fates = self.stage(name, tick)
        with self.log.open("a") as log:
            log.write(f"{time.time()} {fates.total()}\n")
        return fates


def rate_of(log: Path, num_workers: int) -> float:
    """Return posts a second after every worker's first shard."""
    finished = sorted(tuple(map(float, line.split())) for line in log.read_text().splitlines())
    begun = finished[num_workers - 1][0]
    return sum(posts for _, posts in finished[num_workers:]) / (finished[-1][0] - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"local": [], "ray": []}
    # By default workers have niceness 15: behind all else that runs here.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    runner, _ = runner_of("ray", None, None)
    with tempfile.TemporaryDirectory() as folder:
        pictures = ensure_pictures(options.pictures, Path(folder) / "source").resolve()
        shard_size = max(1, len(records_of(pictures)) // 8)
        root = Path(folder) / "work"
        recipe, work = fetch_originals(pictures, root, shard_size, options.workers)
        planned = planned_shards(work.plan_path)
        stage = replace(make_prepare_stage(recipe, work, list(planned)), rebuild=True)
        for repeat in range(options.repeats):
            for name, chosen in (("local", None), ("ray", runner)):
                timed = Timed(stage, Path(folder) / f"{name}-{repeat}")
                summary = run_stage(timed, planned, options.workers, name, QUIET, chosen)
                assert not summary.errors, summary.errors
                assert summary.fates.total() == sum(planned.values()), summary.fates
                rates[name].append(rate_of(timed.log, options.workers))
    print(
        f"{sum(planned.values())} pictures, {len(planned)} shards, {options.workers} workers, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    for name, found in rates.items():
        print(f"{name:6} {statistics.median(found):6.0f} pictures/s   {[round(r) for r in found]}")
    ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
    print(f"Ray has {statistics.median(ratios):.2f} times the local rate (median of the pairs)")


if __name__ == "__main__":
    main()
