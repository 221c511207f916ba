"""Small stand-ins for large networks, and weights that would run code."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from model.networks.style import (
    STYLE_NETWORKS,
    InceptionMap,
    Provenance,
    StyleNetwork,
    Vgg19Fc1,
)


class SmallVgg19(Vgg19Fc1):
    """VGG19 with one of its convolutions, for tests that do not ask what the features are."""

    @classmethod
    def build_layers(cls) -> nn.Sequential:
        return nn.Sequential(
            OrderedDict(
                features=nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU()),
                avgpool=nn.AdaptiveAvgPool2d(4),
                flatten=nn.Flatten(),
                classifier=nn.Sequential(nn.Linear(128, 4096)),
            )
        )


class SmallInceptionMap(InceptionMap):
    """Inception-v3 with one convolution, from 299 pixels a side to the same 8 x 8."""

    @classmethod
    def build_layers(cls) -> nn.Sequential:
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 2048, 8, stride=41, bias=False),
                bn=nn.BatchNorm2d(2048, eps=0.001),
                relu=nn.ReLU(),
            )
        )

    def prepare(self, reference: Tensor) -> Tensor:
        return 10 * super().prepare(reference)  # so that style vectors have to be standardised


REAL_STYLE_NETWORKS = {kind.name: kind for kind in (Vgg19Fc1, InceptionMap)}
SMALL_STYLE_NETWORKS = {kind.name: kind for kind in (SmallVgg19, SmallInceptionMap)}


def shrink_style_networks() -> None:
    """Build small networks from here on: for the processes that a test starts."""
    STYLE_NETWORKS.update(SMALL_STYLE_NETWORKS)


class Thumbnails(StyleNetwork):
    """A style network that is cheap, in the shape of VGG19's."""

    name = "thumbnails"
    shape = (4096,)
    imagenet_url = ""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(48, 4096)), normalised=True)
        self.provenance = Provenance("thumbnails", "random", 0, "a")
        self.requires_grad_(False)

    def prepare(self, reference: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(reference, 4)


class SmallInception(FeatureExtractorBase):  # type: ignore[misc]
    """A small stand-in for Inception: the picture at 2 x 2."""

    def __init__(self, name: str, features_list: list[str], **kwargs: object) -> None:
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("small",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "small"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, pictures: Tensor) -> tuple[Tensor]:
        return (torch.nn.functional.adaptive_avg_pool2d(pictures.float() / 255, 2).flatten(1),)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code from a weights file ran')",)
