"""An exported model's card: what is known of the model, and what is not."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from typer.testing import Result

from model.checkpoint import load_checkpoint, pack, save_checkpoint
from model.networks.style import build_style_network
from model.use.export import Export, export
from pipeline.shards.rows import read_seal
from pipeline.words import plain
from tests.model_checkpoints import write_checkpoint, write_metrics
from tests.plurals import plurals_of_one

pytestmark = pytest.mark.usefixtures("small_style_networks")


@pytest.mark.slow
def test_the_card_says_what_is_known(exported_work: Path, exported: tuple[Path, Result]) -> None:
    card = ModelCard.load(exported[0] / "README.md")
    assert card.data.library_name == "nurie"
    assert card.data.license == "other"
    text = card.text
    _, info = load_checkpoint(exported[0])
    for expected in (
        "# reference on dolls-64",
        "recipe: `dolls-64`: Drawn dolls on a white background",
        "selection: rating `safe`; tags `doll`, `white_background`",
        "sketches by dodge and onnx",
        "no character is in two of the splits",
        f"lock (`posts.parquet`): SHA-256 {read_seal(exported_work / 'posts.parquet')}",
        "3 steps of",
        f"torch {info.versions['torch']}",
        "40 pictures in 9 clusters of the test split, reference: character.",
        "| answer | psnr | following | chroma error |",
        "| `reference` | 19.500 (19.000 to 20.000) | 0.900 | 0.610 |",
        "| `grey` | 10.000 | 0.000 | 1.000 |",
        "belong to their makers",
    ):
        assert expected in text, expected
    assert "Not measured" not in text


@pytest.mark.parametrize(
    ("trained_on", "known"),
    [
        ({}, "dodge"),
        ({"sketch": "sketch_ink"}, "xdog"),
        ({"sketches": ("sketch", "sketch_ink", "sketch_lost")}, "dodge and xdog"),
    ],
)
def test_the_card_says_which_lines_the_model_knows(
    tmp_path: Path, trained_on: dict[str, Any], known: str
) -> None:
    sketches = {"ink": {"method": "xdog"}, "net": {"method": "onnx"}}
    recipe = {"prepare": {"sketch": {"method": "dodge"}, "sketches": sketches}}
    checkpoint = write_checkpoint(
        tmp_path / "best.safetensors", "reference", recipe=recipe, **trained_on
    )
    export(checkpoint, tmp_path / "out", onnx=False)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"dark lines on light paper, as drawn by {known};" in card
    assert "sketches by dodge and onnx and xdog" in card


def test_a_checkpoint_that_knows_little_has_a_card_that_says_so(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run" / "best.safetensors", "batchnorm")
    found = export(tmp_path / "run", tmp_path / "out", onnx=False)
    assert found == Export(found.files, None, [], [])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "recipe: `unknown`" in card
    assert "Not measured: no evaluation" in card
    assert "Its style network has random weights" in card


def test_a_style_network_that_was_trained_as_well_is_nothing_to_look_for(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "run" / "best.safetensors", "batchnorm")
    tensors, info = load_checkpoint(checkpoint)
    style = build_style_network("vgg19", normalised=True, weights="random").state_dict()
    for weights in ("imagenet", "random"):
        trained = dataclasses.replace(
            info,
            train=dataclasses.replace(info.train, style_train=True),
            style=dataclasses.replace(info.style, weights=weights),
        )
        save_checkpoint(checkpoint, tensors | pack("style", style), trained)
        export(tmp_path / "run", tmp_path / "out", onnx=False)
        card = (tmp_path / "out" / "README.md").read_text()
        assert "style network, before it was trained as well: vgg19, " in card
        assert "Its style network was trained as well, and is in its files." in card
        assert "It needs the style network" not in card
        assert "never trained" not in card


def test_the_card_says_which_checkpoint_of_its_run_it_is(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    said = {
        "best": "this checkpoint is the best by mse of those that were validated",
        "last": "this checkpoint is the last of its run, whether or not it is the best by mse",
        "previous": "this checkpoint is the last but one of its run",
        "mine": "which checkpoint of its run this is, its file's name does not say",
    }
    for stem, words in said.items():
        path = write_checkpoint(run_dir / f"{stem}.safetensors", "reference")
        for given in [path, *([run_dir] if stem == "best" else [])]:
            export(given, tmp_path / "out", onnx=False)
            lines = (tmp_path / "out" / "README.md").read_text().splitlines()
            assert [line for line in lines if line.startswith(("- this", "- which"))] == [
                f"- {words}"
            ]


def test_one_of_each_is_said_as_one(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "run" / "best.safetensors", "reference")
    tensors, info = load_checkpoint(checkpoint)
    lone = dataclasses.replace(info, step=1, train=dataclasses.replace(info.train, batch_size=1))
    save_checkpoint(checkpoint, tensors, lone)
    block = {"reference": "self", "num_samples": 1, "psnr": 20.0, "baselines": {}}
    block |= {"num_clusters": 1, "intervals": {"psnr": None}}
    metrics = write_metrics(tmp_path / "m.json", step=1, settings={"self": block})
    export(checkpoint, tmp_path / "out", metrics_paths=[metrics], onnx=False)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- 1 step of 1 picture, in epoch" in card
    assert "1 picture in 1 cluster of the test split, reference: self." in card
    assert plurals_of_one(card) == []


def test_intervals_over_single_pictures_are_not_shown(exported_work: Path, tmp_path: Path) -> None:
    """Versions that resampled pictures counted no clusters."""
    figures = {"psnr": 19.5, "lpips": 0.25, "intervals": {"psnr": [19.0, 20.0]}}
    block = {"reference": "self", "num_samples": 40, **figures, "baselines": {}}
    metrics = write_metrics(tmp_path / "m.json", settings={"self": block})
    export(exported_work / "runs" / "first", tmp_path / "out", metrics_paths=[metrics], onnx=False)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "40 pictures of the test split, reference: self." in card
    assert "| answer | psnr | lpips |" in card
    assert "| `reference` | 19.500 | 0.250 |" in card


def test_a_text_from_a_recipe_cannot_be_markup() -> None:
    assert plain("a `b` | <img src=x>\n[c](d)") == "a b img src=x c (d)"
