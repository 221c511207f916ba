"""The article's three generators: one U-Net with other style features, and guides or BatchNorm.

The U-Net is Zhang, Ji and Lin's (2017, arXiv 1706.03319, figure 2); the article's text says what
the figure leaves open. Fully convolutional: any sides that are multiples of 32, from 64 on.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.networks.generator import Generator, Outputs, StyleSpec
from model.networks.style import STYLE_NETWORKS, denormalise, normalise


class UNet(Generator):
    """The article's three generators.

    Levels are named after their size at 256 pixels. In a level, the second convolution has no
    activation (the article's text). With BatchNorm, one follows every convolution that another
    convolution follows.

    Args:
        style_spec: of the style features. A vector goes through a linear layer and is added at
            every place; a map is added as it is, and brings its own number of channels.
        guides: with the two guide decoders.
        batchnorm: with BatchNorm between convolutions.
        normalised: whether the network sees and makes pictures in ImageNet's normalisation.
        width_multiplier: factor on the number of channels.
    """

    def __init__(
        self,
        style_spec: StyleSpec,
        *,
        guides: bool,
        batchnorm: bool,
        normalised: bool,
        width_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        self.style_spec = style_spec
        self.normalised = normalised
        c16, c32, c64, c128, c256, c512, c2048 = (
            max(4, round(c * width_multiplier)) for c in (16, 32, 64, 128, 256, 512, 2048)
        )
        style_channels, *style_space = STYLE_NETWORKS[style_spec.network].shape
        if style_space:
            c2048 = style_channels
        pair = partial(_pair, batchnorm=batchnorm)
        up = partial(_up, batchnorm=batchnorm)
        pool = nn.MaxPool2d(2)

        self.down_128 = nn.Sequential(pair(3, c16), pool, pair(c16, c32))
        self.down_64 = nn.Sequential(pool, pair(c32, c64))
        self.down_32 = nn.Sequential(pool, pair(c64, c128))
        self.down_16 = nn.Sequential(pool, pair(c128, c256))
        self.bottom_8 = nn.Sequential(pool, _conv(c256, c2048), *_norm(c2048, batchnorm))

        self.style = nn.Identity() if style_space else nn.Linear(style_channels, c2048)

        self.up_16 = _double(c2048, c512)
        self.level_16 = nn.Sequential(*_rest(c512, batchnorm))
        self.up_32 = up(c512 + c256, c128)
        self.up_64 = up(c128 + c128, c64)
        self.up_128 = up(c64 + c64, c32)
        self.up_256 = up(c32 + c32, c64)
        self.out = nn.Conv2d(c64, 3, kernel_size=1)

        guide_channels = (c512, c256, c128, c64, c32)
        self.guide_1 = _guide(c256, guide_channels) if guides else None
        self.guide_2 = _guide(c512, guide_channels) if guides else None

    def forward(self, sketch: Tensor, style: Tensor) -> Outputs:
        """Colour sketches after style features; see ``Generator``."""
        height, width = sketch.shape[-2:]
        if sketch.ndim != 4 or sketch.shape[1] != 1 or min(height, width) < 64:
            raise ValueError(f"sketches are N x 1 x H x W from 64 on, not {tuple(sketch.shape)}")
        if height % 32 or width % 32:
            raise ValueError(f"sketches of {height} x {width}: sides must be multiples of 32")
        x = sketch.expand(-1, 3, -1, -1)
        x = normalise(x) if self.normalised else x

        skip_128 = self.down_128(x)
        skip_64 = self.down_64(skip_128)
        skip_32 = self.down_32(skip_64)
        skip_16 = self.down_16(skip_32)
        bottom_8 = self.bottom_8(skip_16)

        entry_16 = self.up_16(bottom_8 + self._style_at(style, bottom_8))
        up_16 = self.level_16(entry_16)
        up_32 = self.up_32(torch.cat([up_16, skip_16], dim=1))
        up_64 = self.up_64(torch.cat([up_32, skip_32], dim=1))
        up_128 = self.up_128(torch.cat([up_64, skip_64], dim=1))
        up_256 = self.up_256(torch.cat([up_128, skip_128], dim=1))
        picture = self.out(up_256)

        return Outputs(
            picture=denormalise(picture) if self.normalised else picture,
            guide_grey=self.guide_1(skip_16).mean(1, keepdim=True) if self.guide_1 else None,
            guide_color=self.guide_2(entry_16) if self.guide_2 else None,
        )

    def _style_at(self, style: Tensor, bottom: Tensor) -> Tensor:
        """Return style features that can be added to the bottom of the U."""
        style = self.style(style)
        if style.ndim == 2:
            return style[:, :, None, None]
        if style.shape[-2:] == bottom.shape[-2:]:
            return style
        # Inception's map is 8 x 8 at every size up to 299; only the article's 256 fits as it is.
        return F.interpolate(style, bottom.shape[-2:], mode="bilinear", antialias=True)


def _conv(num_in: int, num_out: int) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, kernel_size=3, padding=1, padding_mode="reflect")


def _norm(channels: int, batchnorm: bool) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels)] if batchnorm else []


def _double(num_in: int, num_out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(num_in, num_out, kernel_size=2, stride=2)


def _rest(channels: int, batchnorm: bool) -> list[nn.Module]:
    """Return what of a level follows its first convolution."""
    second = _conv(channels, channels)
    return [*_norm(channels, batchnorm), nn.ReLU(), second, *_norm(channels, batchnorm)]


def _pair(num_in: int, num_out: int, batchnorm: bool) -> nn.Sequential:
    return nn.Sequential(_conv(num_in, num_out), *_rest(num_out, batchnorm))


def _up(num_in: int, num_out: int, batchnorm: bool) -> nn.Sequential:
    return nn.Sequential(_double(num_in, num_out), *_rest(num_out, batchnorm))


def _guide(num_in: int, channels: tuple[int, ...]) -> nn.Sequential:
    """Return a guide decoder: from 16 to 256 in four steps, without activations."""
    steps = [_double(a, b) for a, b in pairwise(channels)]
    return nn.Sequential(_conv(num_in, channels[0]), *steps, nn.Conv2d(channels[-1], 3, 1))


UNETS: dict[str, Callable[..., Generator]] = {
    "zhang2017": partial(
        UNet, StyleSpec("vgg19", normalised=False), guides=True, batchnorm=False, normalised=False
    ),
    "batchnorm": partial(
        UNet, StyleSpec("vgg19", normalised=True), guides=False, batchnorm=True, normalised=False
    ),
    "inception": partial(
        UNet,
        StyleSpec("inception_v3", normalised=True),
        guides=False,
        batchnorm=True,
        normalised=True,
    ),
}
"""The article's models 1, 2 and 3."""
