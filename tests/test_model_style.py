import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import VGG19_Weights, inception_v3, vgg19

from model.networks.style import (
    STYLE_NETWORKS,
    InceptionMap,
    StyleNetwork,
    Vgg19Fc1,
    build_style_network,
    denormalise,
    normalise,
    pad_by_reflection,
)
from model.weights import read_weights
from pipeline.errors import UserError
from tests.stand_ins import SmallVgg19, Trap


@pytest.fixture(scope="module")
def vgg() -> StyleNetwork:
    return build_style_network("vgg19", normalised=False, weights="random", seed=1)


@pytest.fixture(scope="module")
def inception() -> StyleNetwork:
    return build_style_network("inception_v3", normalised=True, weights="random", seed=1)


@pytest.mark.slow
def test_vgg_gives_torchvisions_first_fully_connected_layer(vgg: StyleNetwork) -> None:
    with torch.device("meta"):
        whole = vgg19(weights=None, init_weights=False)
    whole.load_state_dict(vgg.layers.state_dict(), strict=False, assign=True)
    picture = torch.rand(1, 3, 96, 96)
    expected = whole.classifier[0](torch.flatten(whole.avgpool(whole.features(picture)), 1))
    assert torch.equal(vgg(picture), expected)
    vgg.normalised = True
    assert torch.equal(vgg(picture), vgg.layers(normalise(picture)))
    vgg.normalised = False


def test_inception_gives_torchvisions_last_map(inception: StyleNetwork) -> None:
    whole = inception_v3(
        weights=None, aux_logits=False, transform_input=True, init_weights=False
    ).eval()
    whole.load_state_dict(inception.layers.state_dict(), strict=False)
    found = []
    whole.Mixed_7c.register_forward_hook(lambda _, __, output: found.append(output))
    picture = torch.rand(1, 3, 299, 299)
    whole(normalise(picture))  # torchvision's weights come with this input and transform_input
    features = inception(picture)
    assert features.shape == (1, 2048, 8, 8)
    assert torch.allclose(features, found[0], atol=1e-4)


@pytest.mark.parametrize("side", [32, 50, 64])
def test_small_pictures_have_a_style_too(
    vgg: StyleNetwork, inception: StyleNetwork, side: int
) -> None:
    picture = torch.rand(1, 3, side, side)
    assert vgg(picture).shape == (1, 4096)
    assert vgg.vector(vgg(picture)).shape == (1, 4096)
    if side == 64:
        assert inception(picture).shape == (1, 2048, 8, 8)
        vector = inception.vector(inception(picture))
        assert torch.allclose(vector, inception(picture).mean((2, 3)))
    with pytest.raises(ValueError, match="under 32"):
        vgg(torch.rand(1, 3, 31, 64))


def test_style_networks_are_frozen(inception: StyleNetwork) -> None:
    assert not any(p.requires_grad for p in inception.parameters())
    inception.train()
    assert not any(m.training for m in inception.modules())
    before = inception.layers.state_dict()["Conv2d_1a_3x3.bn.running_mean"].clone()
    picture = torch.rand(1, 3, 64, 64)
    assert not inception(picture).requires_grad
    after = inception.layers.state_dict()["Conv2d_1a_3x3.bn.running_mean"]
    assert torch.equal(before, after)


def test_random_weights_follow_their_seed_and_say_so(inception: StyleNetwork) -> None:
    same, other = (
        build_style_network("inception_v3", normalised=True, weights="random", seed=seed)
        for seed in (1, 2)
    )
    assert same.provenance == inception.provenance
    assert other.provenance.sha256 != inception.provenance.sha256
    assert "RANDOM weights (seed 2)" in str(other.provenance)
    picture = torch.rand(4, 3, 64, 64)
    assert inception(picture).std(0).mean() > 1e-3  # not all the same to it


def test_weights_come_from_files_of_either_format(inception: StyleNetwork, tmp_path: Path) -> None:
    state = {
        name: tensor
        for name, tensor in inception.layers.state_dict().items()
        if not name.endswith("num_batches_tracked")  # as in old files
    }
    state["fc.weight"] = torch.zeros(1000, 2048)  # not ours
    torch.save(state, tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        path = str(tmp_path / name)
        loaded = build_style_network("inception_v3", normalised=True, weights=path)
        assert loaded.provenance.sha256 == inception.provenance.sha256
        assert loaded.provenance.weights == name
    with pytest.raises(UserError, match=r"'classifier\.0\.bias' is missing"):
        build_style_network("vgg19", normalised=True, weights=str(tmp_path / "w.pth"))


def test_a_weights_file_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "trap.pth"
    path.write_bytes(pickle.dumps({"features.0.weight": Trap()}))
    torch.save({"features.0.weight": Trap()}, tmp_path / "trap2.pth")
    for trap in (path, tmp_path / "trap2.pth"):
        with pytest.raises(UserError, match="holds something other than tensors"):
            build_style_network("vgg19", normalised=True, weights=str(trap))


@pytest.mark.parametrize("text", [b"", b"hello\n", b"inception\n", b"Xyz", b"<html>", b"a,b\n"])
def test_what_is_no_file_of_weights_is_said_to_be_none(tmp_path: Path, text: bytes) -> None:
    """To a reader of pickles any text is one, with something else wrong each time."""
    path = tmp_path / "text.pth"
    path.write_bytes(text)
    with pytest.raises(UserError, match=r"text\.pth: is neither a file of weights that PyTorch wr"):
        read_weights(path)
    path = path.rename(tmp_path / "text.safetensors")
    with pytest.raises(UserError, match=r"cut short, or not a \.safetensors file\. Copy or down"):
        read_weights(path)


def test_unusable_weights_files_are_named(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"list\.pth: is not a state dict of named tensors"):
        read_weights(tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"missing\.pth: no such file\.$"):
        read_weights(tmp_path / "missing.pth")
    with pytest.raises(UserError, match=r": is a folder\.$"):
        read_weights(tmp_path)
    state = {"a": torch.rand(3, 4)}
    save_file(state, tmp_path / "whole.safetensors")
    torch.save(state, tmp_path / "whole.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in list(tmp_path.glob("[wo]*")):
        assert read_weights(path).keys() == {"a"}
        content, torn = path.read_bytes(), tmp_path / f"torn-{path.name}"
        for length in (8, 40, len(content) // 2, len(content) - 1):
            torn.write_bytes(content[:length])
            said = r": damaged or cut short, or not a [.a-zA-Z ]+\. Copy or download it again\.$"
            with pytest.raises(UserError, match=f"{torn}{said}"):
                read_weights(torn)


@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.int,
        lambda t: t.to(torch.complex64),
        torch.Tensor.to_sparse,
        lambda t: t.to("meta"),
    ],
    ids=["whole", "complex", "sparse", "nowhere"],
)
def test_weights_that_are_no_plain_numbers_are_refused(
    tmp_path: Path, convert: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STYLE_NETWORKS, "vgg19", SmallVgg19)
    state = SmallVgg19.build_layers().state_dict()
    path = tmp_path / "weights.pth"
    torch.save({name: convert(tensor) for name, tensor in state.items()}, path)
    with pytest.raises(UserError, match=r"weights\.pth: 'classifier\.0\.bias' is missing or has"):
        build_style_network("vgg19", normalised=False, weights=str(path))
    torch.save({name: tensor.half() for name, tensor in state.items()}, path)
    network = build_style_network("vgg19", normalised=False, weights=str(path))
    assert network(torch.rand(1, 3, 64, 64)).dtype == torch.float32


def test_without_network_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, httpserver: HTTPServer
) -> None:
    url = httpserver.url_for("/vgg19-dcbb9e9d.pth")  # the server answers 500
    assert VGG19_Weights.IMAGENET1K_V1.url == Vgg19Fc1.imagenet_url
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(Vgg19Fc1, "imagenet_url", url)
    with pytest.raises(UserError, match=r"--style-weights PATH.*--style-weights random"):
        build_style_network("vgg19", normalised=True)


def test_published_weights_are_downloaded_once_and_checked(
    inception: StyleNetwork,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    httpserver: HTTPServer,
) -> None:
    file = io.BytesIO()
    torch.save(inception.layers.state_dict(), file)
    name = f"inception-{hashlib.sha256(file.getvalue()).hexdigest()[:8]}.pth"
    httpserver.expect_oneshot_request(f"/{name}").respond_with_data(file.getvalue())
    httpserver.expect_request("/inception-00000000.pth").respond_with_data(file.getvalue())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(InceptionMap, "imagenet_url", httpserver.url_for(f"/{name}"))
    for _ in range(2):
        loaded = build_style_network("inception_v3", normalised=True, weights="imagenet")
        assert loaded.provenance.sha256 == inception.provenance.sha256
        assert loaded.provenance.weights == "imagenet"
    cached = tmp_path / "hub" / "checkpoints" / name
    cached.write_bytes(b"something else")
    with pytest.raises(UserError, match=f"{name}: is not the file that was published"):
        build_style_network("inception_v3", normalised=True, weights="imagenet")
    wrong = httpserver.url_for("/inception-00000000.pth")
    monkeypatch.setattr(InceptionMap, "imagenet_url", wrong)
    with pytest.raises(UserError, match="invalid hash value"):
        build_style_network("inception_v3", normalised=True, weights="imagenet")


@given(
    height=st.integers(2, 12), width=st.integers(2, 12), size=st.integers(1, 40), seed=st.integers()
)
def test_padding_mirrors_as_numpy_does(height: int, width: int, size: int, seed: int) -> None:
    picture = np.random.default_rng(abs(seed)).random((1, 1, height, width))
    padded = pad_by_reflection(torch.from_numpy(picture), size).numpy()
    margins = [
        ((max(n, size) - n) // 2, max(n, size) - n - (max(n, size) - n) // 2)
        for n in (height, width)
    ]
    assert (padded == np.pad(picture, [(0, 0), (0, 0), *margins], mode="reflect")).all()


def test_normalising_is_undone() -> None:
    picture = torch.rand(2, 3, 4, 4)
    assert torch.allclose(denormalise(normalise(picture)), picture, atol=1e-6)
    white = normalise(torch.ones(1, 3, 1, 1)).flatten()
    assert torch.allclose(white, torch.tensor([2.2489, 2.4286, 2.6400]), atol=1e-4)
