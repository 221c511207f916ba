"""A trained model at work: sketch + reference -> picture, as tensors."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from model.checkpoint import CheckpointInfo, load_checkpoint, shown_generator, unpack
from model.config import STYLELESS
from model.data.samples import to_bytes, to_unit
from model.device import memory_guard, pick_device
from model.networks.build import build_generator
from model.networks.generator import Generator
from model.networks.style import STYLE_NETWORKS, StyleNetwork, build_style_network
from model.use.painter import UNGUIDED, Painter
from model.use.pictures import Pixels
from model.weights import StateDict
from pipeline.errors import UserError

_Network = TypeVar("_Network", bound=nn.Module)


class Colorizer:
    """A generator with its style network, ready for use.

    Attributes:
        generator: on ``device``.
        style_network: on ``device``.
        device: where both compute.
        guidance: how far the reference is followed: 0 colours as without one, 1 as in training,
            and above 1 what the reference changes is exaggerated. (Classifier-free guidance, Ho
            and Salimans 2022, with a white sheet for no reference.)
    """

    def __init__(
        self,
        generator: Generator,
        style_network: StyleNetwork,
        device: torch.device,
        guidance: float = 1.0,
    ) -> None:
        self.generator = generator
        self.style_network = style_network
        self.device = device
        self.guidance = guidance

    @torch.inference_mode()
    def __call__(self, sketch: Tensor, reference: Tensor) -> Tensor:
        """Colour sketches after references, in evaluation mode.

        Args:
            sketch: uint8 N x 1 x H x W.
            reference: uint8 N x 3 x H' x W', or 1 x 3 x H' x W' for all sketches.

        Returns:
            uint8 N x 3 x H x W, on the CPU.

        Raises:
            UserError: where the model paints what is no number.
        """
        was_training = self.generator.training
        self.generator.eval()
        looked_at = to_unit(reference, self.device)
        lines = to_unit(sketch, self.device)
        picture = self._paint(lines, looked_at)
        if self.guidance != 1:
            without = self._paint(lines, torch.ones_like(looked_at[:1]))
            picture = without + self.guidance * (picture - without)
        self.generator.train(was_training)
        if not bool(picture.isfinite().all()):  # as bytes it would pass for black
            raise UserError(
                "the model's picture is not finite: its weights are no numbers, or too large. Use "
                "an earlier checkpoint, or train with a lower train.lr."
            )
        return to_bytes(picture).cpu()

    def _paint(self, lines: Tensor, reference: Tensor) -> Tensor:
        style = self.style_network(reference)
        picture: Tensor = self.generator(lines, style.expand(len(lines), *style.shape[1:])).picture
        return picture


def load_colorizer(
    checkpoint: Path, *, device: str = "auto", style_weights: str = "", guidance: float = 1.0
) -> tuple[Colorizer, CheckpointInfo]:
    """Build the model that a checkpoint holds.

    Args:
        checkpoint: see ``checkpoint.load_checkpoint``.
        device: see ``device.pick_device``.
        style_weights: where the style network's weights lie now; "" for where they lay at
            training.
        guidance: see ``Colorizer``.

    Raises:
        UserError: on an unusable checkpoint, style weights other than those trained with, or for a
            model that takes none, or guidance for one that never had to do without a reference.
    """
    tensors, info = load_checkpoint(checkpoint)
    if guidance != 1 and not info.train.drop_reference:
        raise UserError(f"{checkpoint}: {UNGUIDED}")
    trained = unpack("style", tensors)  # with the generator, and kept with it
    if style_weights and (trained or info.model.name in STYLELESS):
        has = "its style network in it" if trained else "no style network"
        raise UserError(f"{checkpoint}: has {has}; leave --style-weights out.")
    target = pick_device(device)
    config = info.model
    generator = _build_filled(
        partial(build_generator, config.name, config.width_multiplier, config.size),
        shown_generator(tensors),
        checkpoint,
        info,
    )
    spec = generator.style_spec
    if trained:
        kind = STYLE_NETWORKS[spec.network]
        style_network = _build_filled(
            lambda: kind(kind.build_layers(), spec.normalised), trained, checkpoint, info
        )
        style_network.provenance = info.style
    else:
        weights = style_weights or config.style_weights
        is_path = info.style.weights != "none" and weights not in ("imagenet", "random")
        if is_path and not Path(weights).is_file():
            raise UserError(
                f"{checkpoint}: was trained with {info.style}, and {weights} is not here. "
                "Give the file with --style-weights PATH."
            )
        style_network = build_style_network(
            spec.network, normalised=spec.normalised, weights=weights, seed=config.style_seed
        )
        if style_network.provenance.sha256 != info.style.sha256:
            raise UserError(
                f"{checkpoint}: was trained with {info.style}; the style weights here are "
                f"{style_network.provenance}. Give the right ones with --style-weights PATH."
            )
    style_network = style_network.to(target).eval().requires_grad_(False)
    return Colorizer(generator.to(target).eval(), style_network, target, guidance), info


def _build_filled(
    build: Callable[[], _Network], tensors: StateDict, checkpoint: Path, info: CheckpointInfo
) -> _Network:
    """Build a network with a checkpoint's tensors; it takes memory only if they fit it.

    The checkpoint may be a stranger's, and a large width in it would ask for gigabytes.
    """
    with torch.device("meta"):
        network = build()
    expected = network.state_dict()
    if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in expected.items()}:
        raise UserError(
            f"{checkpoint}: its tensors are not those of the model {info.model.name!r} at width "
            f"{info.model.width_multiplier}; it was written by other code."
        )
    network.to_empty(device="cpu").load_state_dict(tensors)
    return network


def as_painter(colorizer: Colorizer, info: CheckpointInfo) -> Painter:
    """Return a loaded model as what colours pictures of any size."""

    def answer(sketch: Pixels, reference: Pixels, guidance: float) -> Pixels:
        guided = Colorizer(colorizer.generator, colorizer.style_network, colorizer.device, guidance)
        with memory_guard("picture", 1):
            picture = guided(to_tensor(sketch[..., None]), to_tensor(reference))
        return picture[0].permute(1, 2, 0).numpy()

    height, width = info.size
    can_be_guided = info.train.drop_reference > 0
    return Painter(answer, (width, height), info.model.name, info.recipe, can_be_guided)


def to_tensor(pixels: Pixels) -> Tensor:
    """Return a picture, uint8 H x W x C, as 1 x C x H x W."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0)
