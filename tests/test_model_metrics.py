import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.evaluation.metrics import (
    PSNR_CAP,
    bootstrap,
    bootstrap_following,
    chroma_distances,
    cross,
    following,
    measure_following,
    mse,
    palette,
    paper_distances,
    psnr,
    ratio,
    regional_distances,
    ssim,
)
from model.evaluation.seen import Seen
from tests.tensors import drawn, flat, stack


def test_mse_and_psnr_by_hand() -> None:
    truth, output = flat(0, 100, 200), flat(51, 100, 200)  # a fifth off in one channel
    assert mse(output, truth).tolist() == pytest.approx([0.04 / 3])
    assert psnr(output, truth).tolist() == pytest.approx([-10 * np.log10(0.04 / 3)])
    assert psnr(truth, truth).tolist() == pytest.approx([PSNR_CAP])


def test_ssim_and_psnr_agree_with_scikit_image() -> None:
    """Golden values of scikit-image 0.26.

    structural_similarity(a, b, channel_axis=2, gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=255) and peak_signal_noise_ratio(a, b).
    """
    y, x = np.mgrid[0:48, 0:40]
    a = np.stack([x * 6 % 256, y * 5 % 256, x * y % 256], axis=-1).astype(np.uint8)
    noise = ((x * 7 + y * 13) % 41 - 20)[..., None]
    b = np.clip(a.astype(int) + noise, 0, 255).astype(np.uint8)
    similarities = ssim(Seen(stack(a, a)), Seen(stack(b, a)))
    assert similarities == pytest.approx([0.710123779569172, 1.0])
    assert psnr(stack(a), stack(b)).item() == pytest.approx(26.830466138515874)


def test_each_picture_is_measured_alone() -> None:
    outputs, truths = drawn(1, 2, 3), drawn(4, 2, 6)
    for measure in (mse, psnr, lambda *pair: ssim(*map(Seen, pair))):
        together = measure(outputs, truths)
        alone = [measure(outputs[i : i + 1], truths[i : i + 1]).item() for i in range(3)]
        assert together.tolist() == pytest.approx(alone)


def test_greys_have_no_colour_at_all() -> None:
    greys = torch.arange(256, dtype=torch.uint8).view(2, 1, 8, 16).expand(-1, 3, -1, -1)
    assert ratio(chroma_distances(Seen(drawn(1, 2)[..., :8, :16]), Seen(greys))) is None
    assert following(np.stack([palette(drawn(1, 2))] * 2), palette(greys)) is None


def test_paper_is_not_foreground() -> None:
    picture = flat(240, 250, 255).clone()
    picture[..., :4, :] = flat(240, 239, 255, size=16)[..., :4, :]
    assert Seen(picture).foreground[0].sum() == 4 * 16
    assert palette(flat(255, 255, 255)).tolist() == [[0.0, 0.0]]
    half = flat(255, 255, 255).clone()
    half[..., :8, :] = flat(90, 60, 30)[..., :8, :]
    assert palette(half)[0] == pytest.approx((9.6812, 23.5530), abs=0.01)


def test_chroma_error_is_relative_to_no_colour() -> None:
    truth = drawn(1, 2)
    grey = truth.float().mean(1, keepdim=True).to(torch.uint8).expand(-1, 3, -1, -1)
    assert ratio(chroma_distances(Seen(truth), Seen(truth))) == 0
    assert ratio(chroma_distances(Seen(grey), Seen(truth))) == pytest.approx(1, abs=1e-3)
    red_for_blue = ratio(chroma_distances(Seen(truth.flip(1)), Seen(truth)))
    assert red_for_blue is not None
    assert red_for_blue > 1
    assert ratio(chroma_distances(Seen(truth[:1]), Seen(flat(255, 255, 255, size=64)))) is None


def test_the_regional_error_sees_only_what_is_small_by_hand() -> None:
    """Regions of 60, 24, 12 and 4 columns of 100: 12 + 4 fit into a third, 24 more would not."""
    colors = {60: (90, 60, 30), 24: (255, 0, 0), 12: (0, 128, 255), 4: (0, 160, 60)}
    truth = torch.cat(
        [flat(*c, size=10)[..., :1].expand(-1, -1, -1, n) for n, c in colors.items()], 3
    )
    paper = flat(255, 255, 255, size=10)
    grey = flat(128, 128, 128, size=10).repeat(1, 1, 1, 20)  # no colour, hence no region
    truth = torch.cat([truth, paper, grey], dim=3)

    output = truth.clone()
    output[..., :84] = 128  # the large regions wrong
    output[..., 100:] = 77
    assert regional_distances(Seen(output), Seen(truth))[0, 0] == 0
    output = truth.clone()
    output[..., 96:100] = 128  # green: a quarter of the 16 small columns
    found, colourless = regional_distances(Seen(output), Seen(truth))[0]
    blue, green = (float(Seen(flat(*c)).chroma[0][0, 0]) for c in list(colors.values())[2:])
    assert found == pytest.approx(4 * green / 16, rel=1e-3)
    assert colourless == pytest.approx((12 * blue + 4 * green) / 16, rel=1e-3)
    assert ratio(regional_distances(Seen(truth), Seen(truth))) == 0


@pytest.mark.parametrize(("a", "num_small"), [(39.9, 10), (40.1, 30), (7.9, 10), (8.1, 30)])
def test_a_region_is_a_square_of_16_in_a_and_b(
    monkeypatch: pytest.MonkeyPatch, a: float, num_small: int
) -> None:
    """Centred on multiples of 16: from 39.9 one rounds to 32, from 7.9 to no colour at all.

    Of three regions the smaller two are just a third, and so still fit into it.
    """
    ab = np.zeros((1, 90, 2), np.float32)
    ab[:, :60, 0], ab[:, 60:80, 0], ab[:, 80:, 1] = 32, a, -48
    monkeypatch.setattr("model.evaluation.seen.ab_of", lambda _: ab)
    picture = Seen(torch.zeros(1, 3, 1, 90, dtype=torch.uint8))
    ((_, colourless),) = regional_distances(picture, picture)
    small = 10 * 48 + (20 * a if num_small == 30 else 0)
    assert colourless == pytest.approx(small / num_small, rel=1e-4)


def test_the_smallest_region_counts_even_if_it_is_large() -> None:
    truth, wrong = Seen(flat(255, 0, 0)), Seen(flat(128, 128, 128))
    assert ratio(regional_distances(wrong, truth)) == pytest.approx(1, abs=1e-3)
    assert regional_distances(truth, wrong).tolist() == [[0.0, 0.0]]  # no colour: no region


def test_the_paper_error_is_the_haze_on_paper_by_hand() -> None:
    truth = torch.cat([flat(255, 240, 250), flat(10, 255, 30)], dim=3)  # half of it is paper
    assert paper_distances(Seen(truth), Seen(truth)).tolist() == [[0.0, 256.0]]
    hazy = truth.clone()
    hazy[..., 16:] = 0  # what is no paper does not count
    hazy[:, 1, 0, 0] = 240 - 51
    assert paper_distances(Seen(hazy), Seen(truth))[0].tolist() == pytest.approx([0.2 / 3, 256.0])
    assert ratio(paper_distances(Seen(hazy), Seen(flat(0, 0, 0).repeat(1, 1, 1, 2)))) is None


def test_the_interval_is_the_percentiles_of_resampled_ratios() -> None:
    constant = np.array([[3.0, 2.0]] * 5)
    assert bootstrap(constant, np.arange(5), seed=0) == [1.5, 1.5]
    # Of 400 pictures, half 0 and half 1, the mean deviates by 0.5 / 20 = 0.025.
    halves, apart = np.array([[0.0, 1.0], [1.0, 1.0]] * 200), np.arange(400)
    interval = bootstrap(halves, apart, seed=0)
    assert interval == pytest.approx([0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025], abs=0.006)
    assert interval == bootstrap(halves, apart, seed=0) != bootstrap(halves, apart, seed=1)
    assert bootstrap(np.zeros((3, 2)), np.arange(3), seed=0) is None


@pytest.mark.parametrize("num_copies", [2, 9])
def test_copies_within_a_cluster_are_no_further_evidence(num_copies: int) -> None:
    parts, clusters = np.random.default_rng(0).random((30, 2)), np.arange(30)
    copies = np.repeat(parts, num_copies, axis=0), np.repeat(clusters, num_copies)
    shuffled = np.random.default_rng(1).permutation(len(copies[1]))
    expected = bootstrap(parts, clusters, seed=0)
    assert bootstrap(copies[0][shuffled], copies[1][shuffled], seed=0) == pytest.approx(expected)


def test_a_cluster_counts_with_all_of_its_pictures() -> None:
    wrong_and_right = np.array([[0.0, 1.0], [1.0, 1.0]] * 5)
    assert bootstrap(wrong_and_right, np.repeat(np.arange(5), 2), seed=0) == [0.5, 0.5]


def test_one_cluster_alone_has_no_interval() -> None:
    parts = np.random.default_rng(0).random((5, 2))
    assert bootstrap(parts, np.zeros(5, np.int64), seed=0) is None
    one_tells = np.array([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    assert bootstrap(one_tells, np.arange(3), seed=0) is None


def test_resamples_of_what_tells_nothing_are_left_out() -> None:
    """Of three pictures one without colour: one resample in 27 is of that one alone."""
    two_tell = np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]])
    assert bootstrap(two_tell, np.arange(3), seed=0) == [0.5, 0.5]


def test_a_large_picture_weighs_as_in_the_measure_itself() -> None:
    parts = np.array([[10.0, 100.0], [1.0, 1.0]] * 50)
    low, high = bootstrap(parts, np.arange(100), seed=0) or (0.0, 0.0)
    error = ratio(parts)
    assert error is not None
    assert low < error < high < 0.2  # not the mean of ratios, 0.55


def test_following_is_0_for_an_average_and_1_for_a_copy() -> None:
    sketches, references = drawn(1, 2, 3)[:, :1], drawn(4, 5, 6, 7)
    average = references.float().mean(0, keepdim=True).to(torch.uint8)
    answers = {
        "copy": (lambda sketch, reference: reference.expand(len(sketch), -1, -1, -1), 1),
        "average": (lambda sketch, reference: average.expand(len(sketch), -1, -1, -1), 0),
        "sketch": (lambda sketch, reference: sketch.expand(-1, 3, -1, -1), 0),
    }
    for answer, expected in answers.values():
        assert measure_following(answer, sketches, references) == pytest.approx(expected, abs=1e-9)


@given(
    slope=st.floats(-2, 2),
    shape=st.tuples(st.integers(1, 4), st.integers(2, 5)),
    seed=st.integers(0, 2**32),
)
def test_following_is_the_slope_whatever_sketches_have_in_common(
    slope: float, shape: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    references = rng.normal(size=(shape[1], 2)) * 30
    own_color = rng.normal(size=(shape[0], 1, 2)) * 50
    assert following(own_color + slope * references, references) == pytest.approx(slope)


def test_following_needs_references_that_differ() -> None:
    assert following(np.zeros((3, 2, 2)), np.ones((2, 2))) is None
    assert bootstrap_following(np.zeros((3, 2, 2)), np.ones((2, 2)), seed=0) is None


@given(
    palette=st.tuples(st.floats(-100, 100), st.floats(-100, 100)), num_references=st.integers(2, 20)
)
def test_equal_references_are_one_palette_whatever_their_mean_is_rounded_to(
    palette: tuple[float, float], num_references: int
) -> None:
    references = np.array([palette] * num_references)
    outputs = np.random.default_rng(0).normal(size=(3, num_references, 2)) * 30
    assert following(outputs, references) is None


def test_of_three_references_the_interval_is_of_resamples_that_differ() -> None:
    """One resample in nine is of one reference alone, three times."""
    references = np.random.default_rng(5).normal(size=(3, 2)) * 20
    outputs = np.random.default_rng(1).normal(size=(6, 3, 2)) + 0.8 * references
    assert bootstrap_following(outputs, references, seed=0) == pytest.approx([0.8, 0.8], abs=0.1)


@pytest.mark.parametrize("axis", [0, 1], ids=["by sketch", "by reference"])
def test_the_interval_of_following_is_as_wide_as_sketches_or_references_differ(axis: int) -> None:
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    references = 30 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    slopes = np.expand_dims(np.tile([0.5, 1.0], 8), 1 - axis)[..., None]  # half of them each
    low, high = bootstrap_following(slopes * references, references, seed=0) or (0, 0)
    assert following(slopes * references, references) == pytest.approx(0.75)
    assert (low, high) == pytest.approx((0.625, 0.875), abs=0.04)  # 1.96 x 0.25 / sqrt(16)
    same = np.ones_like(slopes * references)
    assert bootstrap_following(same, references, seed=0) == pytest.approx([0, 0], abs=1e-9)


def test_the_interval_of_an_answer_that_always_follows_alike_is_a_point() -> None:
    references = drawn(4, 5, 6, 7)
    outputs = cross(lambda _, one: one.expand(3, -1, -1, -1), references[:3, :1], references)
    found = bootstrap_following(outputs, palette(references), seed=0)
    assert found == pytest.approx([1, 1])
