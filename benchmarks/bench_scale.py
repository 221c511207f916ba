"""What grows with the number of pictures: seconds and memory on a work folder of many shards.

    python -m benchmarks.bench_scale [--shards 10000] [--posts 380] [--planned 300000 900000]

The folder is made up. The posts of its plan are one shard's, over and over; rows of originals have
ids, hashes and thumbnails of their own, and one post in 33 looks like another; rows of samples and
ledgers are links to one shard's; tars are empty. 10,000 shards of 380 posts are Danbooru's 3.8
million safe posts. At the end so many posts are planned. Each step runs in a process of its own, so
that its peak of memory is its own.
"""

import argparse
import hashlib
import multiprocessing
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.bench_lock import invent_posts, with_url
from pipeline.counts import count_fates
from pipeline.maintenance.status import read_status
from pipeline.planning.plan import hash_table, plan_posts, planned_shards, read_planned, write_plan
from pipeline.recipe import PrepareSettings, Recipe, SplitSettings
from pipeline.schema import LEDGER, MEMBERS, RAW, SAMPLES, SELECTION, SPLITS, build_table
from pipeline.settings import to_table
from pipeline.shards.rows import write_rows
from pipeline.shards.shard import parse_shard_name, rows_path, shard_name, tar_path
from pipeline.stages.duplicates import find_duplicates
from pipeline.stages.ledger import write_ledger
from pipeline.work import Work

_LOOKALIKE = 33  # one post in so many looks like the one whose id is one less


def make_folder(work: Work, num_shards: int, num_posts: int) -> None:
    """Write a plan of so many shards of so many posts, and what all stages made of them."""
    posts = map(with_url, islice(invent_posts(), num_posts))
    plan = plan_posts(posts, SplitSettings(shard_size=10**6)).combine_chunks()
    counts = [num_shards - 2 * (num_shards // 10), num_shards // 10, num_shards // 10]
    names = [
        shard_name(split, i) for split, num in zip(SPLITS, counts, strict=True) for i in range(num)
    ]
    info = {
        "shards": [(name, num_posts) for name in names],
        "counts": {"planned": num_shards * num_posts},
        "num_records": num_shards * num_posts,
        "recipe": to_table(Recipe(name="bench")),
    }
    plan = plan.sort_by("post_id")
    write_rows(work.plan_path, (_of_shard(plan, name) for name in names), info)
    raw, samples, ledger = invent_rows(plan)
    write_rows(rows_path(work.samples_dir, "one"), [samples], record(samples))
    write_ledger(work.ledger_dir, "one", ledger)
    for directory in (work.samples_dir, work.ledger_dir):
        one = rows_path(directory, "one")
        for name in names:
            os.link(one, rows_path(directory, name))
        one.unlink()
    for place, name in enumerate(names):
        ids = place + num_shards * np.arange(num_posts)
        write_rows(rows_path(work.raw_dir, name), [with_looks(raw, ids)], record(raw))
        for directory in (work.raw_dir, work.samples_dir):
            tar_path(directory, name).touch()


def _of_shard(plan: pa.Table, name: str) -> pa.Table:
    """Return planned posts as those of a shard."""
    split, number = parse_shard_name(name)
    for column, value in (("split", split), ("shard", number)):
        field = SELECTION.field(column)
        values = pa.array([value] * len(plan)).cast(field.type)
        plan = plan.set_column(SELECTION.get_field_index(column), field, values)
    return plan


def record(rows: pa.Table) -> dict[str, Any]:
    """Return a commit record as ``shard.ShardWriter`` writes it."""
    fates = dict(count_fates(rows))
    return {"fingerprint": "f" * 32, "settings": {}, "tar_size": 10**8, "fates": fates}


def with_looks(raw: pa.Table, ids: NDArray[np.int64]) -> pa.Table:
    """Return rows of originals with other ids, and what these look like."""
    shown = (ids - (ids % _LOOKALIKE == 0)).astype(np.uint64)
    words = hash_numbers(shown[:, None] * np.uint64(26) + np.arange(26, dtype=np.uint64))
    columns = {
        "post_id": ids,
        "family": ids,
        "perceptual_hash": words[:, 0],
        "pixel_hash": words[:, 1],
        "thumbnail": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(192), len(ids), [None, pa.py_buffer(words[:, 2:].tobytes())]
        ),
    }
    for name, column in columns.items():
        index = RAW.get_field_index(name)
        raw = raw.set_column(index, RAW.field(index), pa.array(column, RAW.field(index).type))
    return raw


def hash_numbers(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return splitmix64 of numbers: every bit as good as random."""
    h = numbers * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(h ^ (h >> np.uint64(31)))


def invent_rows(plan: pa.Table) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Return the rows of originals, of samples, and the ledger of a shard."""
    rng = np.random.default_rng(0)
    raw, samples, ledger = [], [], []
    for place, post in enumerate(plan.drop_columns(["shard", "file_url"]).to_pylist()):
        digest = hashlib.sha256(str(place).encode()).hexdigest()
        size = int(rng.integers(20_000, 80_000))
        found = {"key": f"{post['post_id']:09d}", "sha256": digest, "file_width": 512}
        found |= {"file_height": 512, "perceptual_hash": 0}
        fetched = {"status": "fetched", "offset": place << 16, "size": size, "format": "jpeg"}
        fetched |= {"http_status": 200, "pixel_hash": 0, "thumbnail": bytes(192)}
        fetched |= {"content_width": 512, "content_height": 384}
        raw.append(post | found | fetched)
        is_kept = place % _LOOKALIKE > 0
        fate = {"status": "kept"} if is_kept else {"status": "duplicate", "reason": "near"}
        places = [f"{member}_{what}" for member in MEMBERS for what in ("offset", "size")]
        spans = dict.fromkeys(places, size) if is_kept else {}
        samples.append(post | found | fate | spans | {"source_sha256": digest})
        asked = {"post_id": post["post_id"], "status": "fetched", "reason": ""}
        asked |= {"http_status": 200, "attempts": 1, "num_bytes": size, "seconds": 0.5}
        ledger.append(asked | {"asked_at": datetime.now(UTC)})
    return build_table(raw, RAW), build_table(samples, SAMPLES), build_table(ledger, LEDGER)


def measure(what: str, function: Callable[..., object], *args: object) -> None:
    """Print what a call takes, in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(
        target=_measure, args=(what, function, *args)
    )
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{what}: failed")


def _measure(what: str, function: Callable[..., object], *args: object) -> None:
    seen: list[float] = []
    threading.Thread(target=_watch_memory, args=(seen,), daemon=True).start()
    started, cpu = time.perf_counter(), time.process_time()
    found = function(*args)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    seen.append(_memory_mb())  # of a step that was over before it was looked at
    took = f"{cpu:7.2f} s CPU, {seconds:7.2f} s, peak {max(seen):.0f} MB"
    print(f"{what:24} {took}{found or ''}", flush=True)


def _watch_memory(seen: list[float]) -> None:
    while True:
        seen.append(_memory_mb())
        time.sleep(0.02)


def _memory_mb() -> float:
    """Return this process's memory, without pages of files: the system takes these back."""
    (line,) = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 1024


def plan_many(path: Path, num_posts: int) -> None:
    """Plan so many posts and write that down, as `fetch` does once it has selected them."""
    few = [with_url(post) for post in islice(invent_posts(), 300)]
    posts = (replace(few[i % len(few)], id=i + 1) for i in range(num_posts))
    table = plan_posts(posts, SplitSettings())
    write_plan(path, table, {"content": hash_table(table)})


def show_status(work: Work) -> str:
    status = read_status(work)
    return f"; {status.stages['prepare'].fates.total()} fates, adds up: {status.adds_up}"


def read_last(work: Work) -> None:
    """Do what a worker does before its first shard: find it in the plan."""
    read_planned(work.plan_path, next(reversed(planned_shards(work.plan_path))))


def count_duplicates(work: Work) -> str:
    settings = PrepareSettings()
    names = list(planned_shards(work.plan_path))
    found = find_duplicates(work.raw_dir, names, settings.near_duplicates, settings.min_side)
    return f"; {len(found)} duplicates"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--posts", type=int, default=380)
    parser.add_argument("--planned", type=int, nargs="+", default=(300_000, 900_000))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder) / "work")
        measure("make the folder", make_folder, work, options.shards, options.posts)
        size = work.plan_path.stat().st_size / 1e6
        print(f"{options.shards} shards of {options.posts} posts, plan of {size:.0f} MB")
        measure("status", show_status, work)
        measure("a worker's first shard", read_last, work)
        measure("near duplicates", count_duplicates, work)
        name = next(iter(planned_shards(work.plan_path)))
        for directory in (work.raw_dir, work.samples_dir, work.ledger_dir):
            size = rows_path(directory, name).stat().st_size / options.posts
            print(f"rows of {directory.name}: {size:.0f} bytes a post")
        for num_posts in options.planned:
            measure(f"plan {num_posts} posts", plan_many, Path(folder) / "plan", num_posts)


if __name__ == "__main__":
    main()
