"""What each part of `reference` is worth: the demo's run with that part alone taken away.

    python cli.py demo --work WORK
    python -m benchmarks.ablation WORK [--epochs 4] [--seeds 3] [--only ROW ...]

Every run trains on the demo's drawn characters and colours those of the test split, which it never
saw, after references of other characters; the true answers are known. The recipe as it is runs
under several seeds: what lies within their spread proves nothing.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from benchmarks.source_folder import QUIET
from model.config import TrainConfig, train_config
from model.evaluation.crossing import judge_crossing
from model.networks import match, reference
from model.training.train import train
from pipeline.dolls.data_set import doll_of, true_answer
from pipeline.pictures.image import resize
from pipeline.recipe_file import load_recipe

MEASURES = ("following", "chroma_error", "regional_error", "paper_error", "psnr")

SETTINGS: dict[str, dict[str, Any]] = {
    "with AdamW alone": {"muon_lr": 0.0},
    "without colour jitter": {"jitter": 0.0},
    "without hue-dependent jitter": {"bend": 0.0},
    "without warping the reference": {"warp": False},
    "without same-character pairs": {"pairs": 0.0},
    "without the chroma loss": {"chroma_weight": 0.0},
    "without contrast weights in the chroma loss": {"contrast": 0.0},
    "without the auxiliary loss on attended colours": {"beta": 0.0},
    "without reference dropout": {"drop_reference": 0.0},
    "with scale augmentation of the reference": {"reframe": 1.0},
    "with line augmentation": {"vary_lines": 0.5},
    "with horizontal flips": {"mirror": 0.5},
    "with a constant learning rate": {"schedule": "constant"},
    "with a patch discriminator": {"gan": "patch"},
}
"""What is taken away, or added, by settings of ``[train]``."""


class Blind(match.Found):
    """What was found, without a word on what it is worth."""

    def colors(self) -> Tensor:
        return torch.cat([self.shades, torch.zeros_like(self.trust)], dim=1)


def enlarge_smoothly(maps: Tensor, logits: Tensor) -> Tensor:
    """Mix bilinearly, whatever was learnt."""
    return F.interpolate(maps, logits.shape[-2:], mode="bilinear")


PARTS: dict[str, dict[str, Any]] = {
    "with higher initial temperature and distance penalty": {"SHARPNESS": 10.0, "NEARNESS": 8.0},
    "without the confidence channels of attention": {"Found": Blind},
    "without top-down features in the encoder": {
        "Encoder": lambda c, _, made=reference.Encoder: made(c, 1)
    },
    "bilinear instead of convex upsampling of colours": {"convex_upsample": enlarge_smoothly},
    "one shade a cell, its mean colour": {"SHADES": 1},
    "one shade a cell, and no colours within it": {"SHADES": 1, "DETAIL": 1},
    "eight shades a cell": {"SHADES": 8},
    "without opacity over white paper": {
        "OPACITY_BIAS": 30.0
    },  # the sigmoid is 1, and its gradient is 0
    "attention at 8 x 8 alone": {
        "PRESETS": {"small": reference.PRESETS["small"]._replace(num_matched=1)}
    },
    "attention at 32 x 32 as well": {
        "PRESETS": {"small": reference.PRESETS["small"]._replace(num_matched=3)}
    },
}
"""What is taken away, or added, by what ``match`` and ``reference`` have under these names."""


@contextmanager
def changed(constants: dict[str, Any]) -> Iterator[None]:
    """Put others into the network's modules for a while."""
    with ExitStack() as stack:
        if unknown := constants.keys() - vars(match).keys() - vars(reference).keys():
            raise SystemExit(f"neither match nor reference has {sorted(unknown)[0]}")
        for module in (match, reference):
            for name in constants.keys() & vars(module).keys():
                stack.enter_context(patch.object(module, name, constants[name]))
        yield


def measure(config: TrainConfig, samples_dir: Path, size: int) -> dict[str, float | None]:
    """Train, and colour characters of the test split after others."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        train(config, samples_dir, run_dir, console=QUIET)
        found = judge_crossing(
            run_dir / "best.safetensors",
            samples_dir,
            "test",
            lambda sketch, after: resize(true_answer(doll_of(sketch), doll_of(after)), size),
            Path(folder) / "sheet.png",
        )
    return found["model"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="ROW", help="of the table; all by default")
    options = parser.parse_args()
    recipe = load_recipe("dolls-64")
    config = train_config(recipe.train | {"epochs": options.epochs}, "dolls-64")
    variants: dict[str, tuple[TrainConfig, dict[str, Any]]] = {
        f"the recipe, seed {seed}": (dataclasses.replace(config, seed=seed), {})
        for seed in range(options.seeds)
    }
    variants |= {n: (dataclasses.replace(config, **s), {}) for n, s in SETTINGS.items()}
    variants |= {name: (config, constants) for name, constants in PARTS.items()}
    rows = options.only or list(variants)
    if unknown := [row for row in rows if row not in variants]:
        parser.error(f"--only {unknown[0]!r}: none of {', '.join(variants)}")
    print("| | " + " | ".join(name.replace("_", " ") for name in MEASURES) + " |", flush=True)
    print("|---" * (1 + len(MEASURES)) + "|", flush=True)
    for name in rows:
        settings, constants = variants[name]
        with changed(constants):
            found = measure(settings, options.work / "samples", recipe.prepare.size)
        figures = (f"{found[measure]:.3f}" for measure in MEASURES)
        print(f"| {name} | " + " | ".join(figures) + " |", flush=True)


if __name__ == "__main__":
    main()
