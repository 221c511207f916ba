"""The figures that a run writes down are those of the model that it keeps."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from model.data.augment import same_reference
from model.data.order import Indices
from model.data.samples import Samples
from model.evaluation.metrics import mse, psnr, ratio
from model.evaluation.remarks import remarks
from model.evaluation.seen import Seen
from model.evaluation.tally import RATIOS
from model.training.train import train
from model.training.validation import check_best_by, validate
from model.use.colorize import Colorizer, load_colorizer
from pipeline.errors import UserError
from tests.model_checkpoints import CONFIG
from tests.model_runs import log_of, run
from tests.model_samples import write_samples
from tests.stand_ins import Thumbnails


def test_a_model_that_paints_no_numbers_is_not_kept(tmp_path: Path) -> None:
    """Its pictures would pass for black ones, whose chroma error is 1: better than many."""
    samples_dir = write_samples(tmp_path / "samples")
    config = dataclasses.replace(CONFIG, gan="none", lr=1e30, validations_per_epoch=4)
    with pytest.raises(UserError, match="picture is not finite"):
        run(samples_dir, tmp_path / "run", config)
    assert list((tmp_path / "run").glob("*.safetensors")) == []


@pytest.mark.parametrize(("ema", "kept"), [(0.0, "best"), (0.5, "best"), (0.5, "last")])
def test_the_logs_figures_are_those_of_the_kept_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float, kept: str
) -> None:
    """With BatchNorm, which counts differently while it learns, and learns where it is let."""

    def watched(colorizer: Colorizer, *rest: Any) -> dict[str, float]:
        generator = colorizer.generator
        before = {name: buffer.clone() for name, buffer in generator.named_buffers()}
        measured = validate(colorizer, *rest)
        assert generator.training
        assert any(name.endswith("running_mean") for name in before)
        for name, buffer in generator.named_buffers():
            assert torch.equal(buffer, before[name]), name
        return measured

    monkeypatch.setattr("model.training.train.validate", watched)
    network = Thumbnails()
    for module in ("training.train", "use.colorize"):
        monkeypatch.setattr(f"model.{module}.build_style_network", lambda *_, **__: network)
    once = dataclasses.replace(CONFIG, epochs=1, validations_per_epoch=1, cache_style=False)
    config = dataclasses.replace(once, model="batchnorm", gan="none", ema=ema)
    samples_dir = write_samples(tmp_path / "samples")
    run(samples_dir, tmp_path / "run", config)
    (line,) = (line for line in log_of(tmp_path / "run") if line["kind"] == "validation")
    colorizer, _ = load_colorizer(tmp_path / "run" / f"{kept}.safetensors", device="cpu")
    with Samples(samples_dir, "val") as samples:
        batch = samples.load(range(len(samples)))
    output = colorizer(batch.sketch, batch.color)
    assert line["mse"] == pytest.approx(mse(output, batch.color).mean().item(), rel=1e-4)
    assert line["psnr"] == pytest.approx(psnr(output, batch.color).mean().item(), rel=1e-4)
    truth, reference = same_reference(batch.color, batch.indices, seed=0)
    seen = Seen(colorizer(batch.sketch, reference))
    for name, measure in RATIOS.items():
        assert line[name] == pytest.approx(ratio(measure(seen, Seen(truth))), rel=1e-4), name


def test_pictures_without_colour_do_not_tell_which_checkpoint_colours_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, best_by="chroma_error")
    with Samples(write_samples(tmp_path), "val") as samples:
        check_best_by(samples, config)
        grey = torch.full_like(samples.load([0, 1]).color, 128)
        monkeypatch.setattr(
            "model.training.validation.same_reference",
            lambda color, *_, **__: (grey[: len(color)], grey[: len(color)]),
        )
        with pytest.raises(UserError, match="do not tell chroma_error"):
            check_best_by(samples, config)


@pytest.mark.parametrize(
    ("name", "place"), [("num_following", "measure_following"), ("num_grid", "tile")]
)
def test_what_fills_the_memory_of_a_validation_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    """As many pictures are coloured at once, whatever the batches of training have."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(f"model.training.validation.{place}", full)
    samples_dir = write_samples(tmp_path / "samples")
    for batch_size, blamed in ((2, f"train.{name} = 4: try --set train.{name}=2."), (8, "")):
        config = dataclasses.replace(CONFIG, gan="none", epochs=1, batch_size=batch_size)
        config = dataclasses.replace(config, num_following=4, num_grid=4)
        with pytest.raises(UserError, match=blamed or r"train\.batch_size = 8: try"):
            run(samples_dir, tmp_path / f"run{batch_size}", config)


@pytest.mark.slow
def test_colours_are_measured_over_pictures_from_all_of_the_validation_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ones are the oldest, and their colours are not everyone's."""
    asked: list[int] = []

    def recorded(color: Tensor, indices: Indices, *, seed: int) -> tuple[Tensor, Tensor]:
        asked.extend(indices.tolist())
        return same_reference(color, indices, seed=seed)

    monkeypatch.setattr("model.training.validation.same_reference", recorded)
    config = dataclasses.replace(CONFIG, gan="none", num_chroma=3, num_grid=1, epochs=1)
    samples_dir = write_samples(tmp_path / "samples")
    run(samples_dir, tmp_path / "run", config)
    with Samples(samples_dir, "val") as samples:
        last = len(samples) - 1
    assert last > 2
    assert asked[:3] == [0, last // 2, last]


@pytest.mark.slow
def test_a_bad_sign_is_put_into_words_when_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At four validations: it comes, goes on, goes, and comes again."""
    followed = iter([0.0, 0.05, 0.8, 0.01])
    monkeypatch.setattr(
        "model.training.train.validate", lambda *_: {"mse": 0.1, "following": next(followed)}
    )
    config = dataclasses.replace(CONFIG, epochs=1, validations_per_epoch=4, gan="none")
    heard = io.StringIO()
    samples_dir = write_samples(tmp_path / "samples")
    train(config, samples_dir, tmp_path / "run", console=Console(file=heard, width=500))
    said = [line for line in heard.getvalue().splitlines() if line.startswith("following")]
    assert said == [remarks({"following": value})["following"] for value in (0.0, 0.01)]
