"""Small stand-ins for large networks, and weights that would run code."""

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from model.networks.style import Provenance, StyleNetwork


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
