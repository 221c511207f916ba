"""From sketch and reference to a coloured picture: networks, training, evaluation, use.

The two builders load on first use, so that ``import model.config`` costs no import of torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.networks.build import build_generator
    from model.networks.discriminator import build_discriminator

__all__ = ["build_discriminator", "build_generator"]


def __getattr__(name: str) -> Any:
    if name == "build_generator":
        from model.networks.build import build_generator

        return build_generator
    if name == "build_discriminator":
        from model.networks.discriminator import build_discriminator

        return build_discriminator
    raise AttributeError(f"module 'model' has no attribute {name!r}")
