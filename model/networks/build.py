"""Generators by name."""

from model.networks.generator import Generator
from model.networks.reference import ReferenceUNet
from model.networks.unet import UNETS


def build_generator(
    name: str = "zhang2017", width_multiplier: float = 1.0, size: str = "small"
) -> Generator:
    """Build a generator with fresh weights (PyTorch's global random state decides them).

    The style network is not part of it: ``style.build_style_network`` builds the one that
    ``style_spec`` names.

    Args:
        name: out of ``config.MODELS``.
        width_multiplier: factor on the number of channels; 1.0 is the article's.
        size: of ``reference``, out of ``reference.PRESETS``; the article's have one size.
    """
    if name == "reference":
        return ReferenceUNet(size, width_multiplier)
    return UNETS[name](width_multiplier=width_multiplier)
