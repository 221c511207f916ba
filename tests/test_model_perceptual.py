from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import alexnet

from model.evaluation.perceptual import load_lpips, lpips_distance
from pipeline.errors import UserError
from tests.tensors import drawn

pytest.importorskip("lpips", reason="the extra lpips is not installed")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AlexNet's layers with random weights: those that it was trained to cannot be had here."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(alexnet().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def network(weights: Path) -> nn.Module:
    return load_lpips(weights, CPU)


def test_equal_pictures_are_at_0_and_noise_takes_them_apart(network: nn.Module) -> None:
    truth = drawn(1, 2)
    assert lpips_distance(network, truth, truth).tolist() == [0, 0]
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    little, much = (
        lpips_distance(network, (truth + s * noise).clamp(0, 255).to(torch.uint8), truth)
        for s in (5, 40)
    )
    assert (little > 0).all()
    assert (much > 2 * little).all()


def test_the_files_layers_are_the_networks(network: nn.Module, weights: Path) -> None:
    """By hand, from the definition: unit features, squared differences, weighted, averaged."""
    layers = alexnet().features.eval()
    layers.load_state_dict(
        {k.removeprefix("features."): v for k, v in torch.load(weights).items() if "feat" in k}
    )
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    a, b = drawn(3), drawn(4)
    x, y = ((p.float() / 127.5 - 1 - shift) / scale for p in (a, b))
    expected, taken = 0.0, 0
    with torch.no_grad():
        for number, layer in enumerate(layers):
            x, y = layer(x), layer(y)
            if number in (1, 4, 7, 9, 11):  # after each ReLU
                unit_x, unit_y = (f / f.norm(dim=1, keepdim=True) for f in (x, y))
                weight = network.get_parameter(f"lin{taken}.model.1.weight")
                distance = ((unit_x - unit_y).square() * weight.view(-1, 1, 1)).sum(1)
                expected += distance.mean().item()
                taken += 1
    assert taken == 5
    assert lpips_distance(network, a, b).item() == pytest.approx(expected, rel=1e-4)


def test_other_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match=r"other\.pth: not the weights of torchvision's AlexNet"):
        load_lpips(path, CPU)
