"""fetch + prepare beside img2dataset, from one loopback server: pictures a second, and losses.

    python -m benchmarks.bench_fetch [--pictures FOLDER] [--repeats 5] [--delay 0] [--alone]

img2dataset 1.47.0 gets an environment of its own in ``data/bench``, for its pins clash with ours.
FOLDER holds pictures in Danbooru2021's 512px layout; drawn dolls are taken where none is given.
Each repeat runs both, one after the other, as whole commands on an empty folder: ours with two
workers through ``fetch`` and ``prepare`` (crop, near duplicates, sketch, sums and fsync included),
img2dataset with 2 processes of 16 threads, which downloads, resizes with a border, and writes.
``--delay`` makes the server wait so many seconds before each answer. ``--alone`` leaves
img2dataset out, which has to be installed from a package index.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.source_folder import ensure_pictures, records_of
from pipeline.schema import RAW
from pipeline.shards.shard import list_shards, read_shard
from pipeline.work import Work

ROOT = Path(__file__).resolve().parent.parent
RECIPE = """
[select]
tags = ["white_background"]
[source]
rate = 0
connections = 32
[split]
shard_size = 1000
"""


@dataclass(frozen=True)
class Run:
    seconds: float
    cpu_seconds: float
    num_there: int


class _SlowHandler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    delay = 0.0

    def do_GET(self) -> None:
        time.sleep(self.delay)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def install_img2dataset(folder: Path) -> Path:
    """Return the program of img2dataset, in an environment of its own."""
    program = folder / "bin" / "img2dataset"
    if not program.is_file():
        venv.create(folder, clear=True, with_pip=True)
        # It needs pkg_resources, which setuptools 82 no longer brings.
        packages = ["img2dataset==1.47.0", "setuptools<82"]
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *packages], check=True)
    return program


def serve(directory: str, delay: float, pipe: Connection) -> None:
    """Serve a folder until the process is ended; tells its port first."""
    _SlowHandler.delay = delay
    handler = partial(_SlowHandler, directory=directory)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        pipe.send(server.server_address[1])
        server.serve_forever()


def timed(commands: list[list[str]]) -> tuple[float, float]:
    """Run commands one after the other; return seconds and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    for command in commands:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu


def run_ours(url: str, folder: Path, metadata: Path) -> Run:
    work = folder / "ours"
    recipe = folder / "bench.toml"
    recipe.write_text(RECIPE)
    program = [sys.executable, str(ROOT / "cli.py")]
    common = [str(recipe), "--work", str(work), "--workers", "2"]
    images = f"{url}/{{bucket}}/{{id}}.jpg"
    commands = [
        [*program, "fetch", *common, "--metadata", str(metadata), "--images", images],
        [*program, "prepare", *common],
    ]
    seconds, cpu = timed(commands)
    raw_dir = Work(work).raw_dir
    tables = [read_shard(raw_dir, name, RAW)[0] for name in list_shards(raw_dir)]
    fetched = sum(table["status"].to_pylist().count("fetched") for table in tables)
    shutil.rmtree(work)
    return Run(seconds, cpu, fetched)


def run_img2dataset(program: Path, url: str, folder: Path, pictures: Path) -> Run:
    urls = folder / "urls.txt"
    names = (path.relative_to(pictures) for path in sorted(pictures.glob("*/*.jpg")))
    urls.write_text("".join(f"{url}/{name}\n" for name in names))
    out = folder / "theirs"
    flags = {
        "url_list": urls,
        "output_folder": out,
        "processes_count": 2,
        "thread_count": 16,
        "resize_mode": "border",
        "image_size": 256,
        "output_format": "webdataset",
        "number_sample_per_shard": 1000,
        "enable_wandb": False,
    }
    seconds, cpu = timed([[str(program), *(f"--{name}={value}" for name, value in flags.items())]])
    found = [json.loads(path.read_text()) for path in out.glob("*_stats.json")]
    shutil.rmtree(out)
    return Run(seconds, cpu, sum(stats["successes"] for stats in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    program = (
        None if options.alone else install_img2dataset(ROOT / "data" / "bench" / "img2dataset")
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = ensure_pictures(options.pictures, folder / "source").resolve()
        metadata = folder / "posts.json"
        records = records_of(pictures)
        metadata.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        num_pictures = len(records)
        mine, theirs = multiprocessing.Pipe()
        arguments = (str(pictures), options.delay, theirs)
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=arguments, daemon=True
        )
        server.start()
        runs: dict[str, list[Run]] = {"img2dataset": [], "ours": []} if program else {"ours": []}
        try:
            url = f"http://127.0.0.1:{mine.recv()}"
            for _ in range(options.repeats):
                if program:
                    peer = run_img2dataset(program, url, folder, pictures)
                    runs["img2dataset"].append(peer)
                runs["ours"].append(run_ours(url, folder, metadata))
        finally:
            server.terminate()
            server.join()
    print(f"{num_pictures} pictures, {os.cpu_count()} cores, {options.delay:g} s before an answer")
    for name, of_one in runs.items():
        rates = sorted(num_pictures / run.seconds for run in of_one)
        cpu = statistics.median(run.cpu_seconds for run in of_one) / num_pictures * 1e3
        lost = [num_pictures - run.num_there for run in of_one]
        print(
            f"{name:12} {statistics.median(rates):5.0f} pictures/s, {cpu:.2f} CPU ms a picture, "
            f"lost {lost}   {[round(rate) for rate in rates]}"
        )
    if program is None:
        return
    ratios = [a.seconds / b.seconds for a, b in zip(*runs.values(), strict=True)]
    print(f"ours is {statistics.median(ratios):.2f} times as fast (median of the pairs)")


if __name__ == "__main__":
    main()
