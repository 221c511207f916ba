import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.data.features import StyleFeatures
from model.data.samples import Samples, to_unit
from model.networks.style import Provenance, StyleNetwork
from pipeline.errors import UserError
from tests.model_samples import write_samples

CPU = torch.device("cpu")


class Means(StyleNetwork):
    """A style network that is cheap, and counts what it is asked for."""

    name = "means"
    shape = (3, 2, 2)
    imagenet_url = ""

    def __init__(self, sha256: str = "a", *, normalised: bool = True) -> None:
        super().__init__(nn.Sequential(nn.AdaptiveAvgPool2d(2)), normalised=normalised)
        self.provenance = Provenance("means", "random", 0, sha256)
        self.num_seen = 0

    def prepare(self, reference: Tensor) -> Tensor:
        self.num_seen += len(reference)
        return reference


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    return Samples(write_samples(tmp_path / "samples"), "train")


def ask(features: StyleFeatures, samples: Samples, *places: int) -> Tensor:
    batch = samples.load(places)
    return features(batch, to_unit(batch.color, CPU))


def test_each_picture_is_computed_once(samples: Samples, tmp_path: Path) -> None:
    network = Means()
    features = StyleFeatures(network, samples, tmp_path / "style")
    first = ask(features, samples, 1, 2, 3)
    second = ask(features, samples, 3, 4, 1)
    assert network.num_seen == 4
    assert torch.equal(first[[2, 0]], second[[0, 2]])
    fresh = network(to_unit(samples.load([1, 2, 3]).color, CPU))
    assert first.dtype == torch.float32
    assert torch.equal(first, fresh.half().float())
    features.close()


def test_features_outlive_the_process_once_flushed(samples: Samples, tmp_path: Path) -> None:
    features = StyleFeatures(Means(), samples, tmp_path)
    first = ask(features, samples, 0, 5)
    features.flush()
    ask(features, samples, 6)  # computed, and lost with the process
    again = Means()
    reopened = StyleFeatures(again, samples, tmp_path)
    assert torch.equal(ask(reopened, samples, 0, 5), first)
    assert again.num_seen == 0
    ask(reopened, samples, 6)
    assert again.num_seen == 1


def test_processes_side_by_side_take_each_others_features_and_lose_none(
    samples: Samples, tmp_path: Path
) -> None:
    networks = [Means(), Means()]
    one, other = (StyleFeatures(network, samples, tmp_path) for network in networks)
    expected = [ask(one, samples, 0, 5), ask(other, samples, 1)]
    for features in (one, other, one):
        features.flush()
    reopened = StyleFeatures(Means(), samples, tmp_path)
    for features in (one, other, reopened):
        assert torch.equal(ask(features, samples, 0, 5, 1), torch.cat(expected))
        features.close()
    assert [network.num_seen for network in networks] == [2, 1]


def test_no_features_are_written_through_a_link(samples: Samples, tmp_path: Path) -> None:
    StyleFeatures(Means(), samples, tmp_path / "style").close()
    outside = tmp_path / "outside"
    for path in list((tmp_path / "style").iterdir()):
        path.unlink()
        path.symlink_to(outside)
        with pytest.raises(OSError, match="symbolic links"):
            StyleFeatures(Means(), samples, tmp_path / "style")
        path.unlink()
    assert not outside.exists()


def test_other_weights_and_other_samples_have_their_own_file(
    samples: Samples, tmp_path: Path
) -> None:
    StyleFeatures(Means("a"), samples, tmp_path / "style").close()
    StyleFeatures(Means("b"), samples, tmp_path / "style").close()
    other = Samples(write_samples(tmp_path / "other", {"train": 9}), "train")
    StyleFeatures(Means("a"), other, tmp_path / "style").close()
    assert len(list((tmp_path / "style").glob("train-*.f16"))) == 3


def test_normalised_pictures_and_others_have_files_apart(samples: Samples, tmp_path: Path) -> None:
    for normalised in (True, False):
        StyleFeatures(Means(normalised=normalised), samples, tmp_path / "style").close()
    assert len(list((tmp_path / "style").glob("train-*.f16"))) == 2


def test_without_a_folder_nothing_is_kept(samples: Samples) -> None:
    network = Means()
    features = StyleFeatures(network, samples, None)
    first = ask(features, samples, 0, 1)
    assert torch.equal(first, ask(features, samples, 0, 1))
    assert network.num_seen == 4
    features.flush()
    features.close()


def test_a_full_disk_and_a_file_in_the_way_are_found_beforehand(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = SimpleNamespace(free=8 * np.prod(Means.shape) * 2 - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    with pytest.raises(UserError, match=r"train\.cache_style=false"):
        StyleFeatures(Means(), samples, tmp_path)
    full.free += 1
    StyleFeatures(Means(), samples, tmp_path).close()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot be written"):
        StyleFeatures(Means(), samples, tmp_path / "file")


def test_features_of_another_size_than_can_be_kept_are_a_sentence(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Means, "shape", (3, 4, 4))
    features = StyleFeatures(Means(), samples, tmp_path)
    with pytest.raises(UserError, match=r"means gives \(3, 2, 2\) .* \(3, 4, 4\) can be kept"):
        ask(features, samples, 0)


@pytest.mark.parametrize("num_left", [None, 0, 2.5])
def test_features_that_the_file_lost_are_computed_again(
    samples: Samples, tmp_path: Path, num_left: float | None
) -> None:
    """``num_left``: rows that the file is cut to; None: it is gone."""
    features = StyleFeatures(Means(), samples, tmp_path)
    expected = ask(features, samples, 0, 1, 2, 3)
    features.close()
    (path,) = tmp_path.glob("*.f16")
    if num_left is None:
        path.unlink()
    else:
        os.truncate(path, int(num_left * np.prod(Means.shape) * 2))
    num_lost = 4 - int(num_left or 0)
    again = Means()
    reopened = StyleFeatures(again, samples, tmp_path)
    assert torch.equal(ask(reopened, samples, 3), expected[3:])  # leaves a gap before it
    reopened.close()
    once_more = Means()
    reopened = StyleFeatures(once_more, samples, tmp_path)
    assert torch.equal(ask(reopened, samples, 0, 1, 2, 3), expected)
    assert (again.num_seen, once_more.num_seen) == (1, num_lost - 1)
    reopened.close()


def test_features_lost_while_they_are_in_use_are_computed_again(
    samples: Samples, tmp_path: Path
) -> None:
    network = Means()
    features = StyleFeatures(network, samples, tmp_path)
    expected = ask(features, samples, 0, 1)
    features.flush()
    (path,) = tmp_path.glob("*.f16")
    os.truncate(path, 0)
    for _ in range(2):
        assert torch.equal(ask(features, samples, 0, 1), expected)
    assert network.num_seen == 4
    features.close()
