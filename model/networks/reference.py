"""The generator that takes its colours from the reference: attention from sketch to picture.

A U-Net over the sketch asks, at several levels, where in the reference a place like this one is,
and brings back what the reference has there: features, and the colours themselves. The reference
enters by no other way, so whatever colour comes out was looked up in it, or learnt to be every
picture's. Correspondence by attention follows SCFT (Lee et al. 2020). What is added: one encoder
for both pictures, so that like places are alike before anything is learnt; a preference for the
same place, which fades as the network learns to do without; how sure the match is; the shades of a
place, not their mean, of which every pixel chooses, from the places around its own as in RAFT (Teed
and Deng 2020); an output that begins as what was found, laid on white paper; and, once trained, two
more looks at the reference, moved a little and from nearer.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.color import to_grey
from model.networks.generator import Generator, Outputs, StyleSpec
from model.networks.match import NUM_TRUST, SHADES, Match


class Preset(NamedTuple):
    """A size of the network.

    Attributes:
        channels: of each level, from the picture's own size down, halved each time.
        num_matched: how many of the deepest levels look into the reference.
    """

    channels: tuple[int, ...]
    num_matched: int


PRESETS = {
    "small": Preset((24, 48, 128, 256), num_matched=2),
    "medium": Preset((32, 64, 128, 192, 256), num_matched=3),
    "base": Preset((32, 64, 128, 192, 256, 256), num_matched=3),
}
"""``small``: 64 pixels on a laptop's cores, matched at 8 and 16. ``medium``: 128 pixels, and
``base``: 256 pixels on a GPU, both matched at 8, 16 and 32."""

OPACITY_BIAS = 3.0
"""Initial logit of the opacity: the found colours cover the paper almost completely."""

NEARER = 1.3
"""Magnification of the third view of a reference; see ``look_again``."""

BEYOND = 0.02
"""Initial share of every place in a mix, beside its share in a bilinear one."""


class ReferenceUNet(Generator):
    """Sketch and reference through one encoder; the sketch's decoder looks into the reference.

    Args:
        size: out of ``PRESETS``.
        width_multiplier: factor on the number of channels, rounded to eights.
    """

    style_spec = StyleSpec("picture", normalised=False)

    def __init__(self, size: str, width_multiplier: float) -> None:
        super().__init__()
        preset = PRESETS[size]
        channels = [max(8, 8 * round(c * width_multiplier / 8)) for c in preset.channels]
        upward = channels[::-1]
        self.half_place = 2 ** (len(channels) - preset.num_matched) // 2  # at the finest match
        self.encoder = Encoder(channels, preset.num_matched)
        self.matches = nn.ModuleList(Match(c) for c in upward[: preset.num_matched])
        # A level ends with the next one's channels: at its own, smaller size that is cheaper.
        nexts = [*upward[1:], upward[-1]]
        num_found = 3 * SHADES + NUM_TRUST
        self.bottom = block(upward[0] + num_found, upward[0], nexts[0])
        self.decoder = nn.ModuleList(
            block(c + c + num_found, c, end) for c, end in zip(upward[1:], nexts[1:], strict=True)
        )
        self.out = conv(channels[0], 3 + 1 + SHADES + 9)
        nn.init.zeros_(self.out.weight)
        beginning = [0.0] * 3 + [OPACITY_BIAS] + [0.0] * (SHADES + 9)
        self.out.bias = nn.Parameter(torch.tensor(beginning))

    def forward(self, sketch: Tensor, style: Tensor) -> Outputs:
        """Colour sketches after references; see ``Generator``.

        Args:
            sketch: float N x 1 x H x W in [0, 1].
            style: the references themselves, float N x 3 x H' x W' in [0, 1].
        """
        for name, picture, num in (("sketches", sketch, 1), ("references", style, 3)):
            height, width = picture.shape[-2:]
            if picture.ndim != 4 or picture.shape[1] != num or height % 32 or width % 32:
                raise ValueError(
                    f"{name} are N x {num} x H x W, sides multiples of 32, not "
                    f"{tuple(picture.shape)}"
                )
        views = style if self.training else look_again(style, self.half_place)
        lines = self.encoder(sketch, None)[::-1]  # deepest first
        places = self.encoder(draw_lines(views), views)[::-1]

        found = self.matches[0](lines[0], places[0], views)
        colors = found.colors()
        x = self.bottom(torch.cat([lines[0] + found.features, colors], dim=1))
        for level in range(1, len(lines)):
            x, colors, line = upsample(x), upsample(colors), lines[level]
            if level < len(self.matches):
                found = self.matches[level](line, places[level], views)
                colors, line = found.colors(), line + found.features
            x = self.decoder[level - 1](torch.cat([x, line, colors], dim=1))
        change, opacity, rank, place = torch.split(self.out(x), [3, 1, SHADES, 9], dim=1)
        shades = torch.unflatten(convex_upsample(found.shades, place), 1, (SHADES, 3))
        chosen = (shades * rank.softmax(1)[:, :, None]).sum(1)
        laid_on_paper = 1 - opacity.sigmoid() * (1 - chosen)
        mean = torch.unflatten(found.shades, 1, (SHADES, 3)).mean(1)
        guide = F.interpolate(mean, sketch.shape[-2:], mode="bilinear")
        return Outputs(laid_on_paper + change, guide_color=guide)


class Encoder(nn.Module):
    """A picture's features at every level, from its own size down.

    Sketch and reference go through the same weights, as lines with colours beside them; the
    sketch has none. The convolution of the colours begins at zero. Levels that are matched also
    get features of the deeper ones: it takes more context to tell bare hair from bare skin.
    """

    def __init__(self, channels: list[int], num_matched: int) -> None:
        super().__init__()
        self.lines = conv(1, channels[0])
        self.color = conv(3, channels[0], bias=False)
        nn.init.zeros_(self.color.weight)
        self.first = norm(channels[0])  # one convolution at the full size, where they are dear
        self.others = nn.ModuleList(block(a, b, b) for a, b in pairwise(channels))
        self.downward = nn.ModuleList(
            nn.Sequential(nn.Conv2d(below, above, kernel_size=1), GroupNorm(8, above))
            for below, above in pairwise(channels[: -num_matched - 1 : -1])
        )

    def forward(self, lines: Tensor, color: Tensor | None) -> list[Tensor]:
        """Return one map a level, the picture's size first."""
        x = self.lines(lines)
        if color is not None:
            x = x + self.color(color)
        features = [self.first(x)]
        for level in self.others:
            features.append(level(F.avg_pool2d(features[-1], 2)))
        for i, context in enumerate(self.downward, start=2):
            features[-i] = features[-i] + upsample(context(features[-i + 1]))
        return features


def look_again(reference: Tensor, half_place: int) -> Tensor:
    """Return references as they are, moved by half a place, and ``NEARER``: three views.

    A place is a square cell; what lies across its border, or is smaller than it, may be clearer in
    another view. Attention treats each view as a reference of its own. Training needs only one:
    there each reference is warped differently every time.

    Args:
        reference: N x 3 x H x W.
        half_place: in pixels.

    Returns:
        (3 N) x 3 x H x W: all N of one view, then those of the next.
    """
    rest = reference[..., half_place:, half_place:]
    moved = F.pad(rest, (0, half_place, 0, half_place), mode="replicate")
    height, width = reference.shape[-2:]
    top, left = (round(side * (1 - 1 / NEARER) / 2) for side in (height, width))
    middle = reference[..., top : height - top, left : width - left]
    nearer = F.interpolate(middle, (height, width), mode="bilinear")
    return torch.cat([reference, moved, nearer])


def convex_upsample(maps: Tensor, logits: Tensor) -> Tensor:
    """Return maps at a larger size, each pixel a mix of the nine places around it.

    Args:
        maps: N x C x h x w.
        logits: of the places around each pixel, row by row, N x 9 x H x W, H and W being the same
            multiple of h and w. Where all are 0 the mix is nearly bilinear.
    """
    height, width = maps.shape[-2:]
    factor = logits.shape[-1] // width
    at = (torch.arange(factor, device=maps.device) + 0.5) / factor - 0.5  # from the centre
    line = torch.stack([(-at).clamp(min=0), 1 - at.abs(), at.clamp(min=0)])  # 3 x factor
    bilinear = (line[:, None, :, None] * line[None, :, None, :]).reshape(9, factor, factor)
    prior = (bilinear + BEYOND).log().tile(1, height, width)
    weights = (logits + prior).softmax(1)
    weights = torch.unflatten(torch.unflatten(weights, 3, (width, factor)), 2, (height, factor))
    # F.pad's replicate does the same, and torch.compile makes a wrong gradient of it (torch 2.14)
    padded = torch.cat([maps[..., :1], maps, maps[..., -1:]], dim=-1)
    padded = torch.cat([padded[..., :1, :], padded, padded[..., -1:, :]], dim=-2)
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    with torch.autocast(maps.device.type, enabled=False):  # bf16 would round the colours
        mixed = torch.einsum("nchwk, nkhiwj -> nchiwj", around.float(), weights.float())
    return mixed.flatten(4).flatten(2, 3)


def draw_lines(picture: Tensor) -> Tensor:
    """Return the lines of pictures by colour dodge, N x 1 x H x W: grey over its surroundings."""
    grey = to_grey(picture)
    around = F.avg_pool2d(F.pad(grey, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    return (grey / around.clamp(min=1 / 255)).clamp(max=1)


def upsample(maps: Tensor) -> Tensor:
    """Return maps at twice their sides."""
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear")


def block(num_in: int, num_between: int, num_out: int) -> nn.Sequential:
    """Return two convolutions, each with GroupNorm and SiLU."""
    return nn.Sequential(
        conv(num_in, num_between), norm(num_between), conv(num_between, num_out), norm(num_out)
    )


def conv(num_in: int, num_out: int, bias: bool = True) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size."""
    return nn.Conv2d(num_in, num_out, kernel_size=3, padding=1, bias=bias)


def norm(channels: int) -> nn.Sequential:
    """Return GroupNorm and SiLU."""
    return nn.Sequential(GroupNorm(8, channels), nn.SiLU())


class GroupNorm(nn.GroupNorm):
    """PyTorch's, in fp32 where its bf16 is slow: channels last on a CPU (benchmarks/RESULTS.md)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with each group of channels normalised, of the same type."""
        if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x.float()).to(x.dtype)
        return super().forward(x)
