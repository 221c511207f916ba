"""Runs of ``reference``: exact, with every part of the recipe in place, and the best one kept."""

import dataclasses
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import load_checkpoint
from model.config import TrainConfig, train_config
from model.data.samples import Samples
from model.evaluation.metrics import Answer
from model.training.validation import criterion
from pipeline.errors import UserError
from tests.model_checkpoints import CONFIG
from tests.model_runs import log_of, run, without_times
from tests.model_samples import write_samples


@pytest.fixture(scope="module")
def paired_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("paired"), characters=["a", "b", ""])


REFERENCE = train_config(
    {
        "model": "reference",
        "width_multiplier": 0.25,
        "batch_size": 2,
        "epochs": 2,
        "validations_per_epoch": 2,
        "pairs": 0.5,
        "device": "cpu",
        "log_every": 3,
        "num_following": 2,
        "num_grid": 2,
    },
    "test",
)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 5])
def test_a_stopped_reference_run_goes_on_exactly(
    paired_dir: Path, tmp_path: Path, stop_after: int
) -> None:
    """Jitter, warp and pairs included."""
    assert run(paired_dir, tmp_path / "whole", REFERENCE).finished
    run(paired_dir, tmp_path / "parts", REFERENCE, max_steps=stop_after)
    assert run(paired_dir, tmp_path / "parts", REFERENCE, resume=True).finished
    for name in ("last", "best"):
        expected, expected_info = load_checkpoint(tmp_path / "whole" / f"{name}.safetensors")
        found, found_info = load_checkpoint(tmp_path / "parts" / f"{name}.safetensors")
        assert found_info == expected_info
        assert all(torch.equal(found[k], expected[k]) for k in expected)
    assert expected_info.train.best_by == "chroma_error"
    assert not (tmp_path / "whole" / "style").exists()


def test_a_run_does_not_change_its_precision_unseen(
    paired_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun where bf16 is slow, and gone on with where it is fast."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False}, raising=False)
    run(paired_dir, tmp_path, REFERENCE, max_steps=1)
    assert load_checkpoint(tmp_path / "last.safetensors")[1].train.precision == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    with pytest.raises(UserError, match=r"train\.precision \(fp32 there, bf16 here\)"):
        run(paired_dir, tmp_path, REFERENCE, resume=True)
    as_begun = dataclasses.replace(REFERENCE, precision="fp32")
    assert run(paired_dir, tmp_path, as_begun, resume=True, max_steps=1).step == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"channels_last": True},
        {"gan": "acgan"},
        {"gan": "patch"},
        {"size": "base"},
    ],
)
def test_every_kind_of_reference_run_trains(
    paired_dir: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(REFERENCE, **changes)
    assert run(paired_dir, tmp_path, config, max_steps=2).step == 2
    (line,) = (line for line in log_of(tmp_path) if line["kind"] == "train")
    assert {"l1", "chroma", "l1_guide_color"} < line.keys()
    assert ("g_style" in line) == (config.gan == "acgan")
    assert ("g_features" in line) == (config.gan == "patch")


PLAIN = dataclasses.replace(
    REFERENCE,
    precision="fp32",
    jitter=0.0,
    bend=0.0,
    drop_reference=0.0,
    warp=False,
    pairs=0.0,
    contrast=0.0,
)


@pytest.fixture(scope="module")
def plain_losses(
    paired_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the settings of a run without any help, and the losses of its first step."""
    config = dataclasses.replace(PLAIN, log_every=1, batch_size=8)
    return config, first_losses(paired_dir, tmp_path_factory.mktemp("plain"), config)


def first_losses(samples_dir: Path, run_dir: Path, config: TrainConfig) -> dict[str, Any]:
    run(samples_dir, run_dir, config, max_steps=1)
    return next(line for line in without_times(log_of(run_dir)) if line["kind"] == "train")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"jitter": 1.0}, {}),
        ({"bend": 1.0}, {"jitter": 1.0}),
        ({"drop_reference": 1.0}, {}),
        ({"warp": True}, {}),
        ({"reframe": 1.0}, {"warp": True}),
        ({"vary_lines": 1.0}, {}),
        ({"mirror": 1.0}, {}),
        ({"pairs": 1.0}, {}),
        ({"contrast": 3.0}, {}),
        ({"chroma_weight": 1.0}, {}),
        ({"beta": 0.1}, {}),
        ({"precision": "bf16"}, {}),
    ],
)
def test_every_part_of_the_recipe_reaches_the_first_step(
    paired_dir: Path,
    tmp_path: Path,
    plain_losses: tuple[TrainConfig, dict[str, Any]],
    changes: dict[str, Any],
    more: dict[str, Any],
) -> None:
    """From the same weights and the same samples, each part alone gives other losses."""
    plain, without = plain_losses
    if more:
        plain = dataclasses.replace(plain, **more)
        without = first_losses(paired_dir, tmp_path / "without", plain)
    changed = dataclasses.replace(plain, **changes)
    assert first_losses(paired_dir, tmp_path / "with", changed) != without
    assert first_losses(paired_dir, tmp_path / "again", plain) == without


COMPILED = dataclasses.replace(
    REFERENCE, gan="patch", compile=True, channels_last=True, precision="fp32"
)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_model_trains_as_it_would_without(paired_dir: Path, tmp_path: Path) -> None:
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    uncompiled = dataclasses.replace(COMPILED, compile=False, channels_last=False)
    assert train_and_count_graphs(paired_dir, plain, uncompiled) == 0
    # A process that has compiled cannot train in forked children, as other tests do.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        job = pool.submit(train_and_count_graphs, paired_dir, compiled, COMPILED)
        assert job.result() > 1  # the discriminator's as well
    expected, found = (
        [line for line in without_times(log_of(folder)) if line.pop("kind") == "train"]
        for folder in (plain, compiled)
    )
    assert len(expected) == 2
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def train_and_count_graphs(samples: Path, run_dir: Path, config: TrainConfig) -> int:
    counters = torch._dynamo.utils.counters
    counters.clear()
    run(samples, run_dir, dataclasses.replace(config, log_every=1), max_steps=2)
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.slow
@pytest.mark.usefixtures("small_style_networks")
def test_where_nothing_can_be_compiled_one_sentence_says_so(
    paired_dir: Path, tmp_path: Path
) -> None:
    torch._dynamo.reset()  # forgets what another test has compiled
    settings = {"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}
    with (
        torch._inductor.config.patch(settings),
        pytest.raises(UserError, match=r"^train\.compile: .*no-such-compiler.*C\+\+ compiler"),
    ):
        run(paired_dir, tmp_path, dataclasses.replace(CONFIG, compile=True), max_steps=1)


@pytest.mark.slow
@pytest.mark.parametrize("best_by", ["chroma_error", "regional_error", "following"])
def test_the_best_checkpoint_is_best_by_what_was_asked(
    paired_dir: Path, tmp_path: Path, best_by: str
) -> None:
    config = dataclasses.replace(REFERENCE, best_by=best_by)
    result = run(paired_dir, tmp_path, config)
    validations = [line for line in log_of(tmp_path) if line["kind"] == "validation"]
    scores = [criterion(line, best_by) for line in validations]
    _, best = load_checkpoint(tmp_path)
    assert best.best == result.best == min(scores)
    assert best.step == validations[int(np.argmin(scores))]["step"]


def test_following_is_measured_on_samples_from_all_over(
    paired_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbours in a shard may be of one character, and of one palette."""
    seen = []

    def watch(answer: Answer, sketches: torch.Tensor, references: torch.Tensor) -> float:
        seen.append((sketches, references))
        return 1.0

    monkeypatch.setattr("model.training.validation.measure_following", watch)
    run(paired_dir, tmp_path, REFERENCE, max_steps=2)
    with Samples(paired_dir, "val") as samples:
        ends = samples.load([0, len(samples) - 1])
    assert torch.equal(seen[0][0], ends.sketch)
    assert torch.equal(seen[0][1], ends.color)


def test_the_best_following_is_the_nearest_to_one() -> None:
    assert criterion({"following": 1.25}, "following") == 0.25
    assert criterion({"following": 0.5}, "following") == 0.5
    assert criterion({"mse": 0.1}, "mse") == 0.1
    with pytest.raises(UserError, match=r"do not tell following.*best_by=mse"):
        criterion({"mse": 0.1}, "following")


@pytest.mark.parametrize(
    ("best_by", "why"),
    [
        ("chroma_error", "have no colour"),
        ("paper_error", "have no white paper"),
        ("following", "have one palette"),
    ],
)
def test_what_validation_samples_lack_is_named(best_by: str, why: str) -> None:
    with pytest.raises(UserError, match=f"do not tell {best_by}: .*{why}"):
        criterion({"mse": 0.1}, best_by)


@pytest.mark.usefixtures("small_style_networks")
def test_an_article_model_can_learn_from_jittered_references(
    paired_dir: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        CONFIG, gan="none", jitter=0.8, warp=True, pairs=0.25, chroma_weight=2.0
    )
    assert run(paired_dir, tmp_path, config, max_steps=3).step == 3
    assert "chroma" in log_of(tmp_path)[0]
    assert not list((tmp_path / "style").glob("train-*"))  # no two epochs' are the same
