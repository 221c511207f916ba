"""Settings that do nothing in a run are named; what does something is not."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from model.config import MODELS, TrainConfig, train_config
from model.training.idle import idle_settings
from model.training.train import train
from pipeline.console import PlainConsole
from pipeline.recipe_file import load_recipe, recipe_names
from tests.model_checkpoints import CONFIG
from tests.model_runs import log_of, run
from tests.model_samples import write_samples

pytestmark = pytest.mark.usefixtures("small_style_networks")

REFERENCE = {"model": "reference", "gan": "none"}
CASES: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "size": ({"gan": "none"}, "base", REFERENCE),
    "style_seed": (REFERENCE, 3, {"model": "zhang2017"}),
    "patch_weight": ({"gan": "none"}, 0.5, {"gan": "patch"}),
    "feature_weight": ({"gan": "acgan"}, 0.5, {"gan": "patch"}),
    "alpha": (REFERENCE, 0.5, {"model": "zhang2017"}),
    "beta": ({"model": "batchnorm"}, 0.5, {"model": "zhang2017"}),
    "chroma_weight": ({"l1_weight": 0.0}, 2.0, {"l1_weight": 1.0}),
    "contrast": ({"gan": "none"}, 3.0, {"chroma_weight": 1.0}),
    "bend": ({"gan": "none", "warp": True}, 1.0, {"jitter": 1.0}),
    "reframe": ({"gan": "none", "jitter": 0.5}, 1.0, {"warp": True}),
}
"""By setting: where it does nothing, a value, and what has to be set for that to do something."""


def first_terms(samples_dir: Path, run_dir: Path, config: TrainConfig) -> dict[str, float]:
    run(samples_dir, run_dir, config, max_steps=1)
    (line,) = log_of(run_dir)
    return {k: v for k, v in line.items() if k not in ("samples_per_second", "data_wait")}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_setting_that_is_said_to_do_nothing_does_nothing(
    name: str, samples_dir: Path, tmp_path: Path
) -> None:
    base, value, needed = CASES[name]
    idle = dataclasses.replace(CONFIG, **base)
    busy = dataclasses.replace(idle, **needed)
    found = []
    for i, config in enumerate((idle, busy)):
        changed = dataclasses.replace(config, **{name: value})
        found += [
            first_terms(samples_dir, tmp_path / f"{i}-{n}", c)
            for n, c in enumerate((config, changed))
        ]
        said = [text for text in idle_settings(changed) if text.startswith(f"train.{name}=")]
        assert len(said) == (config is idle)
    assert found[0] == found[1]
    assert found[2] != found[3]


def test_train_says_which_settings_do_nothing(
    samples_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(CONFIG, size="base", contrast=3.0)
    train(config, samples_dir, tmp_path, max_steps=1, console=PlainConsole(stderr=False))
    said = [line for line in capsys.readouterr().out.splitlines() if "does nothing" in line]
    assert said == [
        "train.size=base does nothing here: it needs the model reference.",
        "train.contrast=3.0 does nothing here: it needs train.chroma_weight above 0.",
    ]


def test_pairs_do_nothing_where_no_two_samples_show_one_character(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(CONFIG, gan="none", pairs=1.0, warp=True)
    found = []
    for characters in ((), ("a", "b")):
        samples_dir = write_samples(tmp_path / f"of{len(characters)}", characters=characters)
        run_dir = samples_dir.parent / f"run{len(characters)}"
        train(config, samples_dir, run_dir, max_steps=1, console=PlainConsole(stderr=False))
        found.append([line for line in capsys.readouterr().out.splitlines() if "nothing" in line])
    assert found == [
        [
            "train.pairs=1.0 does nothing here: it needs two drawings of one character among the "
            "training samples."
        ],
        [],
    ]


def test_weights_of_a_style_network_do_nothing_where_there_is_none() -> None:
    (said,) = idle_settings(train_config({"model": "reference", "style_weights": "a.pth"}, ""))
    assert said == (
        "train.style_weights=a.pth does nothing here: it needs a model that has a style network."
    )


@pytest.mark.parametrize("recipe", recipe_names())
def test_recipes_set_nothing_that_does_nothing(recipe: str) -> None:
    assert idle_settings(train_config(load_recipe(recipe).train, recipe)) == []


@pytest.mark.parametrize("model", MODELS)
def test_defaults_and_what_is_switched_off_are_passed_over(model: str) -> None:
    off = {"jitter": 0.0, "bend": 0.0, "warp": False, "chroma_weight": 0.0, "contrast": 0.0}
    for table in ({}, {"gan": "patch"}, {"jitter": 0.0, "chroma_weight": 0.0}, off):
        assert idle_settings(train_config({"model": model, **table}, "")) == []
