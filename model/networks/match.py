"""Attention from a sketch's places to a reference's: which are alike, and of what colours."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.color import to_grey

DETAIL = 4
"""Colours along each side of a place of the reference."""

SHADES = 4
"""Groups, by lightness, of these colours: one mean of hair and its lines would be neither's."""

SHARPNESS, NEARNESS = 20.0, 2.0
"""Initial weights of likeness and nearness in a match; training hardly changes them."""

NUM_TRUST = 6


class Found(NamedTuple):
    """What a place of the sketch found in the reference.

    Attributes:
        shades: of ``sort_shades``, N x (3 x SHADES) x h x w in [0, 1].
        trust: how reliable the match is, N x ``NUM_TRUST`` x h x w: how far below and to the right
            it lies, and the spread of the places that it is the mean of and of their R, G and B.
        features: N x C x h x w.
    """

    shades: Tensor
    trust: Tensor
    features: Tensor

    def colors(self) -> Tensor:
        """Return the shades with what they are worth, for convolutions to read."""
        return torch.cat([self.shades, self.trust], dim=1)


class Match(nn.Module):
    """Attention from the sketch's places to the reference's, by likeness and by nearness.

    The values are the reference's features with its own colours: ``DETAIL`` x ``DETAIL`` of them
    within each place, so that an eye is not lost in the face around it, and their ``SHADES``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.likeness = nn.Conv2d(channels, channels, kernel_size=1)
        self.value = nn.Conv2d(channels + 3 * DETAIL**2, channels, kernel_size=1)
        self.log_sharpness = nn.Parameter(torch.tensor(SHARPNESS).log())
        self.log_nearness = nn.Parameter(torch.tensor(NEARNESS).log())

    def forward(self, line: Tensor, place: Tensor, reference: Tensor) -> Found:
        """Look up what each place of the sketch should be like.

        Args:
            line: the sketch's features, N x C x h x w.
            place: the features of the reference's V views at this level, (V N) x C x h' x w'.
            reference: the views themselves, (V N) x 3 x H' x W'.
        """
        height, width = place.shape[-2:]
        pixels = F.adaptive_avg_pool2d(reference, (DETAIL * height, DETAIL * width))
        within = F.pixel_unshuffle(pixels, DETAIL)
        shades = sort_shades(torch.unflatten(within, 1, (3, -1)).transpose(1, 2)).flatten(1, 2)
        query = F.normalize(self.likeness(line), dim=1) * self.log_sharpness.exp()
        key = F.normalize(self.likeness(place), dim=1)
        # The logits get -n |p - p'|^2 as part of the dot product; the term in p alone is left out,
        # for it cancels in the softmax over p'.
        here, there = coordinates(line), coordinates(place)
        near = self.log_nearness.exp()
        query = torch.cat([query, 2 * near * here, -near.expand(len(line), 1, *line.shape[-2:])], 1)
        key = torch.cat([key, there, there.square().sum(1, keepdim=True)], dim=1)
        mean = F.avg_pool2d(pixels, DETAIL)
        parts = (
            shades,
            torch.cat([there, mean], dim=1),
            torch.cat([there.square().sum(1, keepdim=True), mean.square()], dim=1),
            self.value(torch.cat([place, within], dim=1)),
        )
        values = torch.cat(parts, dim=1)
        query, key, values = (as_places(m, len(line)) for m in (query, key, values))
        found = attend(query, key, values)
        found = found.transpose(1, 2).reshape(len(line), -1, *line.shape[-2:])
        shades, means, squares, features = torch.split(found, [p.shape[1] for p in parts], dim=1)
        at, mean = torch.split(means, [2, 3], dim=1)
        centre = torch.cat([at.square().sum(1, keepdim=True), mean.square()], dim=1)
        deviation = (squares - centre).clamp(min=1e-4).sqrt()
        return Found(shades, torch.cat([at - here, deviation], dim=1), features)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return attention of N x P x C queries on N x Q x C keys, of logits as they are: N x P x D.

    On a CPU vectors are padded to one length, and heads named, as PyTorch's fused kernel wants
    them: without it bf16 takes four times as long at 1,024 places (benchmarks/RESULTS.md).

    Args:
        value: N x Q x D.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, scale=1.0)
    length = max(query.shape[-1], value.shape[-1])
    given = (query, key, value)
    q, k, v = [F.pad(m, (0, length - m.shape[-1])).contiguous()[:, None] for m in given]
    found = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return found[:, 0, :, : value.shape[-1]]


def as_places(maps: Tensor, num_pictures: int) -> Tensor:
    """Return maps of V views of N pictures, (V N) x C x h x w, as N x (V h w) x C."""
    views = torch.unflatten(maps.flatten(2), 0, (-1, num_pictures))
    return views.permute(1, 0, 3, 2).flatten(1, 2)


def sort_shades(colors: Tensor) -> Tensor:
    """Return the shades of places, from the darkest to the lightest.

    Shades of several places may be mixed, rank by rank, and the fill stays apart from the lines.

    Args:
        colors: of each place, N x K x 3 x h x w; ``SHADES`` divides K.

    Returns:
        N x SHADES x 3 x h x w: each the mean of its share of the K.
    """
    order = to_grey(colors.flatten(0, 1)).view_as(colors[:, :, :1]).argsort(1)
    ascending = colors.gather(1, order.expand_as(colors))
    return torch.unflatten(ascending, 1, (SHADES, -1)).mean(2)


def coordinates(maps: Tensor) -> Tensor:
    """Return where each place of maps is, in [-1, 1]: N x 2 x h x w."""
    rows, columns = (
        (2 * torch.arange(n, device=maps.device, dtype=maps.dtype) + 1) / n - 1
        for n in maps.shape[-2:]
    )
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return grid.expand(len(maps), -1, -1, -1)
