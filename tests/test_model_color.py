import cv2
import numpy as np
import pytest
import torch

from model.color import ab_of, to_ab

KNOWN = {
    (255, 0, 0): (80.0923, 67.2028),
    (0, 128, 255): (18.7735, -70.9138),
    (90, 60, 30): (9.6812, 23.5530),
    (15, 3, 3): (3.3310, 1.1738),
    (128, 128, 128): (0.0, 0.0),
}
"""Golden values of scikit-image 0.26's rgb2lab."""


def test_a_and_b_are_those_of_cielab() -> None:
    rgb = np.array([list(KNOWN)], np.uint8)
    assert ab_of(rgb)[0] == pytest.approx(np.array(list(KNOWN.values())), abs=0.01)
    found = 100 * to_ab(torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255)
    assert found[0, :, 0].T.numpy() == pytest.approx(np.array(list(KNOWN.values())), abs=0.1)


def test_everywhere_they_are_near_opencvs() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    rgb[:, :4] //= 100  # black's neighbourhood
    lab = [cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for picture in rgb]
    expected = np.stack(lab)[..., 1:]
    assert np.abs(ab_of(rgb) - expected).max() < 0.5  # OpenCV interpolates in a table
    found = 100 * to_ab(torch.from_numpy(rgb).permute(0, 3, 1, 2) / 255)
    assert np.abs(found.permute(0, 2, 3, 1).numpy() - expected).max() < 0.5


def test_no_grey_has_a_colour() -> None:
    greys = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    assert not ab_of(greys).any()


def test_black_has_a_gradient() -> None:
    black = torch.zeros(1, 3, 2, 2, requires_grad=True)
    torch.autograd.backward(to_ab(black).sum())
    assert black.grad is not None
    assert black.grad.isfinite().all()


def test_what_is_beyond_black_and_white_counts_as_these() -> None:
    beyond = torch.tensor([-0.5, 0.3, 1.7]).view(1, 3, 1, 1)
    assert torch.equal(to_ab(beyond), to_ab(beyond.clamp(0, 1)))
