"""How the tests of evaluation judge: a few samples, on the CPU, without a word."""

from rich.console import Console

from model.config import EvalConfig

CONFIG = EvalConfig(batch_size=3, num_sketches=3, num_references=2, num_grid=2, device="cpu")
QUIET = Console(quiet=True)
