import math
import pickle
from pathlib import Path

import pytest
import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from model.evaluation.fid import extract_features, fid, kid, load_extractor
from pipeline.errors import UserError
from tests.stand_ins import SmallInception, Trap
from tests.tensors import drawn


class Pictures(Dataset[Tensor]):
    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return self.pictures[index]


@pytest.fixture(scope="module")
def extractor() -> SmallInception:
    torch_fidelity.register_feature_extractor("thumbnails", SmallInception)
    return SmallInception("thumbnails", ["small"])


def noisy(pictures: Tensor, amount: float) -> Tensor:
    noise = torch.randn(len(pictures), 3, 1, 1, generator=torch.Generator().manual_seed(0))
    return (pictures + amount * noise).clamp(0, 255).to(torch.uint8)


def test_equal_sets_have_no_distance_and_noise_adds_to_it(extractor: SmallInception) -> None:
    pictures = drawn(*range(40))
    real = extract_features(extractor, pictures)
    found = [extract_features(extractor, noisy(pictures, a)) for a in (0, 20, 60)]
    fids = [fid(real, f) for f in found]
    kids = [kid(real, f, seed=0) for f in found]
    assert fids[0] == pytest.approx(0, abs=1e-4)
    assert kids[0] == pytest.approx(0, abs=1e-2)
    assert fids == sorted(fids)
    assert kids == sorted(kids)
    assert fids[2] > 2 * fids[1] > 0


def test_the_numbers_are_torch_fidelitys(
    extractor: SmallInception, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = drawn(*range(30)), drawn(*range(100, 130))
    monkeypatch.setattr("model.evaluation.fid.KID_SUBSET_SIZE", 20)  # so that the seed chooses
    theirs = torch_fidelity.calculate_metrics(
        input1=Pictures(one),
        input2=Pictures(two),
        fid=True,
        kid=True,
        kid_subset_size=20,
        rng_seed=7,
        feature_extractor="thumbnails",
        cuda=False,
        save_cpu_ram=True,
        verbose=False,
    )
    a, b = (
        torch.cat([extract_features(extractor, part) for part in torch.tensor_split(pictures, 4)])
        for pictures in (one, two)
    )
    assert fid(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert kid(a, b, seed=7) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)


def test_every_seed_that_an_evaluation_takes_does_for_kid() -> None:
    """NumPy's old generator, which chooses the subsets, takes 32 bits of it."""
    a, b = torch.rand(6, 8), torch.rand(6, 8)
    assert math.isfinite(kid(a, b, seed=2**63 - 1))
    assert kid(a, b, seed=2**32 + 7) == kid(a, b, seed=7)


def test_inceptions_weights_come_from_a_file_that_cannot_run_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **kwargs: object) -> dict[str, Tensor]:
        raise AssertionError("asked the network")

    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", offline
    )
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"x": Trap()}))
    with pytest.raises(UserError, match="holds something other than tensors"):
        load_extractor(path, torch.device("cpu"))
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not the weights of torch-fidelity's Inception"):
        load_extractor(path, torch.device("cpu"))


def test_inceptions_weights_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:  # weights of the right names, without a download
        patch.setattr(
            "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url",
            lambda *args, **kwargs: {},
        )
        patch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
        original = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], verbose=False)
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    loaded = load_extractor(tmp_path / "weights.pth", torch.device("cpu"))
    pictures = drawn(1, 2)
    features = extract_features(loaded, pictures)
    assert features.shape == (2, 2048)
    assert torch.equal(features, extract_features(original, pictures))
