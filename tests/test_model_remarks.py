import pytest

from model.evaluation.remarks import remarks

COLOURS = {"following": 0.9, "chroma_error": 0.5, "paper_error": 0.01}
"""As `reference` does."""


@pytest.mark.parametrize(
    ("figure", "bad"), [("following", 0.0), ("chroma_error", 1.17), ("paper_error", 0.29)]
)
def test_each_bad_figure_is_put_into_words(figure: str, bad: float) -> None:
    assert remarks(COLOURS) == {}
    found = remarks(COLOURS | {figure: bad})
    assert list(found) == [figure]
    assert f"{bad:.2f}" in found[figure]


def test_an_average_colour_is_told_however_good_its_mse() -> None:
    found = remarks({"mse": 0.001, "psnr": 30.0, "following": -0.02, "chroma_error": 0.9})
    assert list(found) == ["following"]


@pytest.mark.parametrize(("following", "words"), [(-0.02, "the same"), (-0.4, "the other way")])
def test_colours_that_stay_are_told_from_those_that_go_the_other_way(
    following: float, words: str
) -> None:
    assert words in remarks({"following": following})["following"]


@pytest.mark.parametrize("kind", ["source", "patch"])
def test_a_discriminator_that_has_won_is_told(kind: str) -> None:
    real, generated = f"d_{kind}_real", f"d_{kind}_generated"
    assert remarks(COLOURS | {real: 0.65, generated: 0.63}) == {}
    assert remarks(COLOURS | {real: 0.001, generated: 0.4}) == {}  # of one kind of pictures only
    found = remarks(COLOURS | {real: 0.0002, generated: 0.0004})
    assert list(found) == ["discriminator"]
    assert "0.0003" in found["discriminator"]


def test_what_was_not_measured_is_no_sign() -> None:
    assert remarks({}) == remarks({"following": None, "chroma_error": None}) == {}
