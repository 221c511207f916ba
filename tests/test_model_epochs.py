"""What an epoch's number decides: the order, the pairs, and what becomes of each sample."""

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import load_checkpoint
from model.config import TrainConfig, train_config
from model.data.augment import augment_batch
from model.data.epochs import choose_sketches, iterate_steps, order_of, windows_of
from model.data.order import Window
from model.data.pairs import Partners, pair_epoch
from model.data.samples import Batch, Samples
from model.ranks import Ranks
from tests.model_runs import log_of, run
from tests.model_samples import write_samples

CONFIG = train_config(
    {
        "model": "reference",
        "width_multiplier": 0.125,
        "batch_size": 4,
        "epochs": 2,
        "validations_per_epoch": 0.5,
        "pairs": 0.5,
        "seed": 3,
        "device": "cpu",
        "num_following": 2,
        "num_grid": 2,
    },
    "test",
)


@pytest.fixture(scope="module")
def samples_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("samples"), characters=["a", "b", ""])


def test_each_epoch_has_its_own_order_and_its_own_pairs(samples_dir: Path) -> None:
    with Samples(samples_dir, "train") as samples:
        steps = list(iterate_steps(samples, CONFIG, Ranks(), 0, 0, pin=False))
        orders = [order_of(samples, CONFIG, epoch) for epoch in (0, 1)]
        assert orders[0].tolist() != orders[1].tolist()
        for epoch, order in enumerate(orders):
            pairs = pair_epoch(order, Partners(samples), CONFIG.seed, epoch, CONFIG.pairs)
            expected = samples.load(pairs)
            batches = [batch for current, _, batch, _ in steps if current == epoch]
            assert [i for b in batches for i in b.indices] == expected.indices.tolist()
            assert torch.equal(torch.cat([b.reference for b in batches]), expected.reference)


def test_each_epoch_draws_every_sample_by_one_of_the_sketches(tmp_path: Path) -> None:
    names = ("sketch", "sketch_ink")
    several = write_samples(tmp_path, ink=True)
    config = dataclasses.replace(CONFIG, sketches=names, pairs=0.0, epochs=8)
    with ExitStack() as stack:
        both, *each = (
            stack.enter_context(Samples(several, "train", *members))
            for members in (names, *((name,) for name in names))
        )
        drawn, chosen_in = [], set()
        for epoch in range(config.epochs):
            order = order_of(both, config, epoch)
            chosen = choose_sketches(len(order), config, epoch)
            chosen_in.add(tuple(chosen))
            whole = list(iterate_steps(both, config, Ranks(), epoch, 0, pin=False))
            batches = [batch for current, _, batch, _ in whole if current == epoch]
            sketches = torch.cat([batch.sketch for batch in batches])
            expected = [
                each[n].load([place]).sketch for n, place in zip(chosen, order, strict=True)
            ]
            assert torch.equal(sketches, torch.cat(expected))
            drawn.append(chosen[np.argsort(order)])
            start = config.batch_size
            rest = next(iterate_steps(both, config, Ranks(), epoch, start, pin=False))[2]
            assert torch.equal(rest.sketch, sketches[start : 2 * start])  # as a run that resumes
    assert len(chosen_in) == config.epochs
    assert 0.3 < np.mean(drawn) < 0.7
    assert all(np.ptp(np.stack(drawn), axis=0))  # none is always drawn by the same one


def test_a_run_learns_from_its_sketches_and_is_validated_on_its_sketch(tmp_path: Path) -> None:
    several = write_samples(tmp_path / "samples", ink=True)
    config = dataclasses.replace(CONFIG, epochs=1, precision="fp32")
    runs: dict[str, dict[str, Any]] = {
        "pencil": {},
        "ink": {"sketch": "sketch_ink"},
        "ink to learn from": {"sketches": ("sketch_ink",)},
    }
    for name, changes in runs.items():
        run(several, tmp_path / name, dataclasses.replace(config, **changes))
    pencil, ink, learning = (
        load_checkpoint(tmp_path / name / "last.safetensors")[0]["generator.encoder.lines.weight"]
        for name in runs
    )
    assert torch.equal(learning, ink)
    assert not torch.equal(learning, pencil)
    mse = {name: log_of(tmp_path / name)[-1]["mse"] for name in ("ink", "ink to learn from")}
    assert mse["ink"] != mse["ink to learn from"]  # of the same weights, on other sketches


def test_the_shards_that_come_next_are_told_in_time(
    samples_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[Window]] = []
    monkeypatch.setattr(Samples, "expect", lambda _, windows: told.append(windows))
    config = dataclasses.replace(CONFIG, batch_size=1, shuffle_shards=1)
    with Samples(samples_dir, "train") as samples:
        (a, b), (c, d) = (windows_of(samples, config, epoch) for epoch in (0, 1))
        list(iterate_steps(samples, config, Ranks(), 0, 0, pin=False))
        assert told == [[a, b, c, d], [b, c, d], [c, d], [c, d], [d], []]
        told.clear()
        list(iterate_steps(samples, config, Ranks(), 0, a.end, pin=False))
        assert told == [[b, c, d], [c, d], [c, d], [d], []]


def test_each_epoch_changes_its_samples_anew(
    samples_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []

    def noting(batch: Batch, config: TrainConfig, epoch: int, *rest: Any) -> Any:
        epochs.append(epoch)
        return augment_batch(batch, config, epoch, *rest)

    monkeypatch.setattr("model.training.train.augment_batch", noting)
    run(samples_dir, tmp_path, dataclasses.replace(CONFIG, pairs=0.0))
    assert epochs == [0, 0, 1, 1]
