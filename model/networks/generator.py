"""What every generator is: a network that colours a sketch after features of a reference."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn


class Outputs(NamedTuple):
    """What a generator gives, all float in the range of [0, 1] pictures but not clamped to it.

    Attributes:
        picture: N x 3 x H x W.
        guide_grey: N x 1 x H x W, from before the style is added; None without guides.
        guide_color: N x 3 x H x W, from after it, or what attention found; None without guides.
    """

    picture: Tensor
    guide_grey: Tensor | None = None
    guide_color: Tensor | None = None


@dataclass(frozen=True, slots=True)
class StyleSpec:
    """What a generator takes beside the sketch: features of the reference by this network."""

    network: str
    normalised: bool


class Generator(nn.Module):
    """What training, evaluation and use expect of every generator.

    ``forward(sketch, style)`` takes sketches, float N x 1 x H x W in [0, 1], and the features of
    references by ``style_spec``'s network, and returns ``Outputs``. The last layer is ``out``.
    """

    style_spec: StyleSpec

    def forward(self, sketch: Tensor, style: Tensor) -> Outputs:
        """Colour sketches after references."""
        raise NotImplementedError
