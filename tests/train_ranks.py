"""Trains small models for test_model_ranks.py: in a test, or as a program under torchrun.

python -m tests.train_ranks SAMPLES RUN MODEL NUM_STEPS ACCUMULATE

In the names of folders {rank} stands for the number of the process.
"""

import dataclasses
import os
import sys
from pathlib import Path

from rich.console import Console

from model.training.train import train
from tests.model_checkpoints import CONFIG
from tests.stand_ins import shrink_style_networks


def train_small(
    samples_dir: Path, run_dir: Path, model: str, num_steps: int, accumulate: int = 1
) -> None:
    config = dataclasses.replace(
        CONFIG, model=model, batch_size=3, lr=1e-4, log_every=1, ema=0.5, clip_norm=1.0
    )
    if model == "reference":
        config = dataclasses.replace(config, gan="none", accumulate=accumulate)
    quiet = Console(quiet=True)
    train(config, samples_dir, run_dir, resume=True, max_steps=num_steps, console=quiet)


def main() -> None:
    *folders, model, num_steps, accumulate = sys.argv[1:]
    samples_dir, run_dir = (Path(f.replace("{rank}", os.environ["RANK"])) for f in folders)
    shrink_style_networks()
    train_small(samples_dir, run_dir, model, int(num_steps), int(accumulate))


if __name__ == "__main__":
    main()
