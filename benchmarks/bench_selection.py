"""Selection beside DuckDB on metadata in the 2020 schema: MB/s, CPU time and peak memory.

    python -m benchmarks.bench_selection [--gb 1] [--repeats 5]

Writes that many gigabytes of made-up JSON lines (2.7 KB each, white_background in one of a
hundred) to the temporary folder, and a tenth of that once more to see whether memory grows.
Each of the repeats runs both, one after the other, in a fresh process each; the time is that of
the query alone, without start and imports. DuckDB has two threads and reads the five columns that
decide; ours reads whole posts in one thread. Both must find the same ids. On a busy machine look
at the CPU time, all threads together. Needs ``pip install duckdb``.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import duckdb
import orjson

from pipeline.planning.selection import Selection
from pipeline.recipe import SelectSettings

SELECT = SelectSettings(tags=("white_background",))
QUERY = """
    SELECT id FROM read_json($path, format = 'newline_delimited', columns = {
        id: 'BIGINT', rating: 'VARCHAR', file_ext: 'VARCHAR',
        is_deleted: 'BOOLEAN', tags: 'STRUCT(name VARCHAR)[]'})
    WHERE rating = 's' AND NOT is_deleted AND file_ext IN ('jpg', 'jpeg', 'png', 'webp', 'avif')
        AND list_contains(list_transform(tags, lambda tag: tag.name), 'white_background')
"""

Select = Callable[[str], list[int]]


@dataclass(frozen=True)
class Run:
    ids: list[int]
    seconds: float
    cpu_seconds: float
    peak_mib: float


def select_with_ours(path: str) -> list[int]:
    return [post.id for post in Selection(path, SELECT)]


def select_with_duckdb(path: str) -> list[int]:
    with duckdb.connect(config={"threads": 2, "preserve_insertion_order": False}) as connection:
        connection.execute("SET enable_progress_bar = false")
        return [post_id for (post_id,) in connection.execute(QUERY, {"path": path}).fetchall()]


def measure(select: Select, path: str) -> Run:
    started, cpu_started = time.perf_counter(), time.process_time()
    ids = select(path)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Run(sorted(ids), seconds, cpu_seconds, peak_mib)


def measure_in_fresh_process(select: Select, path: Path) -> Run:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(measure, select, str(path)).result()


def draw_lines(random: Random, num_lines: int) -> list[bytes]:
    """Return records of the 2020 schema with @ for the id."""
    tags = [{"id": str(i), "name": f"tag_{i:05x}", "category": "0"} for i in range(9000)]
    lines = []
    for i in range(num_lines):
        tagged = random.sample(tags, 32)
        if i % 100 == 0:
            tagged.append({"id": "515193", "name": "white_background", "category": "0"})
        if i % 1000 == 1:
            tagged.append({"id": "1", "name": "white_background_removed", "category": "0"})
        record = {
            "id": "@",
            "created_at": "2016-02-23 12:11:10.98765 UTC",
            "uploader_id": str(random.randrange(600_000)),
            "score": str(random.randrange(90)),
            "source": f"https://example.org/art?mode=big&id={random.randrange(10**8)}",
            "md5": random.randbytes(16).hex(),
            "rating": random.choice("ssssqe"),
            "image_width": str(random.randrange(300, 4000)),
            "image_height": str(random.randrange(300, 4000)),
            "file_ext": random.choice(["jpg", "jpg", "png", "gif"]),
            "parent_id": "0",
            "file_size": str(random.randrange(10**7)),
            "is_deleted": random.random() < 0.05,
            "is_banned": False,
            "tags": tagged,
            "pools": [],
            "favs": [str(random.randrange(600_000)) for _ in range(45)],
        }
        line = orjson.dumps(record)
        # The dump's exporter wrote & in this way, in few of its lines.
        lines.append(line.replace(b"&", b"\\u0026") if random.random() < 0.1 else line)
    return lines


def write_metadata(path: Path, num_bytes: int) -> None:
    random = Random(0)
    lines = draw_lines(random, 4000)
    post_id = num_written = 0
    with path.open("wb") as file:
        while num_written < num_bytes:
            block = []
            for line in random.sample(lines, len(lines)):
                post_id += 1
                block.append(line.replace(b"@", b"%d" % post_id, 1))
            num_written += file.write(b"\n".join(block) + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small.json", Path(folder) / "large.json"
        write_metadata(small, int(options.gb * 1e8))
        write_metadata(large, int(options.gb * 1e9))
        few_megabytes, megabytes = (path.stat().st_size / 1e6 for path in (small, large))
        small_run = measure_in_fresh_process(select_with_ours, small)
        runs: dict[str, list[Run]] = {"DuckDB": [], "ours": []}
        for _ in range(options.repeats):
            runs["DuckDB"].append(measure_in_fresh_process(select_with_duckdb, large))
            runs["ours"].append(measure_in_fresh_process(select_with_ours, large))
            if runs["ours"][-1].ids != runs["DuckDB"][-1].ids:
                raise SystemExit("the two do not find the same posts")
    print(f"{len(runs['ours'][0].ids)} posts out of {megabytes:.0f} MB, {os.cpu_count()} cores")
    for name, of_one in runs.items():
        rates = [megabytes / run.seconds for run in of_one]
        cpu = statistics.median(run.cpu_seconds for run in of_one) / megabytes * 1e3
        peak = statistics.median(run.peak_mib for run in of_one)
        print(
            f"{name:6} {statistics.median(rates):5.0f} MB/s, {cpu:.2f} CPU s a GB, peak memory "
            f"{peak:.0f} MiB   {[round(rate) for rate in rates]}"
        )
    pairs = zip(*runs.values(), strict=True)
    ratio = statistics.median(theirs.seconds / ours.seconds for theirs, ours in pairs)
    print(f"ours is {ratio:.2f} times as fast (median of {options.repeats} pairs)")
    print(f"our peak memory for {few_megabytes:.0f} MB: {small_run.peak_mib:.0f} MiB")


if __name__ == "__main__":
    main()
