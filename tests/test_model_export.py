"""export: the files that it writes, what they may not name, and what it refuses."""

import dataclasses
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from typer.testing import Result

from model.checkpoint import CheckpointInfo, load_checkpoint, pack, save_checkpoint, unpack
from model.use.export import _read_metrics, export, without_paths
from model.use.load import load_painter
from pipeline.errors import UserError
from pipeline.words import sized
from tests.calls import call
from tests.exports import ROOT, SECRET
from tests.files import files_in
from tests.model_checkpoints import write_checkpoint, write_metrics


@pytest.mark.slow
def test_the_command_says_what_it_wrote(exported: tuple[Path, Result]) -> None:
    out, result = exported
    assert result.exit_code == 0, result.output
    names = {"model.safetensors", "config.json", "model.onnx", "README.md"}
    assert {path.name for path in out.iterdir()} == names
    for name in names:
        assert f"{out / name}: {sized((out / name).stat().st_size)}" in result.output
    assert "ONNX: differs from the model by at most" in result.output
    assert "eval-val/metrics.json: is of another checkpoint, and not in the card" in result.output
    assert "no figures" not in result.output
    assert "no lock" not in result.output


@pytest.mark.slow
def test_the_weights_are_a_checkpoint_without_what_only_training_needs(
    exported_work: Path, exported: tuple[Path, Result]
) -> None:
    tensors, info = load_checkpoint(exported_work / "runs" / "first")
    found, about = load_checkpoint(exported[0])
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert dataclasses.replace(about, recipe={}) == dataclasses.replace(info, recipe={})
    config = orjson.loads((exported[0] / "config.json").read_bytes())
    assert (config["weights"], config["step"]) == ("model.safetensors", 3)
    assert config["model"]["name"] == "reference"


def test_of_weights_and_their_mean_the_mean_is_exported(
    exported_work: Path, tmp_path: Path
) -> None:
    tensors, info = load_checkpoint(exported_work / "runs" / "first")
    means = {name: tensor + 1 for name, tensor in unpack("generator", tensors).items()}
    save_checkpoint(tmp_path / "last.safetensors", tensors | pack("ema", means), info)
    export(tmp_path / "last.safetensors", tmp_path / "out", onnx=False)
    found, _ = load_checkpoint(tmp_path / "out")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[f"generator.{name}"], means[name]) for name in means)


@pytest.mark.parametrize("options", [[], ["--no-onnx"]])
def test_a_model_that_paints_no_numbers_is_refused(
    exported_work: Path, tmp_path: Path, options: list[str]
) -> None:
    tensors, info = load_checkpoint(exported_work / "runs" / "first")
    for tensor in tensors.values():
        tensor.fill_(float("nan"))
    save_checkpoint(tmp_path / "last.safetensors", tensors, info)
    out = tmp_path / "out"
    error = call("export", tmp_path / "last.safetensors", "--out", out, *options).exception
    assert isinstance(error, UserError)
    assert str(error).startswith("the model's picture is not finite: its weights are no numbers")
    assert not out.exists()


@pytest.mark.slow
def test_nothing_names_a_path_of_this_machine(exported: tuple[Path, Result]) -> None:
    for path in exported[0].iterdir():
        content = path.read_bytes()
        for secret in (SECRET, str(ROOT), sys.prefix, "site-packages", ".py"):
            if (path.name, secret) != ("README.md", ".py"):  # `python cli.py`
                assert secret.encode() not in content, (path.name, secret)


def test_without_onnx_the_rest_is_written(exported_work: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("of an earlier model")
    found = export(exported_work / "runs" / "first", tmp_path, onnx=False)
    assert found.difference is None
    assert sorted(found.files) == ["README.md", "config.json", "model.safetensors"]
    assert not (tmp_path / "model.onnx").exists()
    card = (tmp_path / "README.md").read_text()
    assert "There is no ONNX file beside it." in card
    assert "lock (`posts.parquet`): none" in card
    assert load_painter(tmp_path).model == "reference"


def test_a_card_without_figures_is_said_to_have_none(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run" / "best.safetensors", "reference")
    done = call("export", tmp_path / "run", "--out", tmp_path / "out", "--no-onnx")
    assert done.exit_code == 0, done.output
    assert "the card names no lock: run `lock`, and give --lock FILE\n" in done.output
    assert done.output.endswith("no figures: run `eval` first, or give --metrics FILE\n")


@pytest.mark.slow
def test_what_lies_beside_a_checkpoint_is_not_replaced(
    exported_work: Path, exported: tuple[Path, Result]
) -> None:
    """A run's config.json says more than an export's, and a second export knows no figures."""
    run_dir = exported_work / "runs" / "first"
    for checkpoint, folder in (
        (exported[0], exported[0]),
        (run_dir, run_dir),
        (run_dir / "best.safetensors", run_dir / "eval-test" / ".."),
    ):
        before = files_in(folder)
        refused = call("export", checkpoint, "--out", folder)
        assert isinstance(refused.exception, UserError)
        assert f"--out {folder}: the model that is exported lies there" in str(refused.exception)
        assert files_in(folder) == before


def test_a_link_to_itself_is_no_folder(exported_work: Path, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    error = call("export", exported_work / "runs/first", "--no-onnx", "--out", loop).exception
    assert str(error) == f"{loop}: cannot be written: Too many levels of symbolic links."
    error = call("export", loop / "best.safetensors", "--out", tmp_path / "out").exception
    assert str(error).startswith(f"{loop}/best.safetensors: no such checkpoint.")


def test_an_evaluation_of_another_checkpoint_is_refused(
    exported_work: Path, tmp_path: Path
) -> None:
    other = write_metrics(tmp_path / "metrics.json", step=4)
    with pytest.raises(UserError, match="at step 4, and this one is 'reference' at step 3"):
        export(
            exported_work / "runs" / "first", tmp_path / "out", metrics_paths=[other], onnx=False
        )
    other.write_text("[]")
    with pytest.raises(UserError, match="is not what `eval` writes"):
        export(
            exported_work / "runs" / "first", tmp_path / "out", metrics_paths=[other], onnx=False
        )
    other.write_text("{")
    with pytest.raises(UserError, match="cannot be read as metrics"):
        export(
            exported_work / "runs" / "first", tmp_path / "out", metrics_paths=[other], onnx=False
        )
    assert not (tmp_path / "out").exists()


def test_paths_of_weights_become_names() -> None:
    info = example_info(style_weights="/disk/vgg19.pth")
    plain_info = without_paths(info)
    assert plain_info.model.style_weights == plain_info.train.style_weights == "vgg19.pth"
    assert without_paths(example_info()) == example_info()


def example_info(**train: Any) -> CheckpointInfo:
    from model.config import TrainConfig
    from model.networks.style import Provenance

    config = TrainConfig(**train)
    style = Provenance("vgg19", "vgg19.pth", 0, "abc")
    return CheckpointInfo(config.model_config(), config, (64, 64), style, "", 0, 0, 0)


def test_what_no_card_shows_of_metrics_takes_no_memory(exported_work: Path, tmp_path: Path) -> None:
    path = write_metrics(tmp_path / "metrics.json", more=[{"a": 1}] * 10**5)
    tracemalloc.start()
    try:
        _read_metrics(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2 * path.stat().st_size
    path.write_bytes(path.read_bytes().replace(b'{"a":1}', b"[" * 10**5, 1))
    with pytest.raises(UserError, match="cannot be read as metrics"):
        export(exported_work / "runs/first", tmp_path / "out", metrics_paths=[path], onnx=False)


def test_metrics_that_eval_did_not_write_are_refused(exported_work: Path, tmp_path: Path) -> None:
    settings: list[Any] = [[], {"x": {}}]
    settings.append({"x": {"reference": "x", "num_samples": 2, "baselines": 3}})
    wrong: list[dict[str, Any]] = [{"settings": of_some} for of_some in settings]
    wrong += [{"guidance": "1"}, {"sketch": 1}, {"sha256": 1}, {"fid_weights": 1}]
    for changed in wrong:
        path = write_metrics(tmp_path / "bad.json", **changed)
        with pytest.raises(UserError, match="is not what `eval` writes: "):
            export(
                exported_work / "runs" / "first", tmp_path / "out", metrics_paths=[path], onnx=False
            )
    assert not (tmp_path / "out").exists()


def test_a_pipe_in_the_place_of_metrics_is_not_waited_for(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "run" / "best.safetensors", "reference")
    (tmp_path / "run" / "eval-test").mkdir()
    os.mkfifo(tmp_path / "run" / "eval-test" / "metrics.json")
    with pytest.raises(UserError, match=r"metrics\.json: is no plain file"):
        export(checkpoint, tmp_path / "out", onnx=False)
