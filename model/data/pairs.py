"""Which picture is coloured after which: itself, another drawing of its character, or any other.

Two posts show one character where their character tags are exactly the same. Posts of one family
(variants, near duplicates) are not paired: such a reference would give the answer away.
"""

from collections import defaultdict

import numpy as np

from model.data.augment import PAIR, draw_uniform
from model.data.order import Indices, epoch_order
from model.data.samples import Samples
from pipeline.errors import UserError


class Partners:
    """Which samples show the character of which others.

    Attributes:
        paired: places of the samples that have a partner, ascending.
    """

    def __init__(self, samples: Samples) -> None:
        self._families = samples.families
        self._number: dict[int, int] = {}  # of a sample among the drawings of its character
        self._drawings: dict[int, list[int]] = {}  # by each of them
        by_character: defaultdict[str, list[int]] = defaultdict(list)
        for place, characters in enumerate(samples.characters):
            if characters:
                by_character[characters].append(place)
        for drawings in by_character.values():
            if len({int(self._families[place]) for place in drawings}) > 1:
                for number, place in enumerate(drawings):
                    self._drawings[place], self._number[place] = drawings, number
        self.paired: Indices = np.array(sorted(self._drawings), dtype=np.int64)

    def partner(self, place: int, skip: float = 0.0) -> int | None:
        """Return another drawing of a sample's character, None where there is none.

        Args:
            place: of the sample.
            skip: in [0, 1): where among them to begin to look; 0 for the one after the sample.
        """
        drawings = self._drawings.get(place)
        if drawings is None:
            return None
        start = self._number[place] + 1 + int(skip * (len(drawings) - 1))
        others = (drawings[(start + i) % len(drawings)] for i in range(len(drawings)))
        return next(o for o in others if self._families[o] != self._families[place])


def pair_epoch(
    order: Indices, partners: Partners | None, seed: int, epoch: int, share: float
) -> Indices:
    """Return an epoch's samples and their references, N x 2: a pure function of its arguments.

    Without ``partners``, or at a ``share`` of 0, each sample is its own reference. Otherwise so
    many of the N places go to pairs: a sample that has a partner stays and gets it; one that has
    none makes way for a sample that has.
    """
    pairs = np.stack([order, order], axis=1)
    if partners is None or not partners.paired.size:
        return pairs
    random = draw_uniform(seed, epoch, PAIR, np.array([0]), 3 * len(order)).reshape(-1, 3)
    for row in np.flatnonzero(random[:, 0] < share):
        target = int(order[row])
        if partners.partner(target) is None:
            target = int(partners.paired[int(random[row, 1] * partners.paired.size)])
        partner = partners.partner(target, random[row, 2])
        assert partner is not None
        pairs[row] = target, partner
    return pairs


def pair_up(samples: Samples, reference: str, seed: int = 0) -> Indices:
    """Return which samples are coloured, and after which ones: places, N x 2.

    ``self`` and ``same``: each after itself. ``character``: each after the next drawing of its
    character; samples that have none are left out. ``any``: each after another sample, no two of
    them after the same; ``seed`` decides which.

    Raises:
        UserError: where no sample has another of its character, or there is only one sample.
    """
    places = np.arange(len(samples))
    if reference in ("self", "same"):
        return np.stack([places, places], axis=1)
    if reference == "any":
        if len(samples) < 2:
            raise UserError(
                f"the {samples.split} split has one sample, and no other to take colours from. "
                "Use --reference same."
            )
        order = epoch_order(len(samples), seed, 0)
        pairs = np.stack([order, np.roll(order, 1)], axis=1)
        return pairs[np.argsort(order)]
    partners = Partners(samples)
    if not partners.paired.size:
        raise UserError(
            f"the {samples.split} split has no two drawings of one character. Use --reference same."
        )
    return np.array([(p, partners.partner(int(p))) for p in partners.paired], dtype=np.int64)
