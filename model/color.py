"""Luma, and CIELAB's a and b (CIE 1976), of sRGB pictures: tensors for losses, bytes for measures.

By the formulas: OpenCV's conversion interpolates in a table, and is off by 0.1 in the mean and by
up to 0.5, which moves colours from one region to the next.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.device import constant

_RGB_TO_XYZ = (
    (0.43395, 0.37622, 0.18983),
    (0.21267, 0.71516, 0.07217),
    (0.01776, 0.10948, 0.87276),
)
"""Of linear sRGB; X, Y and Z are 1 for white (IEC 61966-2-1, D65)."""

_DARK = (6 / 29) ** 3
"""Where CIELAB's cube root gives way to a line."""


def to_grey(picture: Tensor) -> Tensor:
    """Return T(y), the luma of RGB pictures (ITU-R BT.601): N x 1 x H x W."""
    weights = constant((0.299, 0.587, 0.114), picture).view(3, 1, 1)
    return (picture * weights).sum(1, keepdim=True)


def to_ab(picture: Tensor) -> Tensor:
    """Return a and b of RGB pictures, each divided by 100: N x 2 x H x W.

    What lies outside [0, 1] counts as its bounds.
    """
    rgb = picture.clamp(1e-3, 1)  # at 0 the gradient of the root would have no bound
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("cr,nrhw->nchw", constant(_RGB_TO_XYZ, picture), linear)
    roots = torch.where(xyz > _DARK, xyz.clamp(min=_DARK) ** (1 / 3), xyz * 841 / 108 + 4 / 29)
    x, y, z = roots.unbind(1)
    return torch.stack([5 * (x - y), 2 * (y - z)], dim=1)


def ab_of(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a and b of RGB pictures, uint8 ... x 3: float32 ... x 2, exactly 0 for greys."""
    level = np.arange(256) / 255
    linear = np.where(level > 0.04045, ((level + 0.055) / 1.055) ** 2.4, level / 12.92)
    red, green, blue = planes = rgb.reshape(-1, 3).T
    xyz = np.array(_RGB_TO_XYZ, np.float32) @ linear.astype(np.float32)[planes]
    roots = np.where(xyz > _DARK, np.cbrt(xyz), xyz * np.float32(841 / 108) + np.float32(4 / 29))
    x, y, z = roots * ((red != green) | (green != blue))  # rounding gives greys up to 1e-4
    ab: NDArray[np.float32] = np.stack([500 * (x - y), 200 * (y - z)], axis=1)
    return ab.reshape(*rgb.shape[:-1], 2)
