import math
from dataclasses import replace

import pytest

from model.config import MODELS, STYLELESS, EvalConfig, ModelConfig, TrainConfig, train_config
from model.networks.build import build_generator
from pipeline.errors import UserError
from pipeline.recipe_file import load_recipe, recipe_names
from pipeline.settings import Table, convert, to_table


def test_the_defaults_are_the_articles() -> None:
    config = TrainConfig()
    assert (config.model, config.width_multiplier, config.style_weights) == (
        "zhang2017",
        1.0,
        "imagenet",
    )
    assert (config.lr, config.betas, config.batch_size) == (1e-3, (0.9, 0.999), 32)
    assert (config.epochs, config.validations_per_epoch) == (10, 6)
    assert (config.alpha, config.beta, config.gan) == (0.3, 0.9, "acgan")


def test_every_model_can_be_built_and_those_without_a_style_network_are_known() -> None:
    specs = {name: build_generator(name, 0.125).style_spec for name in MODELS}
    assert {name for name in MODELS if specs[name].network == "picture"} == set(STYLELESS)


def test_tables_and_configs_are_inverse() -> None:
    config = TrainConfig(model="inception", betas=(0.5, 0.9), gan="none")
    assert convert(to_table(config), TrainConfig, "x") == config
    assert convert({}, EvalConfig, "x") == EvalConfig()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"batch_sise": 4}, "did you mean 'batch_size'"),
        (
            {"model": "unet"},
            "train.model: 'unet' is none of zhang2017, batchnorm, inception, reference",
        ),
        ({"gan": "wgan"}, "train.gan"),
        ({"precision": "fp16"}, "train.precision"),
        ({"batch_size": 0}, "train.batch_size: 0 is under 1"),
        ({"batch_size": "many"}, "batch_size"),
        ({"alpha": -1.0}, "train.alpha: -1.0 is negative"),
        ({"muon_lr": -1.0}, "train.muon_lr: -1.0 is negative"),
        ({"lr": 0.0}, "train.lr"),
        ({"lr": math.inf}, "train.lr: inf is not finite"),
        ({"clip_norm": math.inf}, "train.clip_norm: inf is not finite"),
        ({"clip_norm": math.nan}, "train.clip_norm: nan is not finite"),
        ({"betas": [0.9, 1.0]}, "train.betas"),
        ({"width_multiplier": 0.0}, "width_multiplier"),
        ({"style_weights": ""}, "style_weights"),
        ({"num_following": 1}, "train.num_following"),
        ({"size": "huge"}, "train.size: 'huge' is none of small, medium, base"),
        ({"jitter": 1.5}, "train.jitter: 1.5 is not in 0 to 1"),
        ({"pairs": -0.1}, "train.pairs"),
        ({"weight_decay": -1.0}, "train.weight_decay"),
        ({"model": "reference", "style_train": True}, "'reference' has no style network to train"),
        ({"accumulate": 0}, "train.accumulate: 0 is under 1"),
        ({"accumulate": 2}, 'train.accumulate: above 1 it needs gan = "none"'),
        ({"gan": "none", "style_train": True, "accumulate": 2}, "and a frozen style network"),
        ({"gan": "none", "l1_weight": 0.0}, "train.l1_weight: at 0 there is nothing to learn"),
        (
            {"gan": "patch", "l1_weight": 0, "patch_weight": 0, "feature_weight": 0},
            "train.l1_weight: at 0 there is nothing to learn",
        ),
        ({"best_by": "psnr"}, "train.best_by: 'psnr' is none of mse, chroma_error"),
    ],
)
def test_a_wrong_setting_is_named(table: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match="recipe.toml") as caught:
        convert(table, TrainConfig, "recipe.toml")
    assert message in str(caught.value)


def test_an_adversary_alone_is_something_to_learn_from() -> None:
    for table in ({}, {"gan": "patch"}, {"gan": "patch", "patch_weight": 0.0}):
        assert TrainConfig(l1_weight=0.0, **table).l1_weight == 0


def test_wrong_eval_settings_are_named() -> None:
    tables: list[Table] = [
        {"reference": []},
        {"reference": ["any", "any"]},
        {"num_references": 1},
        {"batch_size": 0},
        {"reduce": 0},
        {"guidance": 3.5},
    ]
    for table in tables:
        with pytest.raises(UserError, match=f"eval.{next(iter(table))}"):
            convert(dict(table), EvalConfig, "--set")


def test_a_models_defaults_lie_under_what_is_given() -> None:
    config = train_config({"model": "reference", "lr": 0.5}, "x")
    assert (config.lr, config.batch_size, config.betas, config.gan) == (
        0.5,
        16,
        (0.5, 0.999),
        "none",
    )
    assert (config.jitter, config.warp, config.pairs) == (0.8, True, 0.4)
    assert config.best_by == "chroma_error"
    assert not config.is_self_reference()
    assert train_config({"model": "batchnorm"}, "x") == TrainConfig(model="batchnorm")
    assert TrainConfig().is_self_reference()
    with pytest.raises(UserError, match="model: 'unet'"):
        train_config({"model": "unet"}, "x")


def test_the_model_config_is_what_decides_the_network() -> None:
    config = TrainConfig(
        model="batchnorm", width_multiplier=0.5, style_weights="random", style_seed=3
    )
    assert config.model_config() == ModelConfig("batchnorm", 0.5, "random", 3)


def test_seeds_fit_into_63_bits() -> None:
    for seed in (-1, 2**63, 2**64):
        for name in ("seed", "style_seed"):
            with pytest.raises(UserError, match=rf"train\.{name}: {seed} is not in 0 to"):
                convert({name: seed}, TrainConfig, "--set")
        with pytest.raises(UserError, match=rf"eval\.seed: {seed} is not in 0 to"):
            convert({"seed": seed}, EvalConfig, "--set")
    assert TrainConfig(seed=2**63 - 1, style_seed=2**63 - 1).seed == EvalConfig(seed=2**63 - 1).seed


@pytest.mark.parametrize("recipe", recipe_names())
def test_recipes_learn_from_sketches_that_they_draw(recipe: str) -> None:
    loaded = load_recipe(recipe)
    config = train_config(loaded.train, recipe)
    assert {config.sketch, *config.sketches} <= set(loaded.prepare.sketch_members)


@pytest.mark.parametrize(("recipe", "size"), [("characters-64-lines", 64), ("characters-128", 128)])
def test_the_recipes_of_several_lines_have_the_posts_of_the_one_of_one(
    recipe: str, size: int
) -> None:
    lines, one = load_recipe(recipe), load_recipe("characters-64")
    assert (lines.select, lines.source, lines.split) == (one.select, one.source, one.split)
    assert replace(lines.prepare, sketches={}) == replace(one.prepare, size=size)
