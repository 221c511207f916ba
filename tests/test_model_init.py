"""Runs that begin with another training's weights: which, what they refuse, what is kept."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_checkpoint, read_sum, save_checkpoint, shown_generator, unpack
from model.config import TrainConfig
from model.use.card import render_card
from pipeline.errors import UserError
from tests.model_checkpoints import CONFIG
from tests.model_runs import run

SHORT = dataclasses.replace(
    CONFIG, model="reference", gan="none", epochs=1, validations_per_epoch=1
)
pytestmark = pytest.mark.usefixtures("small_style_networks")

STILL = 1e-60
"""A learning rate that changes no weight: a run ends with what it began with."""


@pytest.fixture(scope="module")
def first(samples_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "first"
    assert run(samples_dir, run_dir, SHORT).finished
    return run_dir


def assert_same(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    assert weights.keys() == others.keys()
    assert weights
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["zhang2017", "reference"])
def test_a_run_begins_with_the_weights_that_would_be_used(
    samples_dir: Path, tmp_path: Path, model: str
) -> None:
    """The mean over the first one's steps, for the generator and for the mean that begins."""
    with_mean = dataclasses.replace(SHORT, model=model, ema=0.5)
    run(samples_dir, tmp_path / "first", with_mean)
    began, _ = load_checkpoint(tmp_path / "first" / "last.safetensors")
    still = dataclasses.replace(with_mean, lr=STILL)
    run(samples_dir, tmp_path / "second", still, init=tmp_path / "first" / "last.safetensors")
    ended, info = load_checkpoint(tmp_path / "second" / "last.safetensors")
    assert_same(unpack("generator", ended), shown_generator(began))
    assert_same(unpack("ema", ended), shown_generator(began))
    assert info.init == read_sum(tmp_path / "first" / "last.safetensors")
    assert (info.epoch, info.step) == (0, 4)


def test_a_size_that_an_article_model_does_not_have_keeps_nothing(
    samples_dir: Path, tmp_path: Path
) -> None:
    """As of ``train characters-256 --model batchnorm``, whose recipe sizes ``reference``."""
    config = dataclasses.replace(SHORT, model="batchnorm", size="base")
    run(samples_dir, tmp_path / "first", config, max_steps=1)
    other = dataclasses.replace(config, size="small")
    run(samples_dir, tmp_path / "second", other, init=tmp_path / "first" / "last.json", max_steps=1)
    _, info = load_checkpoint(tmp_path / "second" / "last.json")
    assert info.init == read_sum(tmp_path / "first" / "last.json")


def test_a_trained_style_network_comes_along(samples_dir: Path, tmp_path: Path) -> None:
    with_style = dataclasses.replace(SHORT, model="inception", style_train=True)
    run(samples_dir, tmp_path / "first", with_style, max_steps=1)
    with pytest.raises(UserError, match=r"style network was trained as well; give --style-train"):
        frozen = dataclasses.replace(SHORT, model="inception")
        run(samples_dir, tmp_path / "frozen", frozen, init=tmp_path / "first" / "last.json")
    still = dataclasses.replace(with_style, lr=STILL)
    run(samples_dir, tmp_path / "second", still, init=tmp_path / "first" / "last.json", max_steps=1)
    began, _ = load_checkpoint(tmp_path / "first" / "last.json")
    ended, _ = load_checkpoint(tmp_path / "second" / "last.json")
    assert_same(unpack("style", ended), unpack("style", began))


@pytest.mark.slow
def test_it_goes_on_by_itself_and_refuses_another_beginning(
    samples_dir: Path, first: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(SHORT, seed=1)
    run(samples_dir, tmp_path / "whole", config, init=first)
    run(samples_dir, tmp_path / "parts", config, init=first, max_steps=1)
    run(samples_dir, tmp_path / "parts", config, resume=True, max_steps=1)
    run(samples_dir, tmp_path / "parts", config, init=first, resume=True, max_steps=1)
    with pytest.raises(UserError, match=r"did not begin with .*whole\. Name another run"):
        run(samples_dir, tmp_path / "parts", config, init=tmp_path / "whole", resume=True)
    assert run(samples_dir, tmp_path / "parts", config, resume=True).finished
    whole, about_whole = load_checkpoint(tmp_path / "whole" / "last.safetensors")
    parts, about_parts = load_checkpoint(tmp_path / "parts" / "last.safetensors")
    assert_same(parts, whole)
    assert about_parts == about_whole
    assert about_parts.init == read_sum(first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width_multiplier": 0.25}, r"give --set train\.width_multiplier=0\.125\.$"),
        ({"model": "zhang2017"}, r"another network.* give --set train\.model=reference\.$"),
        ({"size": "base"}, r"another network.* give --set train\.size=small\.$"),
    ],
)
def test_another_network_is_refused_and_nothing_is_left(
    samples_dir: Path, first: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    config: TrainConfig = dataclasses.replace(SHORT, **changes)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        run(samples_dir, tmp_path / "run", config, init=first)
    assert not (tmp_path / "run").exists()


def test_weights_that_are_no_numbers_are_refused(
    samples_dir: Path, first: Path, tmp_path: Path
) -> None:
    tensors, info = load_checkpoint(first)
    next(iter(tensors.values())).fill_(math.nan)
    odd = tmp_path / "odd.safetensors"
    save_checkpoint(odd, tensors, info)
    with pytest.raises(UserError, match="weights are not all finite numbers"):
        run(samples_dir, tmp_path / "run", SHORT, init=odd)
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_another_style_network_is_refused(samples_dir: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(SHORT, model="zhang2017")
    run(samples_dir, tmp_path / "first", config)
    other = dataclasses.replace(config, style_seed=1)
    with pytest.raises(UserError, match=r"trained with .*seed 0.* and this run has .*seed 1"):
        run(samples_dir, tmp_path / "run", other, init=tmp_path / "first")


def test_the_card_says_with_what_it_began(first: Path) -> None:
    _, info = load_checkpoint(first)
    cards = [
        render_card("t", about, stem="best", evaluations=[], lock="", onnx_name="", difference=0.0)
        for about in (info, dataclasses.replace(info, init="5eed" * 16))
    ]
    assert "began with" not in cards[0]
    assert f"- began with the weights of the checkpoint of SHA-256 {'5eed' * 16}\n" in cards[1]
