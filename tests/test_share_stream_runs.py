"""Runs from afar: the run from disk, which can go on there."""

import dataclasses
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from model.checkpoint import load_checkpoint
from model.training.train import train as run_training
from pipeline.share.stream import RemoteShards
from pipeline.web.serve import serve_folder
from tests.calls import call
from tests.model_checkpoints import CONFIG as SMALL
from tests.shares import QUIET
from tests.stand_ins import Thumbnails
from tests.streams import BIG, CountingServer


def train(work: Path, *options: str) -> list[dict[str, Any]]:
    """Train by the command line; return the log without times."""
    arguments = ["train", "white-background-256", "--work", str(work), "--run", "one"]
    settings = ["model=reference", "width_multiplier=0.25", "log_every=1", "pairs=0.5"]
    settings += ["validations_per_epoch=1", "num_grid=2", "num_following=2", "batch_size=8"]
    arguments += [word for text in settings for word in ("--set", f"train.{text}")]
    arguments += ["--device", "cpu", *options]
    called = call(*arguments)
    assert called.exit_code == 0, called.output
    lines = [orjson.loads(s) for s in (work / "runs/one/log.jsonl").read_bytes().splitlines()]
    times = ("samples_per_second", "data_wait")
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


@pytest.mark.slow
def test_a_run_from_afar_is_the_run_from_disk_and_can_go_on_there(
    streamed: Path, counting_server: CountingServer, tmp_path: Path
) -> None:
    shutil.copytree(streamed / "work" / "samples", tmp_path / "here" / "samples")
    expected = train(tmp_path / "here", "--epochs", "2")
    found = train(tmp_path / "afar", "--epochs", "2", "--shards", counting_server.url)
    assert found == expected
    tensors = [
        load_checkpoint(tmp_path / p / "runs/one/last.safetensors") for p in ("here", "afar")
    ]
    (one, one_info), (two, two_info) = tensors
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one_info.samples == two_info.samples
    assert two_info.recipe["prepare"]["size"] == 64  # the samples' own recipe
    longer = ("--epochs", "3", "--resume")
    assert train(tmp_path / "here", *longer, "--shards", counting_server.url) == train(
        tmp_path / "afar", *longer, "--shards", counting_server.url, "--cache", str(tmp_path / "c")
    )
    assert list((tmp_path / "afar" / "cache").glob("*.tar"))
    assert list((tmp_path / "c").glob("*.tar"))
    assert not (tmp_path / "afar" / "samples").exists()


@pytest.mark.parametrize("best_by", ["mse", "chroma_error"])
def test_what_is_looked_at_before_the_first_step_comes_in_whole_shards(
    best_by: str, streamed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A discriminator is fitted on some samples, and `best_by` checked: none comes by itself."""
    monkeypatch.setattr(
        "model.training.train.build_style_network", lambda *names, **settings: Thumbnails()
    )
    config = dataclasses.replace(SMALL, epochs=1, validations_per_epoch=1, best_by=best_by)
    with (
        serve_folder(streamed / "there") as url,
        closing(RemoteShards(url, tmp_path / "cache", BIG)) as shards,
    ):
        result = run_training(config, shards, tmp_path / "run", console=QUIET)
    assert result.finished
