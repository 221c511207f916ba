"""The command line's options for training, down to the settings that they become."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import app
from model.config import TrainConfig
from model.train import TrainResult


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """Collect what would be trained, and train nothing."""
    configs: list[TrainConfig] = []

    def note(config: TrainConfig, *rest: object, **options: Any) -> TrainResult:
        configs.append(config)
        return TrainResult(1, 0, None, True)

    monkeypatch.setattr("model.train.train", note)
    return configs


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {}),
        (["--style-train"], {"style_train": True}),
        (["--set", "train.style_train=true"], {"style_train": True}),
        (["--model", "batchnorm", "--gan", "none"], {"model": "batchnorm", "gan": "none"}),
        (["--epochs", "3", "--batch-size", "4"], {"epochs": 3, "batch_size": 4}),
        (["--style-weights", "random", "--device", "cpu"], {"style_weights": "random"}),
    ],
)
def test_the_options_of_train_become_its_settings(
    trained: list[TrainConfig], tmp_path: Path, options: list[str], expected: dict[str, Any]
) -> None:
    called = CliRunner().invoke(
        app, ["train", "white-background-256", "--work", str(tmp_path), *options]
    )
    assert called.exit_code == 0, called.output
    (config,) = trained
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.style_train == expected.get("style_train", False)
