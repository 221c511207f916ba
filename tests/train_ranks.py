"""Trains small models for test_model_ranks.py: under torchrun, or alone.

python -m tests.train_ranks SAMPLES RUN MODEL NUM_STEPS
"""

import dataclasses
import sys
from pathlib import Path

from rich.console import Console

from model.training.train import train
from tests.model_checkpoints import CONFIG


def main() -> None:
    samples_dir, run_dir, model, num_steps = sys.argv[1:]
    config = dataclasses.replace(
        CONFIG, model=model, batch_size=3, lr=1e-4, log_every=1, ema=0.5, clip_norm=1.0
    )
    train(
        config,
        Path(samples_dir),
        Path(run_dir),
        resume=True,
        max_steps=int(num_steps),
        console=Console(quiet=True),
    )


if __name__ == "__main__":
    main()
