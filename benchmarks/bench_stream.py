"""Training from afar beside training from disk: samples/s of the loader, epoch by epoch.

    python -m benchmarks.bench_stream [PICTURES] [--repeats 5] [--epochs 3] [--cache-share 1.0]
        [--train]

PICTURES is a folder in Danbooru2021's shape, prepared here at 256 px, or a work folder with samples
of its own pictures; drawn dolls where it is left out. The data set is pushed to a folder, which a
web server of its own process serves on loopback. Each repeat reads all epochs from disk, then from
the server into an empty cache, in a fresh process each, with two decoding threads and batches of
32; the ratios are the medians of the repeats'. Without ``--train`` only the loader is measured, as
fast as it goes: whoever trains a model asks for less. With it a small ``reference`` is trained, its
validations left out, and the share of the time spent waiting for samples is shown as well. The time
to open the samples counts for the first epoch. From afar the samples have to be the same, by their
ids, or with ``--train`` by the loss at the end of an epoch. Server, download, decoding and training
share this machine's cores; on a busy one look at the CPU time, which leaves the server's out, and
at waiting.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.bench_loader import write_samples
from model.config import TrainConfig, train_config
from model.data.epochs import iterate_steps
from model.data.samples import Samples
from model.data.shards import LocalShards, Shards
from model.ranks import Ranks
from model.training.train import train
from pipeline.dolls.data_set import write_dolls
from pipeline.shards.arrow import leave_pandas_out
from pipeline.share.push import push
from pipeline.share.stream import RemoteShards
from pipeline.work import Work

ROOT = Path(__file__).resolve().parent.parent
SERVER = """
import sys
from aiohttp import web
app = web.Application()
app.router.add_static("/", sys.argv[1])
web.run_app(app, host="127.0.0.1", port=0, print=lambda text: print(text, flush=True))
"""


@contextmanager
def serve(directory: Path) -> Iterator[str]:
    """Serve a folder, with ranges, from a process of its own."""
    command = [sys.executable, "-c", SERVER, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            (url,) = (word for word in server.stdout.readline().split() if "http" in word)
            yield url
        finally:
            server.terminate()


def read_epochs(place: str, cache: Path, budget: int, num_epochs: int) -> list[dict[str, Any]]:
    """Return samples/s, CPU milliseconds a sample and the ids of each epoch of loading alone."""
    config = TrainConfig(epochs=num_epochs)
    found: list[dict[str, Any]] = []
    ids: list[int] = []
    wall, cpu = time.perf_counter(), time.process_time()
    shards = open_shards(place, cache, budget)
    with Samples(shards, "train") as samples, closing(shards):
        num_samples = len(samples) // config.batch_size * config.batch_size
        for _, position, batch, _ in iterate_steps(samples, config, Ranks(), 0, 0, pin=False):
            ids += batch.post_ids.tolist()
            if position == num_samples:
                seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
                rate = num_samples / seconds
                cpu_ms = cpu_seconds / num_samples * 1e3
                found.append({"rate": rate, "cpu_ms": cpu_ms, "same": ids})
                ids = []
                wall, cpu = time.perf_counter(), time.process_time()
    return found


def train_epochs(place: str, cache: Path, budget: int, num_epochs: int) -> list[dict[str, Any]]:
    """Return samples/s and waiting of each epoch of a training, by its log; CPU is that of all."""
    table = {"model": "reference", "width_multiplier": 0.25, "epochs": num_epochs, "log_every": 1}
    table |= {"validations_per_epoch": 1, "num_chroma": 1, "num_following": 2, "device": "cpu"}
    config = train_config(table, "benchmark")
    quiet, cpu = Console(quiet=True), time.process_time()
    opening = time.perf_counter()
    shards = open_shards(place, cache, budget)
    with closing(shards):
        seconds = [time.perf_counter() - opening, *[0.0] * (num_epochs - 1)]
        waited, losses = list(seconds), [0.0] * num_epochs
        result = train(config, shards, cache / "run", console=quiet)
    cpu = (time.process_time() - cpu) / (result.step * config.batch_size)
    for line in map(json.loads, (cache / "run" / "log.jsonl").read_text().splitlines()):
        if line["kind"] == "train":
            step = config.batch_size / line["samples_per_second"]
            seconds[line["epoch"]] += step
            waited[line["epoch"]] += step * line["data_wait"]
            losses[line["epoch"]] = line["l1"]
    num_samples = result.step * config.batch_size / num_epochs
    return [
        {"rate": num_samples / s, "cpu_ms": cpu * 1e3, "wait": w / s, "same": loss}
        for s, w, loss in zip(seconds, waited, losses, strict=True)
    ]


def open_shards(place: str, cache: Path, budget: int) -> Shards:
    is_remote = place.startswith("http")
    return RemoteShards(place, cache, budget) if is_remote else LocalShards(Path(place))


def run_child(place: str, budget: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.bench_stream", place, "--child", str(budget)]
    command += ["--epochs", str(options.epochs), *(["--train"] if options.train else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, check=True
    )
    found: list[dict[str, Any]] = json.loads(child.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="?")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--cache-share", type=float, default=1.0, help="of the data set's size")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        leave_pandas_out()  # as the commands do
        with tempfile.TemporaryDirectory() as cache:
            measure = train_epochs if options.train else read_epochs
            found = measure(options.pictures, Path(cache), options.child, options.epochs)
            print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures = Path(options.pictures) if options.pictures else folder / "dolls"
        if not options.pictures:
            write_dolls(pictures, num_characters=256)
        root = pictures.resolve()
        if not (root / "samples").is_dir():
            write_samples(root, folder / "work")
            root = folder / "work"
        push(Work(root), str(folder / "there"), Console(stderr=True))
        size = sum(path.stat().st_size for path in (folder / "there/samples").glob("*.tar"))
        runs: dict[str, list[list[dict[str, Any]]]] = {"disk": [], "http": []}
        with serve(folder / "there") as url:
            for _ in range(options.repeats):
                for name, place in (("disk", str(root / "samples")), ("http", url)):
                    budget = int(size * options.cache_share)
                    runs[name].append(run_child(place, budget, options))
    print(f"{size / 1e6:.1f} MB in shards, the cache holds {options.cache_share:.0%} of it")
    for epoch in range(options.epochs):
        pairs = [(a[epoch], b[epoch]) for a, b in zip(runs["disk"], runs["http"], strict=True)]
        if any(a["same"] != b["same"] for a, b in pairs):
            raise SystemExit(f"epoch {epoch + 1}: the samples from afar are not those on disk")
        disk, http = (statistics.median(pair[i]["rate"] for pair in pairs) for i in (0, 1))
        rate = statistics.median(b["rate"] / a["rate"] for a, b in pairs)
        cpu = statistics.median(a["cpu_ms"] / b["cpu_ms"] for a, b in pairs)
        waits = [
            f"{statistics.median(side[epoch]['wait'] for side in runs[name]):.2%} in {name}"
            for name in (runs if options.train else ())
        ]
        print(
            f"epoch {epoch + 1}: disk {disk:.0f}, http {http:.0f} samples/s; "
            f"{rate:.2f} times the disk's rate, {cpu:.2f} by CPU time",
            f"waiting: {', '.join(waits)}" if waits else "",
        )


if __name__ == "__main__":
    main()
