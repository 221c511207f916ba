"""A training step of each model on this machine: samples/s, waiting for data, kept style features.

    python -m benchmarks.bench_step [WORK] [--steps 12] [--batch-size 16] [--models NAME ...]
        [--precision fp32] [--width 1.0] [--set train.KEY=VALUE ...]

WORK is a work folder with samples; dolls drawn and prepared at 64 px where it is left out. Each
line is the real training loop in a process of its own: its first three steps are not counted. The
article's models are measured with their style features computed in every step and read from the
file that an earlier run filled (``train.cache_style``). On a busy machine look at the CPU time a
sample, that of all threads together, and at ratios; the share spent waiting for data is of the
wall time, in which the samples are decoded by two threads beside the step.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from model.config import MODELS, PRECISIONS, TrainConfig, train_config
from pipeline.dolls.data_set import write_dolls
from pipeline.recipe_file import load_recipe
from pipeline.run import fetch, prepare
from pipeline.settings import apply_overrides
from pipeline.work import Work

ROOT = Path(__file__).resolve().parent.parent
NUM_WARM_UP = 3


def prepare_dolls(folder: Path, num_characters: int = 96, num_poses: int = 8) -> Path:
    """Draw dolls and prepare them at 64 px; return the work folder."""
    write_dolls(folder / "mirror", num_characters, num_poses)
    images = f"{folder}/mirror/512px/{{bucket}}/{{id}}.jpg"
    settings = [f"source.metadata={folder}/mirror/metadata", f"source.images={images}"]
    recipe = load_recipe("dolls-64", settings)
    work, console = Work(folder / "work"), Console(stderr=True)
    fetch(recipe, work, console)
    prepare(recipe, work, console)
    return work.root


def measure(config: TrainConfig, samples_dir: Path, num_steps: int) -> dict[str, float]:
    """Train for some steps and return samples/s, CPU seconds a sample, and the share of waiting."""
    from model.training.journal import Journal
    from model.training.train import train

    marks: list[tuple[float, float, float]] = []
    record = Journal.record

    def noting(self: Journal, step: int, *rest: Any) -> None:
        record(self, step, *rest)
        marks.append((time.perf_counter(), time.process_time(), rest[-1]))

    with tempfile.TemporaryDirectory() as folder:
        Journal.record = noting  # type: ignore[assignment, method-assign]
        try:
            quiet = Console(quiet=True)
            train(config, samples_dir, Path(folder), max_steps=num_steps, console=quiet)
        finally:
            Journal.record = record  # type: ignore[method-assign]
    measured = marks[NUM_WARM_UP:]
    start, end = marks[NUM_WARM_UP - 1], marks[-1]
    num_samples = len(measured) * config.batch_size
    return {
        "rate": num_samples / (end[0] - start[0]),
        "cpu": (end[1] - start[1]) / num_samples,
        "wait": sum(mark[2] for mark in measured) / (end[0] - start[0]),
    }


def run_child(work: Path, model: str, cached: bool, options: argparse.Namespace) -> dict[str, Any]:
    arguments = [str(work), "--steps", str(options.steps), "--batch-size", str(options.batch_size)]
    arguments += ["--precision", options.precision, "--width", str(options.width)]
    arguments += [part for override in options.overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "benchmarks.bench_step", *arguments, "--child", model]
    command += ["--cached"] if cached else []
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--width", type=float, default=1.0, help="as train.width_multiplier")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], help="any other setting of train"
    )
    parser.add_argument("--child", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument("--cached", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps <= NUM_WARM_UP:
        parser.error(f"--steps {options.steps}: the first {NUM_WARM_UP} are not counted")
    if options.child:
        defaults = {
            "model": options.child,
            "width_multiplier": options.width,
            "batch_size": options.batch_size,
            "style_weights": "random",
            "cache_style": options.cached,
            "precision": options.precision,
            "validations_per_epoch": 1,
            "epochs": 1000,
            "device": "cpu",
        }
        tables = apply_overrides({"train": defaults}, options.overrides)
        config = train_config(tables["train"], "benchmark")
        for _ in range(1 + options.cached):  # the first one fills the file
            found = measure(config, options.work / "samples", options.steps)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or prepare_dolls(Path(folder))
        for model in options.models:
            has_network = model != "reference"
            runs = [
                run_child(work, model, cached, options)
                for cached in (False, True)[: 1 + has_network]
            ]
            for run, how in zip(runs, ("computed", "kept"), strict=False):
                style = f"style features {how}" if has_network else "no style network"
                print(
                    f"{model:10} {style:24} {run['rate']:6.1f} samples/s, "
                    f"{run['cpu'] * 1e3:6.1f} ms of CPU a sample, {run['wait']:.2%} waiting",
                    flush=True,
                )
            if has_network:
                ratio = runs[0]["cpu"] / runs[1]["cpu"]
                print(
                    f"{model:10} kept features: {ratio:.2f} times as fast by CPU time", flush=True
                )


if __name__ == "__main__":
    main()
