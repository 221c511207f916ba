"""push and pull of a local folder of 1 GB beside ``cp -r`` of the same files.

    python -m benchmarks.bench_share [--gigabytes 1.0] [--repeats 5]

Invented samples of 256 px sizes (25 KB of colour, 22 KB of sketch, incompressible) in shards of a
thousand; no originals. Each repeat copies, pushes and pulls into new folders, one after the other,
so that all three meet the same machine; before each the disk is synced. A ratio of 1 is as fast
as cp, which hashes nothing and syncs nothing.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.bench_lock import invent_posts
from benchmarks.bench_prepare import cpu_seconds
from benchmarks.source_folder import QUIET
from pipeline.planning.plan import hash_table, plan_posts, planned_shards, read_planned, write_plan
from pipeline.recipe import Recipe
from pipeline.recipe_shared import without_secrets
from pipeline.records import key_of
from pipeline.schema import SAMPLES, build_table
from pipeline.settings import to_table
from pipeline.shards.shard import ShardWriter
from pipeline.share.pull import pull
from pipeline.share.push import push
from pipeline.stages.prepare import add_sample
from pipeline.work import Work

COLOR_BYTES, SKETCH_BYTES = 25_000, 22_000


def make_work(root: Path, num_bytes: int) -> Work:
    """Write a plan and shards of invented samples; about ``num_bytes`` of tars."""
    work = Work(root)
    recipe = Recipe("bench")
    plan = plan_posts(islice(invent_posts(), num_bytes // 49_000), recipe.split)
    counts = {"planned": len(plan)}
    info = {"counts": counts, "num_records": len(plan), "content": hash_table(plan)}
    table = to_table(without_secrets(recipe))
    root.mkdir(parents=True)
    write_plan(work.plan_path, plan, info | {"recipe": table})
    noise = np.random.default_rng(1).bytes(2 * COLOR_BYTES + 4096)
    for name in planned_shards(work.plan_path):
        with ShardWriter(work.samples_dir, name) as shard:
            rows = [
                write_sample(row, noise, shard)
                for row in read_planned(work.plan_path, name).to_pylist()
            ]
            made = {"stage": "prepare", "fingerprint": "bench", "recipe": table}
            shard.commit(build_table(rows, SAMPLES), made)
    return work


def write_sample(row: dict[str, Any], noise: bytes, shard: ShardWriter) -> dict[str, Any]:
    start = row["post_id"] % 4096
    description = {"post_id": row["post_id"], "tags": row["tags"], "split": row["split"]}
    members = {
        "color": noise[start : start + COLOR_BYTES],
        "json": orjson.dumps(description),
        "sketch": noise[start + 7 : start + 7 + SKETCH_BYTES],
    }
    known = {name: row[name] for name in SAMPLES.names if name in row}
    placed = add_sample(key_of(row["post_id"]), members, shard)
    return known | placed | {"status": "kept", "source_sha256": placed["sha256"]}


@dataclass(frozen=True, slots=True)
class Spent:
    """What something took: seconds by the clock, and of processors, the system's work included."""

    wall: float
    cpu: float


def timed(do: Callable[[], object]) -> Spent:
    os.sync()
    started, before = time.perf_counter(), cpu_seconds()
    do()
    return Spent(time.perf_counter() - started, cpu_seconds() - before)


def repeat(work: Work, root: Path) -> dict[str, Spent]:
    """Copy, push and pull once, into new folders; return what each took."""
    copy, there, again = (root / name for name in ("copy", "there", "again"))

    def cp() -> None:
        subprocess.run(["cp", "-r", work.samples_dir, copy], check=True)

    def cp_and_sync() -> None:
        cp()
        os.sync()

    steps: dict[str, Callable[[], object]] = {
        "cp": cp,
        "cp, sync": cp_and_sync,
        "push": lambda: push(work, str(there), QUIET),
        "pull": lambda: pull(str(there), Work(again), QUIET),
    }
    spent = {}
    for name, step in steps.items():
        # On virtual machines memory that was just freed is faster than memory that never was used.
        cp()
        shutil.rmtree(copy)
        spent[name] = timed(step)
        shutil.rmtree(copy, ignore_errors=True)
    if tar_sizes(again / "samples") != tar_sizes(work.samples_dir):
        raise SystemExit("what was pulled is not what was pushed")
    shutil.rmtree(there)
    shutil.rmtree(again)
    return spent


def tar_sizes(samples_dir: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in samples_dir.glob("*.tar")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        work = make_work(root / "work", int(options.gigabytes * 1e9))
        size = sum(path.stat().st_size for path in work.samples_dir.iterdir())
        found = [repeat(work, root) for _ in range(options.repeats)]
    print(f"{size / 1e9:.2f} GB, median of {options.repeats}, {os.cpu_count()} cores")
    for name in found[0]:
        wall, cpu = (
            statistics.median(getattr(spent[name], what) for spent in found)
            for what in ("wall", "cpu")
        )
        ratios = [
            statistics.median(spent[peer].wall / spent[name].wall for spent in found)
            for peer in ("cp", "cp, sync")
        ]
        print(
            f"{name:10}{wall:6.2f} s, {size / 1e6 / wall:5.0f} MB/s, {cpu:.2f} s CPU, "
            f"{ratios[0]:.2f} of cp, {ratios[1]:.2f} of cp and sync"
        )


if __name__ == "__main__":
    main()
