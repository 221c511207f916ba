from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.commands.demo import demo
from model.config import TrainConfig
from model.data.samples import Samples
from model.evaluation.crossing import MIN_CHARACTERS, judge_crossing
from model.training.train import train
from pipeline.dolls.data_set import make_dolls
from pipeline.errors import UserError
from pipeline.planning.plan import assign_shards
from pipeline.recipe_file import load_recipe
from pipeline.schema import SPLITS
from tests.model_samples import write_samples

CHARACTERS = [f"character_{i}" for i in range(10)]


@pytest.fixture(scope="module")
def samples_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"train": 8, "val": 4, "test": 12}
    return write_samples(tmp_path_factory.mktemp("samples"), sizes, characters=CHARACTERS)


@pytest.fixture(scope="module")
def checkpoint(samples_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("run")
    config = TrainConfig(model="reference", gan="none", batch_size=4, epochs=1, num_following=2)
    train(config, samples_dir, run_dir)
    return run_dir / "best.safetensors"


@pytest.mark.slow
def test_an_answer_is_measured_against_the_truth_of_its_own_pair(
    samples_dir: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """The truth is the reference itself here, so that ``copy`` alone is right everywhere."""
    with Samples(samples_dir, "test") as samples:
        pictures = samples.load(range(len(samples))).color.permute(0, 2, 3, 1).numpy()
        of_post = dict(zip(samples.post_ids.tolist(), pictures, strict=True))
        characters = dict(zip(samples.post_ids.tolist(), samples.characters, strict=True))
    asked: list[tuple[int, int]] = []

    def truth(sketch_id: int, reference_id: int) -> NDArray[np.uint8]:
        asked.append((sketch_id, reference_id))
        picture: NDArray[np.uint8] = of_post[reference_id]
        return picture

    sheet_path = tmp_path / "new" / "sheet.png"
    found = judge_crossing(checkpoint, samples_dir, "test", truth, sheet_path)
    assert len(asked) == 25
    cast = [{characters[pair[i]] for pair in asked} for i in range(2)]
    assert [len(names) for names in cast] == [5, 5]
    assert not cast[0] & cast[1]
    assert found["copy"]["chroma_error"] == found["copy"]["regional_error"] == 0
    assert found["copy"]["following"] == pytest.approx(1)
    assert found["grey"]["following"] == pytest.approx(0, abs=1e-6)
    assert found["grey"]["chroma_error"] == pytest.approx(1, abs=0.01)
    for name in ("following", "chroma_error", "regional_error", "psnr"):
        assert found["model"][name] not in (None, found["copy"][name], found["grey"][name])

    sheet = np.asarray(Image.open(sheet_path))
    assert sheet.shape == (20 + 5 * 68, 4 + 9 * 68, 3)
    shown_reference = sheet[20:84, 4 + 68 : 4 + 68 + 64]
    for row in range(1, 5):  # the truth, for each of the sketches
        top = 20 + row * 68
        assert (sheet[top : top + 64, 4 + 2 * 68 : 4 + 2 * 68 + 64] == shown_reference).all()


def test_no_more_sketches_and_references_are_judged_than_the_figures_are_of(
    checkpoint: Path, samples_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.evaluation.crossing.NUM_JUDGED", 2)
    asked: list[tuple[int, int]] = []

    def truth(sketch_id: int, reference_id: int) -> NDArray[np.uint8]:
        asked.append((sketch_id, reference_id))
        return np.full((64, 64, 3), 90, np.uint8)

    judge_crossing(checkpoint, samples_dir, "test", truth, tmp_path / "sheet.png")
    assert len({pair[0] for pair in asked}) == len({pair[1] for pair in asked}) == 2
    assert len(asked) == 4


def test_three_characters_are_enough(checkpoint: Path, tmp_path: Path) -> None:
    few = write_samples(tmp_path / "few", {"test": 3}, characters=CHARACTERS)
    picture = np.full((64, 64, 3), 90, np.uint8)
    found = judge_crossing(checkpoint, few, "test", lambda s, r: picture, tmp_path / "sheet.png")
    assert found["copy"]["following"] == pytest.approx(1)
    # A sketch's row below the references', each of the two followed by the truth.
    assert np.asarray(Image.open(tmp_path / "sheet.png")).shape == (20 + 2 * 68, 4 + 5 * 68, 3)


def test_the_smallest_demo_has_characters_enough() -> None:
    (option,) = get_type_hints(demo, include_extras=True)["characters"].__metadata__
    families = np.array([doll.post_id for doll in make_dolls(option.min, num_poses=1)])
    split, _ = assign_shards(families, load_recipe("dolls-64").split)
    assert np.count_nonzero(split == SPLITS.index("test")) >= MIN_CHARACTERS


def test_too_few_characters_are_named(checkpoint: Path, tmp_path: Path) -> None:
    few = write_samples(tmp_path / "few", {"test": 2}, characters=CHARACTERS)
    with pytest.raises(UserError, match="test split has 2 characters, and a crossing takes 3"):
        judge_crossing(checkpoint, few, "test", lambda s, r: np.zeros((0,), np.uint8), tmp_path)
