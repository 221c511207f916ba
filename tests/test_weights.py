"""The model that comes with Nurie loads, and colours as its card says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model.evaluation.metrics import measure_following, ratio
from model.evaluation.seen import Seen
from model.evaluation.tally import RATIOS
from model.use.colorize import Colorizer, load_colorizer
from pipeline.dolls.data_set import make_dolls, picture_of
from pipeline.pictures.image import resize
from pipeline.pictures.sketch import draw_sketch
from pipeline.recipe_file import load_recipe

DOLLS = Path(__file__).resolve().parent.parent / "weights" / "dolls-128-varied"
RECIPE = load_recipe(DOLLS.name)
LINES = RECIPE.prepare.sketch_members


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return load_colorizer(DOLLS, device="cpu")[0]


def draw(num_characters: int, num_poses: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return dolls on white of another seed than in training, and their lines, as prepared."""
    dolls = make_dolls(num_characters, num_poses, seed=1)
    small = [resize(picture_of(doll), RECIPE.prepare.size, RECIPE.prepare.fit) for doll in dolls]
    lines = {
        name: torch.from_numpy(np.stack([draw_sketch(p, settings) for p in small]))[:, None]
        for name, settings in LINES.items()
    }
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2), lines


@pytest.mark.parametrize("kind", LINES)
def test_a_character_it_never_saw_is_coloured_after_another_drawing(
    kind: str, colorizer: Colorizer
) -> None:
    pictures, lines = draw(12, 2)
    truth, reference = pictures[0::2], pictures[1::2]
    output, true = Seen(colorizer(lines[kind][0::2], reference)), Seen(truth)
    errors = {name: ratio(measure(output, true)) for name, measure in RATIOS.items()}
    assert errors["chroma_error"] == pytest.approx(0.22, abs=0.1)
    assert errors["paper_error"] == pytest.approx(0, abs=0.02)


def test_it_follows_references_of_any_character(colorizer: Colorizer) -> None:
    pictures, lines = draw(8, 1)
    following = measure_following(colorizer, lines["sketch"], pictures)
    assert following == pytest.approx(0.9, abs=0.2)
