"""From sketch and reference to a coloured picture: networks, training, evaluation, use.

- ``commands``: the command line's side. ``config``: every setting, with its meaning.
- ``data``: shards -> batches. ``networks``: generators, discriminators, style, losses.
- ``training``, ``evaluation``: the loop and its run's folder; measures in every setting.
- ``use``: colouring pictures, and models to carry away. ``app``: a page to colour on.

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
