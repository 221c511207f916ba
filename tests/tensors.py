"""Pictures as tensors, uint8 N x 3 x H x W."""

import numpy as np
import torch
from torch import Tensor

from tests.pictures import draw_picture


def stack(*pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def flat(*color: int, size: int = 16) -> Tensor:
    return torch.tensor(color, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, size, size)


def drawn(*seeds: int) -> Tensor:
    return stack(*(draw_picture(seed, 64, 64) for seed in seeds))
