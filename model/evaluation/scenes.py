"""The settings of an evaluation: what is coloured after what, and what the true answer is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from model.config import REFERENCES
from model.data.augment import same_reference
from model.data.order import Indices
from model.data.pairs import pair_up
from model.data.samples import Batch, Samples
from model.use.colorize import to_tensor
from model.use.pictures import fit, open_picture
from pipeline.errors import UserError
from pipeline.words import did_you_mean, harmless


@dataclass(frozen=True, slots=True)
class Scene:
    """One setting.

    Attributes:
        name: out of ``REFERENCES``, or ``picture``; of several pictures the others are
            ``picture-2`` and so on.
        pairs: places of the samples and of their references, N x 2; see ``pairs.pair_up``.
        has_truth: whether there is a true answer.
        picture: what all are coloured after, uint8 1 x 3 x H x W; None where each has its own.
        seed: of the colours and bends of ``same``.
        file: the name of the picture's file, "" without one.
    """

    name: str
    pairs: Indices
    has_truth: bool
    picture: Tensor | None
    seed: int
    file: str = ""

    def truth_and_references(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the true pictures and the references, uint8 N x 3 x H x W."""
        if self.picture is not None:
            return batch.color, self.picture.expand_as(batch.color)
        if self.name == "same":
            return same_reference(batch.color, batch.indices, seed=self.seed)
        return batch.color, batch.reference


def make_scenes(samples: Samples, references: Sequence[str], seed: int) -> list[Scene]:
    """Return the settings of names and of pictures' paths; see ``EvalConfig.reference``.

    Raises:
        UserError: on another name, a picture that cannot be read, or samples that do not do.
    """
    scenes: list[Scene] = []
    for reference in references:
        number = 1 + sum(scene.picture is not None for scene in scenes)
        name = f"picture-{number}" if number > 1 else "picture"
        scenes.append(_make_scene(samples, reference, name, seed))
    return scenes


def _make_scene(samples: Samples, reference: str, picture_name: str, seed: int) -> Scene:
    if reference in REFERENCES:
        pairs = pair_up(samples, reference, seed)
        return Scene(reference, pairs, reference != "any", None, seed)
    if not reference or not Path(reference).exists():
        raise UserError(
            f"--reference {reference}{did_you_mean(reference, REFERENCES)}: neither "
            f"{', '.join(REFERENCES)} nor a picture's path."
        )
    height, width = samples.size
    pad = samples.recipe.get("prepare", {}).get("fit") == "pad"
    picture = to_tensor(np.asarray(fit(open_picture(Path(reference)), (width, height), pad)))
    places = np.arange(len(samples))
    pairs = np.stack([places, places], axis=1)
    return Scene(picture_name, pairs, False, picture, seed, harmless(Path(reference).name))
