import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from model.checkpoint import load_checkpoint
from model.data.order import epoch_order
from model.ranks import Ranks, join_ranks
from model.training.rundir import claim
from pipeline.errors import UserError
from tests.model_samples import write_samples
from tests.train_ranks import train_small

ROOT = Path(__file__).resolve().parent.parent
PLACE = {"kind", "step", "epoch", "position"}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
TORCHRUN_SETS = {
    "WORLD_SIZE": "3",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


@given(n=st.integers(1, 100), batch=st.integers(1, 9), world=st.integers(1, 5))
def test_the_ranks_parts_of_each_batch_are_the_batch(n: int, batch: int, world: int) -> None:
    ranks = [Ranks(rank, world) for rank in range(world)]
    order = epoch_order(n, 0, 0)
    whole = order[: n - n % batch].reshape(-1, batch)
    for i, expected in enumerate(whole):
        parts = []
        for one in ranks:
            size = one.part_size(batch)
            parts.append(one.part(order, batch)[i * size : (i + 1) * size].tolist())
        assert sorted(itertools.chain(*parts)) == sorted(expected)
    scales = [one.loss_scale(batch) for one in ranks]
    assert sum(scales) == pytest.approx(world)
    pairs = np.stack([order, order[::-1]], axis=1)
    assert (ranks[0].part(pairs, batch)[:, 0] == ranks[0].part(order, batch)).all()


def test_more_ranks_than_samples_in_a_batch_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN_SETS.items():
        monkeypatch.setenv(name, value)
    expected = pytest.raises(UserError, match=r"batch_size = 2 leaves some of 3 processes without")
    with expected, join_ranks("cpu", 2):
        pass


def test_one_gpu_for_all_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN_SETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.distributed.init_process_group", pytest.fail)  # it would wait
    expected = pytest.raises(UserError, match=r"'cuda:1' is one device for 3 processes\. Give cuda")
    with expected, join_ranks("cuda:1", 8):
        pass


@pytest.mark.parametrize("wrong", [{"RANK": ""}, {"MASTER_ADDR": None}, {"WORLD_SIZE": "two"}])
def test_processes_that_torchrun_did_not_start_are_told(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str | None]
) -> None:
    for name, value in (TORCHRUN_SETS | wrong).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    expected = pytest.raises(UserError, match="start with torchrun, or unset WORLD_SIZE")
    with expected, join_ranks("cpu", 8):
        pass


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error: Connection reset"), UserError),
        (dist.DistBackendError("NCCL communicator was aborted"), UserError),
        (RuntimeError("a fault of ours"), RuntimeError),
    ],
)
def test_a_process_that_lost_the_others_says_that_their_words_count(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError, expected: type[Exception]
) -> None:
    for name, value in TORCHRUN_SETS.items():
        monkeypatch.setenv(name, value)
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(dist, name, lambda *_: None)
    with pytest.raises(expected) as raised, join_ranks("cpu", 8):
        raise error
    assert (type(raised.value) is UserError) == ("another process" in str(raised.value))


@pytest.mark.slow
@pytest.mark.usefixtures("small_style_networks")
@pytest.mark.parametrize(
    ("model", "accumulate"), [("zhang2017", 1), ("batchnorm", 1), ("reference", 2)]
)
def test_two_processes_train_as_one(tmp_path: Path, model: str, accumulate: int) -> None:
    """Three samples a batch for two processes: not even the parts are of one size. Where these are
    taken in parts again, the second process has but one.

    The first step's losses and gradients differ by float32's rounding alone. Adam divides each
    gradient by its size, so it carries the rounding of gradients near zero into the weights, and
    the norms of later gradients show it; the losses hardly do. Validations see pictures rounded to
    bytes. A loss that is not weighted by the parts' sizes, gradients that are not averaged, and a
    BatchNorm for each process alone all miss these bounds in the first step.
    """
    samples_dir = write_samples(tmp_path / "samples", {"train": 8, "val": 3})
    train_small(samples_dir, tmp_path / "one", model, num_steps=4)
    train_as_two(samples_dir, tmp_path / "two", model, 3, accumulate).check_returncode()
    assert load_checkpoint(tmp_path / "two" / "last.safetensors")[1].step == 3
    train_small(samples_dir, tmp_path / "two", model, num_steps=1)  # and goes on alone
    expected, found = (log_of(tmp_path / name) for name in ("one", "two"))
    assert len(expected) == len(found) > 6
    for a, b in zip(expected, found, strict=True):
        assert a.keys() == b.keys()
        assert {n: a[n] for n in PLACE} == {n: b[n] for n in PLACE}
        # Following is a slope over rounded pictures, all of one colour after so few steps: noise.
        for name in a.keys() - PLACE - {"samples_per_second", "data_wait", "following"}:
            bound = 1e-2 if name.startswith("norm_") else 1e-3
            if a["step"] == 1 and a["kind"] == "train":
                bound = 1e-5
            assert b[name] == pytest.approx(a[name], rel=bound), (a["kind"], a["step"], name)


@pytest.mark.slow
@pytest.mark.usefixtures("small_style_networks")
@pytest.mark.parametrize("own", ["samples", "run"])
def test_processes_that_do_not_begin_alike_do_not_begin(tmp_path: Path, own: str) -> None:
    """As on two machines without a common disk, where the first alone has the run's folder."""
    samples_dir = write_samples(tmp_path / "samples-0", {"train": 8, "val": 3})
    write_samples(tmp_path / "samples-1", {"train": 8, "val": 3}, flat=own == "samples")
    if own == "run":
        train_small(samples_dir, tmp_path / "run-0", "batchnorm", num_steps=1)
    folders = tmp_path / "samples-{rank}", tmp_path / ("run-{rank}" if own == "run" else "run-0")
    done = train_as_two(*folders, "batchnorm", num_steps=1)
    assert done.returncode != 0
    assert "do not begin alike" in done.stderr
    left = sorted(path.name for path in tmp_path.glob("run-*/*.safetensors"))
    assert left == (["best.safetensors", "last.safetensors"] if own == "run" else [])


@pytest.mark.slow
def test_what_ends_one_process_is_said_once_and_ends_the_others_in_a_sentence(
    tmp_path: Path,
) -> None:
    write_samples(tmp_path / "samples", {"train": 8, "val": 3})
    settings = ["--set", "train.width_multiplier=0.1", "--batch-size", "4", "--device", "cpu"]
    train = ["cli.py", "train", "characters-64", "--work", str(tmp_path), *settings]
    with claim(tmp_path / "runs" / "default"):
        done = subprocess.run(
            [sys.executable, *TORCHRUN, "2", "--", *train],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.stderr.count("another process is training here") == 1, done.stderr
    assert "[rank1]" not in done.stderr  # whose first sum over the ranks finds the other one gone


def test_what_every_process_has_to_say_is_said_by_one(tmp_path: Path) -> None:
    def train(recipe: str, rank: str) -> tuple[int, str]:
        (tmp_path / rank).mkdir(exist_ok=True)
        place = {"LOCAL_RANK": rank, "TORCHELASTIC_ERROR_FILE": f"{tmp_path}/{rank}/error.json"}
        command = [sys.executable, "cli.py", "train", recipe]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | place, capture_output=True, text=True
        )
        return done.returncode, done.stderr

    code, said = train("nosuchrecipe", "1")
    assert code == 2
    assert said.startswith("error: no recipe 'nosuchrecipe'")
    assert train("nosuchrecipe", "2") == (0, "")  # torchrun prints a block of each that fails
    code, said = train("nosuchrecipe2", "2")
    assert code == 2
    assert said.startswith("error: no recipe 'nosuchrecipe2'")


def train_as_two(
    samples_dir: Path, run_dir: Path, model: str, num_steps: int, accumulate: int = 1
) -> "subprocess.CompletedProcess[str]":
    """Train in two processes; in the folders' names {rank} is the number of each."""
    arguments = map(str, [samples_dir, run_dir, model, num_steps, accumulate])
    command = [sys.executable, *TORCHRUN, "2", "-m", "tests.train_ranks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def log_of(run_dir: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (run_dir / "log.jsonl").read_bytes().splitlines()]
