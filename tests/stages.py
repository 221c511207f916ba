"""A stage that keeps everything, or misbehaves where a test says so."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

from rich.console import Console

from pipeline.counts import Fates
from pipeline.errors import UserError
from pipeline.executor import Tick

QUIET = Console(quiet=True)


class Keep:
    """Keeps everything; misbehaves on the shards that a test names."""

    def __init__(self, folder: Path, **odd: str) -> None:
        self.folder = folder
        self.odd = odd

    def __call__(self, name: str, tick: Tick) -> Fates:
        tick(3)
        kind = self.odd.get(name.replace("-", "_"), "")
        if kind == "raise":
            raise ValueError("broken shard")
        if kind == "stop":
            raise UserError("the whole run is wrong")
        if kind == "lose":
            return Counter({"kept": 2})
        if kind == "slow":
            time.sleep(2)
        once = self.folder / name
        if kind == "die" or (kind == "die_once" and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Counter({"kept": 2, "blank/flat": 1})


SIZES = {f"train-{i:06d}": 3 for i in range(5)}
