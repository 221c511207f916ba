"""What a run computes from: the sketches that it was told, and its style network's numbers."""

import dataclasses
from pathlib import Path

import orjson
import pytest
import torch

from model.checkpoint import load_checkpoint
from model.config import train_config
from model.data.samples import Samples, to_unit
from model.networks.discriminator import build_discriminator
from model.networks.style import Provenance, StyleNetwork
from model.training.train import train
from pipeline.console import PlainConsole
from pipeline.errors import UserError
from tests.model_checkpoints import CONFIG
from tests.model_runs import log_of, run
from tests.model_samples import write_samples
from tests.stand_ins import Thumbnails


@pytest.fixture(scope="module")
def samples_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("samples"), ink=True)


def test_a_run_learns_from_and_is_validated_on_the_sketches_that_it_was_told(
    samples_dir: Path, tmp_path: Path
) -> None:
    table = {"model": "reference", "width_multiplier": 0.125, "batch_size": 8, "device": "cpu"}
    table |= {"epochs": 1, "validations_per_epoch": 1}
    table |= {"lr": 1e-12}  # so that what is validated is one model
    found: dict[str, list[float]] = {"l1": [], "mse": []}
    for sketch in ("sketch", "sketch_ink"):
        config = train_config(table | {"sketch": sketch}, "test")
        run(samples_dir, tmp_path / sketch, config)
        train_line, validation = log_of(tmp_path / sketch)
        found["l1"].append(train_line["l1"])
        found["mse"].append(validation["mse"])
    for name, (plain, ink) in found.items():
        assert plain != pytest.approx(ink, rel=1e-3), name


def test_the_discriminator_knows_the_training_sets_style(
    samples_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Thumbnails()
    monkeypatch.setattr("model.training.train.build_style_network", lambda *_, **__: network)
    run(samples_dir, tmp_path, dataclasses.replace(CONFIG, cache_style=False), max_steps=1)
    tensors, _ = load_checkpoint(tmp_path / "last.safetensors")
    with Samples(samples_dir, "train") as samples:
        color = samples.load(range(len(samples))).color
    expected = build_discriminator(4096, "acgan", CONFIG.width_multiplier)
    expected.fit_style(network(to_unit(color, torch.device("cpu"))))
    for name in ("style_mean", "style_std"):
        buffer = expected.get_buffer(name)
        assert torch.allclose(tensors[f"discriminator.{name}"], buffer, atol=1e-5), name


def test_a_run_goes_on_with_the_style_weights_that_it_began_with_wherever_they_lie(
    samples_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(name: str, *, normalised: bool, weights: str, seed: int) -> StyleNetwork:
        network = Thumbnails()
        network.provenance = Provenance(name, weights, seed, sha256=Path(weights).stem)
        return network

    monkeypatch.setattr("model.training.train.build_style_network", build)
    config = dataclasses.replace(CONFIG, gan="none", style_weights="here/first.pth")
    run(samples_dir, tmp_path, config, max_steps=1)
    other = dataclasses.replace(config, style_weights="here/second.pth")
    with pytest.raises(UserError, match=r"began with .*first\.pth.*Give those --style-weights"):
        run(samples_dir, tmp_path, other, resume=True)
    moved = dataclasses.replace(config, style_weights="there/first.pth")
    assert run(samples_dir, tmp_path, moved, resume=True, max_steps=1).step == 2


def test_a_model_is_of_the_recipe_that_its_samples_were_prepared_by(
    samples_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {"prepare": {"fit": "pad"}}  # `colorize` goes by it, and a card shows it
    console = PlainConsole(stderr=False)
    train(CONFIG, samples_dir, tmp_path, recipe=wanted, max_steps=1, console=console)
    said = "the samples are not as the recipe says"
    difference = """prepare.fit is "pad", the samples' "stretch". They are taken as they are."""
    assert f"{said}: {difference}" in capsys.readouterr().out.splitlines()
    _, info = load_checkpoint(tmp_path / "last.safetensors")
    written = orjson.loads((tmp_path / "config.json").read_bytes())
    assert info.recipe == written["recipe"] == {"prepare": {"fit": "stretch"}}
