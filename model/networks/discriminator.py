"""Discriminators: is this picture real, and which style does it have?

Two answers to the AC-GAN's question (Odena et al. 2017), where the paper has a style vector in
place of a class: ``acgan`` keeps the two heads and takes the class likelihood as one over
vectors; ``paper`` is Zhang et al.'s own, one output as wide as the style vector. ``patch`` asks
another question, place by place: is this how such a sketch is coloured?
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.parametrizations import spectral_norm

from model.ranks import ALONE, Ranks


class Verdict(NamedTuple):
    """What a discriminator says of pictures.

    Attributes:
        source: logits of being real: N x 1 for ``acgan``, N x style size for ``paper``.
        style: the standardised style vector, N x style size; None for ``paper``.
    """

    source: Tensor
    style: Tensor | None


class Discriminator(nn.Module):
    """Five strided convolutions, down to a thirty-second, averaged over space, then the heads.

    It takes pictures, float N x 3 x H x W in [0, 1], of any sides from 64 on. The style vectors
    that it is asked for are standardised: each number less its mean and over its deviation, both
    kept with the weights (``fit_style``).

    Args:
        style_size: length of the style vectors.
        gan: ``acgan`` or ``paper``.
        width_multiplier: factor on the number of channels.
    """

    style_mean: Tensor
    style_std: Tensor

    def __init__(self, style_size: int, gan: str, width_multiplier: float = 1.0) -> None:
        super().__init__()
        channels = [3, *(max(4, round(c * width_multiplier)) for c in (32, 64, 128, 256, 512))]
        blocks: list[nn.Module] = []
        for i, (num_in, num_out) in enumerate(pairwise(channels)):
            blocks.append(nn.Conv2d(num_in, num_out, kernel_size=4, stride=2, padding=1))
            if i > 0:  # not on the picture itself: its mean and contrast are what counts
                blocks.append(nn.BatchNorm2d(num_out))
            blocks.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.source = nn.Linear(channels[-1], 1 if gan == "acgan" else style_size)
        self.style = nn.Linear(channels[-1], style_size) if gan == "acgan" else None
        self.register_buffer("style_mean", torch.zeros(style_size))
        self.register_buffer("style_std", torch.ones(style_size))

    def forward(self, picture: Tensor) -> Verdict:
        """Judge pictures."""
        features = self.body(picture * 2 - 1)
        return Verdict(self.source(features), self.style(features) if self.style else None)

    @torch.no_grad()
    def fit_style(self, vectors: Tensor, ranks: Ranks = ALONE) -> None:
        """Take mean and deviation of style vectors for ``standardise``.

        Args:
            vectors: N x style size.
            ranks: the processes, of which each has a part of them.
        """
        num = ranks.sum(vectors.new_tensor(len(vectors)))
        mean = ranks.sum(vectors.sum(0)) / num
        variance = ranks.sum((vectors - mean).square().sum(0)) / num
        self.style_mean.copy_(mean)
        self.style_std.copy_((variance + 1e-5).sqrt())  # as BatchNorm's

    def standardise(self, vectors: Tensor) -> Tensor:
        """Bring style vectors to mean 0 and deviation 1, number by number."""
        return (vectors - self.style_mean) / self.style_std


class PatchVerdict(NamedTuple):
    """What a patch discriminator says of pictures.

    Attributes:
        source: logits of being real, N x 1 x h x w: one for each patch, of 46 pixels a side.
        features: of the layers before, each N x C x H' x W'.
    """

    source: Tensor
    features: list[Tensor]


class PatchDiscriminator(nn.Module):
    """Judges the patches of a picture beside those of its sketch (pix2pix, Isola et al. 2017).

    Spectral norm on every layer keeps it from winning too soon (Miyato et al. 2018).

    Args:
        width_multiplier: factor on the number of channels.
    """

    def __init__(self, width_multiplier: float = 1.0) -> None:
        super().__init__()
        channels = [4, *(max(4, round(c * width_multiplier)) for c in (32, 64, 128, 128))]
        strides = (2, 2, 2, 1)
        self.body = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, kernel_size=4, stride=stride, padding=1))
            for (a, b), stride in zip(pairwise(channels), strides, strict=True)
        )
        self.source = spectral_norm(nn.Conv2d(channels[-1], 1, kernel_size=1, bias=False))

    def forward(self, sketch: Tensor, picture: Tensor) -> PatchVerdict:
        """Judge pictures, float N x 3 x H x W in [0, 1], beside sketches N x 1 x H x W."""
        x = torch.cat([sketch, picture], dim=1) * 2 - 1
        features = []
        for layer in self.body:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return PatchVerdict(self.source(x), features)


def build_discriminator(
    style_size: int = 4096, gan: str = "acgan", width_multiplier: float = 1.0
) -> Discriminator:
    """Build a discriminator with fresh weights (PyTorch's global random state decides them)."""
    return Discriminator(style_size, gan, width_multiplier)
