"""FID and KID by torch-fidelity, batch by batch, and without letting a weights file run code."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torch_fidelity.utils import create_feature_extractor

from model.weights import read_weights
from pipeline.errors import UserError

KID_SUBSET_SIZE = 1000
"""Pictures in each of KID's 100 subsets, or all of them where there are fewer."""


def load_extractor(weights_path: Path, device: torch.device) -> FeatureExtractorBase:
    """Load torch-fidelity's Inception network from its published weights.

    Args:
        weights_path: ``weights-inception-2015-12-05-6726825d.pth`` or the same as .safetensors.
        device: where it computes.

    Raises:
        UserError: where the file cannot be read, or holds another network's weights.
    """
    state = read_weights(weights_path)
    with TemporaryDirectory() as scratch:
        # torch-fidelity unpickles whatever it is given; it is given a file of ours.
        safe_path = Path(scratch) / "weights.pth"
        torch.save(state, safe_path)
        try:
            extractor = create_feature_extractor(
                "inception-v3-compat",
                ["2048"],
                cuda=False,
                feature_extractor_weights_path=str(safe_path),
                verbose=False,
            )
        except (RuntimeError, TypeError) as error:
            raise UserError(
                f"{weights_path}: not the weights of torch-fidelity's Inception. Its page of "
                "releases has them: weights-inception-2015-12-05-6726825d.pth."
            ) from error
    return extractor.to(device)


@torch.inference_mode()
def extract_features(extractor: FeatureExtractorBase, pictures: Tensor) -> Tensor:
    """Return the features of uint8 pictures N x 3 x H x W: float32 N x F, on the CPU."""
    device = next((p.device for p in extractor.parameters()), torch.device("cpu"))
    (features,) = extractor(pictures.to(device))
    return torch.as_tensor(features).cpu().clone()


def fid(real: Tensor, generated: Tensor) -> float:
    """Return the Fréchet inception distance of two sets of features (Heusel et al. 2017)."""
    statistics = [fid_features_to_statistics(features) for features in (real, generated)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def kid(real: Tensor, generated: Tensor, seed: int) -> float:
    """Return the kernel inception distance (Binkowski et al. 2018) of two sets of features.

    It is the mean over 100 subsets, which the seed's last 32 bits decide.
    """
    size = min(KID_SUBSET_SIZE, len(real), len(generated))
    metric = kid_features_to_metric(
        real, generated, kid_subsets=100, kid_subset_size=size, rng_seed=seed % 2**32, verbose=False
    )
    return float(metric[KEY_METRIC_KID_MEAN])
