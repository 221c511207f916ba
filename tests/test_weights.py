"""The model that comes with Nurie loads, and colours as its card says."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from model.evaluation.metrics import measure_following, ratio
from model.evaluation.seen import Seen
from model.evaluation.tally import RATIOS
from model.use.colorize import Colorizer, load_colorizer
from pipeline.dolls.data_set import make_dolls, picture_of
from pipeline.pictures.sketch import dodge

DOLLS = Path(__file__).resolve().parent.parent / "weights" / "dolls-128"


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return load_colorizer(DOLLS, device="cpu")[0]


def draw(num_characters: int, num_poses: int) -> Tensor:
    """Return dolls of another seed than in training, N x 3 x 128 x 128, prepared as they were."""
    dolls = make_dolls(num_characters, num_poses, seed=1)
    small = [cv2.resize(picture_of(d), (128, 128), interpolation=cv2.INTER_AREA) for d in dolls]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)


def lines_of(pictures: Tensor) -> Tensor:
    drawn = [dodge(np.ascontiguousarray(p.permute(1, 2, 0)), 1.5) for p in pictures]
    return torch.from_numpy(np.stack(drawn))[:, None]


def test_a_character_it_never_saw_is_coloured_after_another_drawing(colorizer: Colorizer) -> None:
    pictures = draw(12, 2)
    truth, reference = pictures[0::2], pictures[1::2]
    output, true = Seen(colorizer(lines_of(truth), reference)), Seen(truth)
    errors = {name: ratio(measure(output, true)) for name, measure in RATIOS.items()}
    assert errors["chroma_error"] == pytest.approx(0.2, abs=0.1)
    assert errors["paper_error"] == pytest.approx(0, abs=0.02)


def test_it_follows_references_of_any_character(colorizer: Colorizer) -> None:
    pictures = draw(8, 1)
    following = measure_following(colorizer, lines_of(pictures), pictures)
    assert following == pytest.approx(1, abs=0.2)
