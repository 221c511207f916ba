"""Style networks: what a reference picture looks like to a network trained on ImageNet.

Always in evaluation mode, and frozen unless ``train.style_train`` says otherwise: a picture's style
features never change then, and can be computed once. Each network is cut after the layer that is
wanted, and only that part of its weights is kept.
"""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models import Inception_V3_Weights, VGG19_Weights, inception_v3, vgg19

from model.device import constant
from model.weights import StateDict, digest_weights, download_weights, read_weights
from pipeline.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a style network's weights came from, for checkpoints and pages.

    Attributes:
        network: name of the network.
        weights: ``imagenet``, ``random``, the file's name, or ``none`` where there are none.
        seed: of random weights, otherwise 0.
        sha256: over the weights that are used; see ``weights.digest_weights``.
    """

    network: str
    weights: str
    seed: int
    sha256: str

    def __str__(self) -> str:
        if self.network == PictureItself.name:
            return "none: the reference as it is"
        if self.weights == "random":
            return f"{self.network}, RANDOM weights (seed {self.seed}): not trained on anything"
        return f"{self.network}, weights {self.weights} ({self.sha256[:12]})"


class StyleNetwork(nn.Module):
    """A picture's style features; without layers of a subclass it is the picture itself.

    ``forward`` takes references, float N x 3 x H x W in [0, 1], sides of at least 32 pixels, and
    returns float N x ``shape``.

    Attributes:
        name: of the network.
        shape: of one picture's features.
        imagenet_url: of its published weights.
        provenance: where its weights came from; set by ``build_style_network``.
    """

    name: ClassVar[str]
    shape: ClassVar[tuple[int, ...]]
    imagenet_url: ClassVar[str]

    provenance: Provenance

    def __init__(self, layers: nn.Sequential, normalised: bool) -> None:
        super().__init__()
        self.layers = layers
        self.normalised = normalised

    @classmethod
    def build_layers(cls) -> nn.Sequential:
        """Return the layers up to the wanted one, named as in torchvision."""
        return nn.Sequential()

    def prepare(self, reference: Tensor) -> Tensor:
        """Bring a picture in [0, 1] to the range and size that the layers want."""
        return reference

    def vector(self, features: Tensor) -> Tensor:
        """Return V(y), one vector a picture, of features: averaged over space where they have it.

        Shape N x ``shape[0]``: the target of the discriminator's style head.
        """
        return features.flatten(2).mean(2) if features.ndim > 2 else features

    def forward(self, reference: Tensor) -> Tensor:
        """Return the style features of references; without gradients as long as it is frozen."""
        if min(reference.shape[-2:]) < 32:
            raise ValueError(f"a reference of {tuple(reference.shape)} has sides under 32 pixels")
        features: Tensor = self.layers(self.prepare(reference))
        return features

    def train(self, mode: bool = True) -> "StyleNetwork":
        """Stay in evaluation mode whatever is asked: BatchNorm must not learn the references."""
        del mode
        return super().train(False)


class Vgg19Fc1(StyleNetwork):
    """The output of VGG19's first fully connected layer, before its ReLU: 4,096 numbers.

    The paper's style vector (section 3.1). Its adaptive pooling takes pictures of any size.
    """

    name = "vgg19"
    shape = (4096,)
    imagenet_url = VGG19_Weights.IMAGENET1K_V1.url

    @classmethod
    def build_layers(cls) -> nn.Sequential:
        """Return the convolutions and the first fully connected layer."""
        net = vgg19(weights=None, init_weights=False)
        return nn.Sequential(
            OrderedDict(
                features=net.features,
                avgpool=net.avgpool,
                flatten=nn.Flatten(),
                classifier=net.classifier[:1],
            )
        )

    def prepare(self, reference: Tensor) -> Tensor:
        """Subtract ImageNet's mean and divide by its deviation, if normalised."""
        return normalise(reference) if self.normalised else reference


class InceptionMap(StyleNetwork):
    """Inception-v3's last feature map, after Mixed_7c: 2,048 x 8 x 8.

    The article's third model. Pictures under 299 pixels are padded by reflection to 299, as often
    as it takes; larger ones are taken as they are, and give a larger map.
    """

    name = "inception_v3"
    shape = (2048, 8, 8)
    imagenet_url = Inception_V3_Weights.IMAGENET1K_V1.url

    @classmethod
    def build_layers(cls) -> nn.Sequential:
        """Return the layers before the global pooling."""
        net = inception_v3(weights=None, aux_logits=False, init_weights=False)
        before_pool = takewhile(lambda child: child[0] != "avgpool", net.named_children())
        return nn.Sequential(OrderedDict(before_pool))

    def prepare(self, reference: Tensor) -> Tensor:
        """Pad to 299 by reflection, and bring to [-1, 1], which this network was trained on."""
        scaled = reference * 2 - 1 if self.normalised else reference
        return pad_by_reflection(scaled, 299)


class PictureItself(StyleNetwork):
    """No network: the reference as it is, for generators that bring an encoder of their own."""

    name = "picture"
    shape = (3, 256, 256)  # of a reference of 256 pixels a side
    imagenet_url = ""


STYLE_NETWORKS: dict[str, type[StyleNetwork]] = {
    n.name: n for n in (Vgg19Fc1, InceptionMap, PictureItself)
}
"""The style networks by name."""


def build_style_network(
    name: str, *, normalised: bool, weights: str = "imagenet", seed: int = 0
) -> StyleNetwork:
    """Build a frozen style network on the CPU.

    Args:
        name: out of ``STYLE_NETWORKS``.
        normalised: whether pictures are brought to the range that the network was trained on.
        weights: ``imagenet``, ``random``, or the path of a torchvision state dict; a network
            that has none leaves it unread.
        seed: of ``random`` weights.

    Raises:
        UserError: where the weights cannot be had, or are another network's.
    """
    kind = STYLE_NETWORKS[name]
    with torch.device("meta"):  # the real weights follow; initialising 140M others takes seconds
        layers = kind.build_layers()
    if not layers.state_dict():
        weights = "none"
    elif weights == "random":
        layers.to_empty(device="cpu")
        _initialise(layers, seed)
    elif weights == "imagenet":
        _load(layers, download_weights(kind.imagenet_url), kind.imagenet_url)
    else:
        _load(layers, read_weights(Path(weights)), weights)
    network = kind(layers, normalised).eval().requires_grad_(False)
    network.provenance = Provenance(
        network=name,
        weights=Path(weights).name,
        seed=seed if weights == "random" else 0,
        sha256=digest_weights(layers.state_dict()),
    )
    return network


def normalise(picture: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its deviation, channel by channel (N x 3 x H x W)."""
    mean, std = (constant(v, picture).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (picture - mean) / std


def denormalise(picture: Tensor) -> Tensor:
    """Undo ``normalise``."""
    mean, std = (constant(v, picture).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return picture * std + mean


def pad_by_reflection(picture: Tensor, size: int) -> Tensor:
    """Pad N x C x H x W to at least ``size`` a side, centred, mirroring as often as it takes.

    PyTorch's own padding mirrors once, which is not enough for small pictures.
    """
    height, width = picture.shape[-2:]
    rows, columns = (_mirrored_indices(n, max(n, size)) for n in (height, width))
    return picture[..., rows.to(picture.device), :][..., columns.to(picture.device)]


def _mirrored_indices(length: int, target: int) -> Tensor:
    period = 2 * (length - 1)
    place = (torch.arange(target) - (target - length) // 2) % period
    return torch.minimum(place, period - place)


def _initialise(layers: nn.Module, seed: int) -> None:
    """Give layers random weights that keep the signal's variance (He et al. 2015)."""
    generator = torch.Generator().manual_seed(seed)
    for module in layers.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def _load(layers: nn.Module, state: StateDict, source: str) -> None:
    """Load the weights that ``layers`` have; whatever else the file holds is left out."""
    expected = layers.state_dict()
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    state = {**{name: torch.tensor(0) for name in counters}, **state}  # old files have none
    wrong = sorted(name for name, t in expected.items() if not _is_like(state.get(name), t))
    if wrong:
        raise UserError(
            f"{source}: {wrong[0]!r} is missing or has another shape or type ({len(wrong)} of "
            f"{len(expected)} tensors). Give torchvision's weights of the model's style network."
        )
    layers.load_state_dict({name: state[name] for name in expected}, assign=True)
    layers.float()


def _is_like(tensor: Tensor | None, expected: Tensor) -> bool:
    """Whether a tensor has what is expected: its shape, and as plain numbers, whole or not."""
    if tensor is None or tensor.layout != torch.strided or tensor.is_meta:
        return False
    is_same_kind = tensor.is_floating_point() == expected.is_floating_point()
    return is_same_kind and tensor.shape == expected.shape
