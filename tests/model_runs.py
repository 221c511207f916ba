"""Short runs on small samples, and what their logs say."""

from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from model.config import TrainConfig
from model.training.train import TrainResult, train
from tests.model_checkpoints import CONFIG

QUIET = Console(quiet=True)


def run(
    samples_dir: Path, run_dir: Path, config: TrainConfig = CONFIG, **options: Any
) -> TrainResult:
    return train(config, samples_dir, run_dir, console=QUIET, **options)


def log_of(run_dir: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (run_dir / "log.jsonl").read_bytes().splitlines()]


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    times = ("samples_per_second", "data_wait")
    return [{k: v for k, v in line.items() if k not in times} for line in lines]
