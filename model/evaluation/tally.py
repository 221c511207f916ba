"""What was measured of one answer so far, picture by picture."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from model.data.order import Indices
from model.evaluation.fid import extract_features
from model.evaluation.metrics import (
    bootstrap,
    chroma_distances,
    mse,
    paper_distances,
    ratio,
    regional_distances,
    ssim,
    to_psnr,
)
from model.evaluation.perceptual import lpips_distance
from model.evaluation.seen import Floats, Seen

RATIOS = {
    "chroma_error": chroma_distances,
    "regional_error": regional_distances,
    "paper_error": paper_distances,
}
"""Measures that are one sum over another, by name: what returns both parts for every picture."""

NEEDS_TRUTH = ("mse", "psnr", "ssim", "lpips", *RATIOS)
"""Measures against a true picture, in the order in which they are shown."""


@dataclass(slots=True)
class Tally:
    """A few numbers a picture.

    Attributes:
        lpips: of ``perceptual.load_lpips``; None to leave it out.
        extractor: of features for FID and KID; None for neither.
        parts: numerator and denominator of each picture, float64 N x 2 a batch, by measure; the
            denominator of a plain mean is 1.
        features: for FID and KID.
    """

    lpips: nn.Module | None = None
    extractor: FeatureExtractorBase | None = None
    parts: dict[str, list[Floats]] = field(default_factory=dict)
    features: list[Tensor] = field(default_factory=list)

    def add(self, output: Tensor, truth: Seen | None) -> None:
        """Measure pictures, uint8 N x 3 x H x W, against the true ones where there are any."""
        if self.extractor is not None:
            self.features.append(extract_features(self.extractor, output))
        if truth is None:
            return
        seen, errors = Seen(output), mse(output, truth.pictures)
        values: dict[str, ArrayLike] = {"mse": errors, "psnr": to_psnr(errors)}
        values["ssim"] = ssim(seen, truth)
        if self.lpips is not None:
            values["lpips"] = lpips_distance(self.lpips, output, truth.pictures)
        for name, of_each in values.items():
            numbers = np.asarray(of_each, np.float64)
            self._note(name, np.stack([numbers, np.ones(len(numbers))], axis=1))
        for name, measure_parts in RATIOS.items():
            self._note(name, measure_parts(seen, truth))

    def _note(self, name: str, parts: Floats) -> None:
        self.parts.setdefault(name, []).append(parts)

    def summary(self) -> dict[str, float | None]:
        """Return the means over all pictures; None for each that was not measured."""
        found = {name: ratio(np.concatenate(parts)) for name, parts in self.parts.items()}
        return {name: found.get(name) for name in NEEDS_TRUTH}

    def intervals(self, clusters: Indices, seed: int) -> dict[str, list[float] | None]:
        """Return the 95% interval of each mean of ``summary``; see ``metrics.bootstrap``."""
        return {
            name: bootstrap(np.concatenate(parts), clusters, seed)
            for name, parts in self.parts.items()
        }

    def columns(self) -> dict[str, pa.Array]:
        """Return one value a picture of what was measured; null where it has none."""
        columns = {}
        for name, parts in self.parts.items():
            over, under = np.concatenate(parts).T
            columns[name] = pa.array(over / np.where(under > 0, under, 1), mask=under == 0)
        return columns
