from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.order import epoch_order
from model.data.pairs import Partners, pair_epoch, pair_up
from model.data.samples import Samples
from pipeline.errors import UserError
from tests.model_samples import write_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Characters a b - a b - a b - a: eight samples, of which - have none."""
    directory = write_samples(
        tmp_path_factory.mktemp("samples"), {"train": 8}, characters=["a", "b", ""]
    )
    return Samples(directory, "train")


def test_an_epochs_pairs_are_drawings_of_one_character_and_never_of_one_family(
    samples: Samples,
) -> None:
    partners = Partners(samples)
    assert partners.paired.tolist() == [0, 1, 3, 4, 6, 7]
    seen = set()
    for epoch in range(40):
        pairs = pair_epoch(epoch_order(8, 0, epoch), partners, 0, epoch, share=0.5)
        assert pairs.shape == (8, 2)
        for target, reference in pairs.tolist():
            if target != reference:
                assert samples.characters[target] == samples.characters[reference] != ""
                assert samples.families[target] != samples.families[reference]
                seen.add((target, reference))
    assert {r for t, r in seen if t == 0} == {3, 6}  # every partner gets its turn
    assert {t for t, _ in seen} == {0, 1, 3, 4, 6, 7}


def test_the_share_of_pairs_is_kept_though_few_have_a_partner(samples: Samples) -> None:
    partners = Partners(samples)
    pairs = np.concatenate(
        [
            pair_epoch(epoch_order(8, 1, epoch), partners, 1, epoch, share=0.25)
            for epoch in range(200)
        ]
    )
    assert (pairs[:, 0] != pairs[:, 1]).mean() == pytest.approx(0.25, abs=0.04)


def test_an_epochs_pairs_are_a_pure_function(samples: Samples) -> None:
    partners = Partners(samples)
    one = pair_epoch(epoch_order(8, 3, 2), partners, 3, 2, share=0.5)
    assert np.array_equal(one, pair_epoch(epoch_order(8, 3, 2), partners, 3, 2, share=0.5))
    assert not np.array_equal(one, pair_epoch(epoch_order(8, 3, 1), partners, 3, 1, share=0.5))
    assert not np.array_equal(one, pair_epoch(epoch_order(8, 4, 2), partners, 4, 2, share=0.5))
    pairs = pair_epoch(np.arange(8), partners, 3, 2, share=0.75)  # the same on every machine
    assert pairs[:4].tolist() == [[0, 3], [1, 7], [1, 7], [3, 0]]
    assert pairs[4:].tolist() == [[4, 4], [7, 1], [6, 0], [7, 7]]


def test_without_pairs_the_order_is_the_epochs(samples: Samples) -> None:
    for partners in (None, Partners(samples)):
        pairs = pair_epoch(epoch_order(8, 3, 2), partners, 3, 2, share=0.0)
        assert np.array_equal(pairs[:, 0], epoch_order(8, 3, 2))
        assert np.array_equal(pairs[:, 0], pairs[:, 1])


def test_a_set_without_partners_goes_without_pairs(tmp_path: Path) -> None:
    with Samples(write_samples(tmp_path, {"train": 3}), "train") as samples:
        pairs = pair_epoch(epoch_order(3, 0, 0), Partners(samples), 0, 0, share=1.0)
        assert np.array_equal(pairs[:, 0], pairs[:, 1])
        for reference in ("self", "same"):
            assert pair_up(samples, reference).tolist() == [[0, 0], [1, 1], [2, 2]]
        with pytest.raises(UserError, match="--reference same"):
            pair_up(samples, "character")


def test_one_family_alone_gives_no_pair(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    families = samples.families.copy()
    families[[1, 4, 7]] = families[1]
    monkeypatch.setattr(samples, "families", families)
    partners = Partners(samples)
    assert partners.paired.tolist() == [0, 3, 6]
    assert partners.partner(1) is None
    families[0] = families[3]
    assert [Partners(samples).partner(place) for place in (0, 3, 6)] == [6, 6, 0]


def test_the_next_drawing_of_a_character_gives_the_colours(samples: Samples) -> None:
    pairs = pair_up(samples, "character")
    assert pairs.tolist() == [[0, 3], [1, 4], [3, 6], [4, 7], [6, 0], [7, 1]]


def test_any_other_picture_is_never_ones_own(samples: Samples) -> None:
    pairs = pair_up(samples, "any", seed=4)
    assert pairs[:, 0].tolist() == list(range(8))
    assert sorted(pairs[:, 1]) == list(range(8))
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert not np.array_equal(pairs, pair_up(samples, "any", seed=5))


def test_of_two_samples_each_gives_the_other_its_colours(tmp_path: Path) -> None:
    with Samples(write_samples(tmp_path, {"test": 2}), "test") as samples:
        assert pair_up(samples, "any").tolist() == [[0, 1], [1, 0]]


def test_one_sample_has_no_other(tmp_path: Path) -> None:
    with (
        Samples(write_samples(tmp_path, {"test": 1}), "test") as samples,
        pytest.raises(UserError, match="one sample"),
    ):
        pair_up(samples, "any")


def test_a_batch_of_pairs_holds_the_references(samples: Samples) -> None:
    batch = samples.load(np.array([[0, 3], [2, 2]]))
    alone = samples.load([0, 2, 3])
    assert torch.equal(batch.color, alone.color[:2])
    assert torch.equal(batch.reference[0], alone.color[2])
    assert torch.equal(batch.reference[1], alone.color[1])
    assert torch.equal(alone.reference, alone.color)
    assert batch.indices.tolist() == [0, 2]
