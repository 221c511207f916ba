import dataclasses
import hashlib
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from torchvision.models import alexnet

from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import EvalConfig
from model.data.samples import Samples
from model.evaluation.baselines import mean_picture
from model.evaluation.evaluate import evaluate
from model.evaluation.metrics import bootstrap, mse
from model.evaluation.seen import Seen
from model.evaluation.tally import NEEDS_TRUTH, Tally
from model.use.colorize import Colorizer, load_colorizer
from pipeline.errors import UserError
from tests.model_checkpoints import write_checkpoint
from tests.model_evaluations import CONFIG, QUIET
from tests.model_samples import write_samples
from tests.stand_ins import SmallInception
from tests.tensors import flat

MEASURES = {*NEEDS_TRUTH, "following", "fid", "kid"}

pytestmark = pytest.mark.usefixtures("small_style_networks")


@pytest.fixture(scope="module")
def samples_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(
        tmp_path_factory.mktemp("samples"), {"train": 4, "test": 7}, characters=["a", "b", ""]
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best.safetensors")


@pytest.mark.slow
def test_everything_is_measured_for_the_model_and_the_baselines(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    extractor = SmallInception("thumbnails", ["small"])
    weights = tmp_path / "alexnet.pth"
    torch.save(alexnet().state_dict(), weights)
    config = dataclasses.replace(CONFIG, lpips_weights=str(weights))
    metrics = evaluate(
        checkpoint, samples_dir, "test", tmp_path, config, extractor=extractor, console=QUIET
    )
    assert orjson.loads((tmp_path / "metrics.json").read_bytes()) == metrics
    assert metrics["num_samples"] == 7
    assert metrics["lpips_weights"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert metrics["unavailable"] == {}
    assert metrics["baselines"].keys() == {"mean", "grey", "copy"}
    answers = {"model": metrics, **metrics["baselines"]}
    for answer in answers.values():
        assert answer.keys() >= MEASURES
        assert all(isinstance(answer[name], float) for name in MEASURES)
        intervals = answer["intervals"]
        assert intervals.keys() == {*NEEDS_TRUTH, "following"}
        assert all(a - 1e-9 <= answer[n] <= b + 1e-9 for n, (a, b) in intervals.items())
    copy, grey, mean = (answers[name] for name in ("copy", "grey", "mean"))
    assert (copy["mse"], copy["chroma_error"]) == (0, 0)
    assert copy["ssim"] == pytest.approx(1)
    assert copy["fid"] == pytest.approx(0, abs=1e-4)
    assert copy["following"] == pytest.approx(1)
    assert grey["chroma_error"] == pytest.approx(1, abs=1e-3)
    assert grey["following"] == pytest.approx(0)
    assert mean["following"] == pytest.approx(0)
    assert grey["fid"] > copy["fid"]
    assert "RANDOM" in metrics["style"]


def test_without_the_training_split_there_is_no_mean(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """The split to judge on may have been pulled alone."""
    alone = tmp_path / "samples"
    shutil.copytree(samples_dir, alone, ignore=shutil.ignore_patterns("train-*"))
    console = Console(record=True, file=io.StringIO())
    metrics = evaluate(checkpoint, alone, "test", tmp_path, CONFIG, console=console)
    assert metrics["baselines"].keys() == {"grey", "copy"}
    assert "no `mean` to compare with" in console.export_text()
    beside = evaluate(checkpoint, samples_dir, "test", tmp_path, CONFIG, console=QUIET)
    assert beside["baselines"].pop("mean")
    assert beside == metrics | {"settings": beside["settings"]}


def test_metrics_say_on_what_and_by_which_numbers(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, seed=3)
    metrics = evaluate(checkpoint, samples_dir, "test", tmp_path, config, console=QUIET)
    with Samples(samples_dir, "test") as samples:
        assert metrics["samples"] == samples.fingerprint
    assert metrics["seed"] == 3


def test_metrics_say_by_which_weights(
    samples_dir: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "inception.pth"
    weights.write_bytes(b"as random as any")
    small = SmallInception("thumbnails", ["small"])
    monkeypatch.setattr("model.evaluation.evaluate.load_extractor", lambda *_: small)
    config = dataclasses.replace(CONFIG, fid_weights=str(weights))
    metrics = evaluate(checkpoint, samples_dir, "test", tmp_path, config, console=QUIET)
    assert isinstance(metrics["fid"], float)
    assert metrics["fid_weights"] == hashlib.sha256(b"as random as any").hexdigest()
    assert metrics["lpips_weights"] is None


def test_rows_and_means_agree(samples_dir: Path, checkpoint: Path, tmp_path: Path) -> None:
    metrics = evaluate(checkpoint, samples_dir, "test", tmp_path, CONFIG, console=QUIET)
    rows = pq.read_table(tmp_path / "rows.parquet").to_pydict()
    colorizer, _ = load_colorizer(checkpoint, device="cpu")
    with Samples(samples_dir, "test") as samples:
        assert rows["post_id"] == samples.post_ids.tolist()
        batch = samples.load(range(7))
    with Samples(samples_dir, "train") as samples:
        mean = mean_picture(samples, CONFIG).expand_as(batch.color)
    knowing_nothing = mse(mean, batch.color).mean().item()
    assert metrics["baselines"]["mean"]["mse"] == pytest.approx(knowing_nothing)
    expected = mse(colorizer(batch.sketch, batch.color), batch.color)
    assert rows["mse"] == pytest.approx(expected.tolist())
    for name in ("mse", "psnr", "ssim"):
        assert np.mean(rows[name]) == pytest.approx(metrics[name])
    assert all(value > 0 for value in rows["chroma_error"])


def test_intervals_are_over_characters_and_families(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    metrics = evaluate(checkpoint, samples_dir, "test", tmp_path, CONFIG, console=QUIET)
    rows = pq.read_table(tmp_path / "rows.parquet").to_pydict()
    a, b, *_ = clusters = rows["cluster"]  # a b - a b - a: those of no character stand alone
    assert clusters == [a, b, clusters[2], a, b, clusters[5], a]
    assert metrics["num_clusters"] == len(set(clusters)) == 4
    parts = np.stack([rows["mse"], np.ones(7)], axis=1)
    expected = bootstrap(parts, np.array(clusters), CONFIG.seed)
    assert metrics["intervals"]["mse"] == pytest.approx(expected)


def test_what_cannot_be_computed_is_null_with_its_reason(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    metrics = evaluate(checkpoint, samples_dir, "test", tmp_path, CONFIG, console=QUIET)
    assert metrics["fid"] is metrics["kid"] is metrics["baselines"]["grey"]["fid"] is None
    assert metrics["unavailable"].keys() == {"lpips", "fid", "kid"}
    assert "--fid-weights PATH" in metrics["unavailable"]["fid"]


def test_a_picture_has_no_figure_of_what_it_does_not_hold() -> None:
    tally, pictures = Tally(), torch.cat([flat(255, 0, 0), flat(255, 255, 255)])  # all red, paper
    tally.add(pictures, Seen(pictures))
    found = {name: values.to_pylist() for name, values in tally.columns().items()}
    assert found["mse"] == [0.0, 0.0]
    assert found["chroma_error"] == found["regional_error"] == [0.0, None]
    assert found["paper_error"] == [None, 0.0]


def test_one_sample_is_enough_for_what_it_can_tell(checkpoint: Path, tmp_path: Path) -> None:
    samples_dir = write_samples(tmp_path / "samples", {"train": 1, "test": 1})
    extractor = SmallInception("thumbnails", ["small"])
    metrics = evaluate(
        checkpoint, samples_dir, "test", tmp_path, CONFIG, extractor=extractor, console=QUIET
    )
    assert metrics["mse"] > 0
    assert metrics["unavailable"].keys() == {"following", "lpips", "fid", "kid"}


@pytest.mark.parametrize(
    ("num_coloured", "setting"), [(3, "num_sketches"), (2, "num_grid"), (4, "batch_size")]
)
def test_a_full_memory_names_how_many_were_coloured_at_once(
    samples_dir: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_coloured: int,
    setting: str,
) -> None:
    colorize = Colorizer.__call__

    def fill_memory(colorizer: Colorizer, sketch: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(sketch) == num_coloured:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return colorize(colorizer, sketch, *rest)

    monkeypatch.setattr(Colorizer, "__call__", fill_memory)
    config = EvalConfig(batch_size=4, num_sketches=3, num_grid=2)
    advice = f"eval.{setting} = {num_coloured}: try --set eval.{setting}={num_coloured // 2}"
    with pytest.raises(UserError, match=advice):
        evaluate(checkpoint, samples_dir, "test", tmp_path, config, console=QUIET)


def test_guidance_reaches_the_model_and_nothing_else(samples_dir: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(
        tmp_path / "best.safetensors", model="reference", drop_reference=0.1
    )
    without, plain = (
        evaluate(
            checkpoint,
            samples_dir,
            "test",
            tmp_path,
            dataclasses.replace(CONFIG, guidance=guidance),
            console=QUIET,
        )
        for guidance in (0.0, 1.0)
    )
    assert (without["guidance"], plain["guidance"]) == (0, 1)
    assert without["mse"] != pytest.approx(plain["mse"], rel=1e-3)
    assert without["baselines"] == plain["baselines"]


def test_pictures_are_measured_at_a_part_of_their_size(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    def shrink(pictures: torch.Tensor) -> torch.Tensor:
        squares = pictures.numpy().reshape(7, 3, 32, 2, 32, 2)
        return torch.from_numpy(np.rint(squares.mean((3, 5))).astype(np.uint8))

    plain, halved = (
        evaluate(
            checkpoint,
            samples_dir,
            "test",
            tmp_path / str(factor),
            dataclasses.replace(CONFIG, reduce=factor),
            console=QUIET,
        )
        for factor in (1, 2)
    )
    assert (plain["reduce"], halved["reduce"]) == (1, 2)
    colorizer, _ = load_colorizer(checkpoint, device="cpu")
    with Samples(samples_dir, "test") as samples:
        batch = samples.load(range(7))
    true, grey = shrink(batch.color), shrink(batch.sketch.expand(-1, 3, -1, -1))
    painted = shrink(colorizer(batch.sketch, batch.color))
    assert halved["mse"] == pytest.approx(mse(painted, true).mean().item())
    assert halved["baselines"]["grey"]["mse"] == pytest.approx(mse(grey, true).mean().item())
    assert halved["baselines"]["copy"]["mse"] == 0
    assert halved["following"] != plain["following"]
    assert halved["baselines"]["copy"]["following"] == pytest.approx(1)
    grids = [(tmp_path / name / "grid.png").read_bytes() for name in ("1", "2")]
    assert grids[0] == grids[1]  # as painted


@pytest.mark.parametrize("factor", [3, 4])  # no divisor of 64; pictures of 16 pixels
def test_a_part_of_the_size_that_cannot_be_measured(
    samples_dir: Path, checkpoint: Path, tmp_path: Path, factor: int
) -> None:
    config = dataclasses.replace(CONFIG, reduce=factor)
    with pytest.raises(UserError, match=f"eval.reduce: {factor} .* 32 pixels .* 64 x 64"):
        evaluate(checkpoint, samples_dir, "test", tmp_path, config, console=QUIET)


def test_the_reference_model_is_judged_like_the_others(samples_dir: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "best.safetensors", model="reference")
    metrics = evaluate(checkpoint, samples_dir, "test", tmp_path, CONFIG, console=QUIET)
    assert metrics["model"] == "reference"
    assert metrics["style"] == "none: the reference as it is"
    assert metrics["following"] > 0.5  # untrained, it gives back colours that it finds


@pytest.mark.slow
def test_a_model_is_judged_on_the_sketches_that_it_was_trained_on(tmp_path: Path) -> None:
    several = write_samples(tmp_path / "several", {"train": 4, "test": 4}, ink=True)
    grey = {}
    for sketch in ("sketch", "sketch_ink"):
        path = write_checkpoint(tmp_path / f"{sketch}.safetensors", sketch=sketch)
        metrics = evaluate(path, several, "test", tmp_path / sketch, CONFIG, console=QUIET)
        with Samples(several, "test", sketch) as samples:
            batch = samples.load(range(4))
        grey[sketch] = metrics["baselines"]["grey"]["mse"]
        expected = mse(batch.sketch.expand(-1, 3, -1, -1), batch.color).mean()
        assert grey[sketch] == pytest.approx(float(expected), rel=1e-4)
    assert grey["sketch"] != pytest.approx(grey["sketch_ink"], rel=1e-2)
    path = tmp_path / "sketch.safetensors"
    other = dataclasses.replace(CONFIG, sketch="sketch_ink")  # unless told otherwise
    metrics = evaluate(path, several, "test", tmp_path / "other", other, console=QUIET)
    assert metrics["baselines"]["grey"]["mse"] == grey["sketch_ink"]


def test_the_mean_picture_is_the_mean(samples_dir: Path) -> None:
    with Samples(samples_dir, "train") as samples:
        mean = mean_picture(samples, CONFIG)
        expected = samples.load(range(4)).color.float().mean(0, keepdim=True)
    assert mean.shape == (1, 3, 64, 64)
    assert (mean.float() - expected).abs().max() <= 0.5


def test_style_weights_that_have_moved_are_given_anew(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    tensors, info = load_checkpoint(checkpoint)
    model = dataclasses.replace(info.model, style_weights=str(tmp_path / "gone.pth"))
    moved = tmp_path / "moved.safetensors"
    save_checkpoint(moved, tensors, dataclasses.replace(info, model=model))
    with pytest.raises(UserError, match=r"gone\.pth is not here\. Give .* --style-weights PATH"):
        evaluate(moved, samples_dir, "test", tmp_path, CONFIG, console=QUIET)
    config = dataclasses.replace(CONFIG, style_weights="random")
    metrics = evaluate(moved, samples_dir, "test", tmp_path, config, console=QUIET)
    assert metrics["style"] == str(info.style)


def test_wrong_use_is_explained(samples_dir: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no samples in the split 'val'"):
        evaluate(checkpoint, samples_dir, "val", tmp_path, CONFIG, console=QUIET)
    large = write_samples(tmp_path / "large", {"train": 1, "test": 1}, size=96)
    with pytest.raises(UserError, match=r"\(96, 96\), and the model was trained on \(64, 64\)"):
        evaluate(checkpoint, large, "test", tmp_path, CONFIG, console=QUIET)
    config = dataclasses.replace(CONFIG, fid_weights=str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"none\.pth"):
        evaluate(checkpoint, samples_dir, "test", tmp_path, config, console=QUIET)
    assert load_checkpoint(checkpoint)[1].step == 3
