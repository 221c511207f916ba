"""How long a resumed run takes to be where it was: its samples' place, and its checkpoint.

    python -m benchmarks.bench_resume [--samples 25000] [--repeats 5] [--models NAME ...]

The samples are a few dolls at 64 px over and over, in shards of 1,024: the time to open them
and to have the first batch from the middle of the third epoch. Checkpoints: full width, as a run
keeps them (weights, optimisers, random states), read, checked against their hash, and put back.
Median of the repeats, wall time; the system's cache is warm, as after a crash of the process alone.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.many_samples import write_many
from model.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from model.config import MODELS, TrainConfig, train_config
from model.data.epochs import iterate_steps
from model.data.samples import Samples
from model.networks.style import Provenance
from model.ranks import Ranks
from model.training.state import TrainState

CPU = torch.device("cpu")
SHARD_SIZE = 1024


def time_samples(samples_dir: Path, num_repeats: int) -> tuple[float, float]:
    """Return seconds to open the samples, and from there to the first batch amid an epoch."""
    config = TrainConfig()
    opened, first = [], []
    for _ in range(num_repeats):
        start = time.perf_counter()
        with Samples(samples_dir, "train") as samples:
            opened.append(time.perf_counter() - start)
            position = len(samples) // 2 // config.batch_size * config.batch_size
            steps = iterate_steps(samples, config, Ranks(), 2, position, pin=False)
            next(steps)
            first.append(time.perf_counter() - start - opened[-1])
            steps.close()
    return statistics.median(opened), statistics.median(first)


def time_checkpoint(path: Path, config: TrainConfig, num_repeats: int) -> tuple[float, float]:
    """Return seconds to read and check a run's last checkpoint, and to put it back."""
    state = TrainState.build(config, CPU)
    for optimizer in state.optimizers.values():  # one step, so that they have their moments
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    style = Provenance("none", "none", 0, "")
    info = CheckpointInfo(config.model_config(), config, (64, 64), style, "", 1, 0, 0)
    save_checkpoint(path, state.tensors(), info)
    read, put_back = [], []
    for _ in range(num_repeats):
        start = time.perf_counter()
        tensors, info = load_checkpoint(path)
        read.append(time.perf_counter() - start)
        state.restore(tensors, info)
        put_back.append(time.perf_counter() - start - read[-1])
    return statistics.median(read), statistics.median(put_back)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=25_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_many(folder / "samples", "train", options.samples, SHARD_SIZE, 64)
        opened, first = time_samples(folder / "samples", options.repeats)
        print(
            f"{options.samples} samples: opened in {opened:.3f} s, first batch {first:.3f} s later"
        )
        for model in options.models:
            path = folder / f"{model}.safetensors"
            read, put_back = time_checkpoint(
                path, train_config({"model": model}, "benchmark"), options.repeats
            )
            size = path.stat().st_size / 1e6
            print(
                f"{model:10} checkpoint of {size:6.0f} MB: read and checked in {read:.2f} s, "
                f"put back in {put_back:.2f} s",
                flush=True,
            )
            path.unlink()


if __name__ == "__main__":
    main()
