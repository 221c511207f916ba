"""Our loader beside webdataset, litdata and mosaicml-streaming: samples/s on the same pictures.

    python benchmarks/bench_loader.py [PICTURES] [--repeats 5] [--batches 120]
        [--peers-python PATH] [--own-decoders]

PICTURES is a folder in Danbooru2021's shape (``metadata/``, ``512px/0XXX/ID.jpg``), which is
prepared at 256 px, or a work folder that holds samples of that size; drawn dolls where it is left
out. The peers' own formats are written from the same bytes. Each repeat runs all loaders one after
the other, in a fresh process each, with two workers (threads in ours, processes in the peers) and
batches of 32; the ratio is the median of the repeats'. On a busy machine look at the CPU time a
sample: that of all processes together. ``--own-decoders``: see ``loaders.py``.

litdata and mosaicml-streaming want older libraries than this program's, hence an environment of
their own, without which they are left out:

    python -m venv .venv-peers
    .venv-peers/bin/pip install torch torchvision webdataset simplejpeg deflate \\
        opencv-python-headless litdata mosaicml-streaming
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from pipeline.dolls.data_set import write_dolls
from pipeline.recipe_file import load_recipe
from pipeline.run import fetch, prepare
from pipeline.work import Work

ROOT = Path(__file__).resolve().parent.parent


def write_samples(pictures: Path, folder: Path) -> None:
    """Prepare every picture of a mirror at 256 px into ``folder/samples``."""
    recipe = load_recipe(
        "portrait-256",
        [
            "select.tags=[]",
            "split.shard_size=256",
            f"source.metadata={pictures}/metadata",
            f"source.images={pictures}/512px/{{bucket}}/{{id}}.jpg",
            "source.rate=0",
        ],
    )
    work, console = Work(folder), Console(stderr=True)
    fetch(recipe, work, console, num_workers=2)
    prepare(recipe, work, console, num_workers=2)


def run_child(python: str, name: str, folder: Path, *options: str) -> str:
    command = [python, str(ROOT / "benchmarks" / "loaders.py"), name, str(folder), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return child.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, default=120)
    parser.add_argument("--peers-python", help="of the environment of litdata and mosaicml")
    parser.add_argument("--own-decoders", action="store_true")
    options = parser.parse_args()
    pythons = dict.fromkeys(("ours", "webdataset"), sys.executable)
    if options.peers_python:
        pythons |= dict.fromkeys(("litdata", "mosaicml"), options.peers_python)
    flags = ["--batches", str(options.batches)]
    flags += ["--own-decoders"] if options.own_decoders else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures = options.pictures
        if pictures is None:
            pictures = folder / "dolls"
            write_dolls(pictures, num_characters=256)
        if (pictures / "samples").is_dir():
            (folder / "work").mkdir()
            (folder / "work" / "samples").symlink_to((pictures / "samples").resolve())
        else:
            write_samples(pictures.resolve(), folder / "work")
        for name in pythons.keys() & {"litdata", "mosaicml"}:
            run_child(pythons[name], name, folder / "work", "--write")
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
        for _ in range(options.repeats):
            for name, python in pythons.items():
                output = run_child(python, name, folder / "work", *flags)
                runs[name].append(json.loads(output.splitlines()[-1]))
    for name, of_one in runs.items():
        rates = [run["rate"] for run in of_one]
        cpu = statistics.median(run["cpu_ms"] for run in of_one)
        line = f"{name:11} {statistics.median(rates):6.0f} samples/s, {cpu:.2f} ms of CPU a sample"
        if name != "ours":
            ratios = {
                key: statistics.median(
                    (a[key] / b[key]) ** sign for a, b in zip(runs["ours"], of_one, strict=True)
                )
                for key, sign in (("rate", 1), ("cpu_ms", -1))
            }
            line += f"; ours {ratios['rate']:.2f} times as fast, by CPU time {ratios['cpu_ms']:.2f}"
        print(line, [round(rate) for rate in rates])


if __name__ == "__main__":
    main()
