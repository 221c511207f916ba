import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.color import to_grey
from model.config import TrainConfig
from model.data.augment import (
    DROP,
    JITTER,
    LINES,
    MIRROR,
    NUM_JITTER,
    NUM_WARP,
    PAIR,
    WARP,
    augment,
    bend_hues,
    draw_uniform,
    jitter_colors,
    mirror,
    same_reference,
    vary_lines,
    warp,
)
from model.networks.match import coordinates
from tests.tensors import drawn, flat

PLACES = np.array([5, 3, 8])
STILL = np.full((3, NUM_WARP), 0.5)
STILL[:, 1:3] = 3 / 7  # a scale of 1


def pictures() -> torch.Tensor:
    return drawn(1, 2, 3).float() / 255


@given(
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 2**64 - 1),
    place=st.integers(0, 2**40),
    count=st.integers(1, 9),
)
def test_a_samples_numbers_do_not_depend_on_its_batch(
    seed: int, epoch: int, place: int, count: int
) -> None:
    alone = draw_uniform(seed, epoch, 1, np.array([place]), count)
    among = draw_uniform(seed, epoch, 1, np.array([place + 1, place]), count)
    assert np.array_equal(alone[0], among[1])
    assert ((alone >= 0) & (alone < 1)).all()


def test_every_use_epoch_seed_and_place_has_its_own_numbers() -> None:
    found = {
        float(draw_uniform(seed, epoch, use, np.array([place]), 1)[0, 0])
        for seed in (0, 1)
        for epoch in (0, 1)
        for use in (1, 2, 3)
        for place in (0, 1)
    }
    assert len(found) == 24


def test_uniform_numbers_are_uniform() -> None:
    random = draw_uniform(0, 0, 1, np.arange(500), 8)
    counts, _ = np.histogram(random, bins=10, range=(0, 1))
    assert counts.sum() == 4000
    assert abs(counts - 400).max() < 5 * 19  # five deviations of a binomial's 19


def test_each_use_draws_its_own_numbers() -> None:
    """From one stream for two uses, what is dropped, say, would be of one hue."""
    assert len({0, JITTER, WARP, PAIR, DROP, LINES, MIRROR}) == 7  # 0 is the order's
    places = np.arange(50)
    color = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sketch = color[:, :1]

    def draw(use: int, count: int) -> np.ndarray:
        return draw_uniform(7, 3, use, places, count)

    def augmented(config: TrainConfig) -> torch.Tensor:
        return augment(color, color, places, config, 3)[1]

    (jittered,) = jitter_colors([color], draw(JITTER, NUM_JITTER), 0.5)
    assert torch.equal(augmented(TrainConfig(seed=7, jitter=0.5)), jittered)
    warped = warp(color, draw(WARP, NUM_WARP))
    assert torch.equal(augmented(TrainConfig(seed=7, warp=True)), warped)
    half = TrainConfig(seed=7, drop_reference=0.5, vary_lines=0.5, mirror=0.5)
    lines = vary_lines(sketch, places, half, 3)
    mirrored, _ = mirror(sketch, color, places, half, 3)
    white, one = torch.ones_like(color), torch.from_numpy
    for found, changed, use in (
        (augmented(half) == white, True, DROP),
        (mirrored == sketch, False, MIRROR),
        (lines == sketch, False, LINES),
    ):
        assert torch.equal(found.flatten(1).all(1) == changed, one(draw(use, 3)[:, 0] < 0.5)), use


def test_augmenting_is_a_pure_function_of_seed_epoch_and_sample() -> None:
    def run(places: np.ndarray, seed: int = 0, epoch: int = 0) -> tuple[torch.Tensor, ...]:
        rows = torch.from_numpy(np.searchsorted([3, 5, 8], places))
        color = pictures()[rows]
        config = TrainConfig(seed=seed, jitter=1.0, warp=True)
        return augment(color, color, places, config, epoch)

    whole, part = run(PLACES), run(PLACES[1:])
    assert all(torch.equal(a, b) for a, b in zip(run(PLACES), whole, strict=True))
    assert all(torch.allclose(a[1:], b, atol=1e-5) for a, b in zip(whole, part, strict=True))
    for other in (run(PLACES, epoch=1), run(PLACES, seed=1)):
        assert not any(torch.allclose(a, b, atol=0.05) for a, b in zip(whole, other, strict=True))


def test_without_jitter_and_warp_nothing_changes() -> None:
    color = pictures()
    target, reference = augment(color, color, PLACES, TrainConfig(), 0)
    assert target is color
    assert reference is color


def test_a_pair_gets_the_same_colours() -> None:
    color = pictures()
    target, reference = augment(color, color.flip(3), PLACES, TrainConfig(jitter=1.0), 0)
    assert torch.allclose(target, reference.flip(3), atol=1e-5)
    assert not torch.allclose(target, color, atol=0.05)


def to_chroma(picture: torch.Tensor) -> torch.Tensor:
    """Return I and Q of YIQ (NTSC 1953), N x 2 x H x W."""
    weights = picture.new_tensor(((0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)))
    return torch.einsum("cr,nrhw->nchw", weights, picture)


def test_jitter_turns_hue_and_scales_saturation_by_hand() -> None:
    brown = flat(120, 90, 70).float() / 255
    still = (0.0, 0.0, 0.0, 0.0)
    half_turn = np.array([[0.5, 0.5, 0.5, 0.0, *still]])  # 180 degrees, saturation 1, gamma 1
    turned, twin = jitter_colors([brown, brown], half_turn, 1.0)
    assert torch.equal(turned, twin)
    assert torch.allclose(to_grey(turned), to_grey(brown), atol=1e-3)
    assert torch.allclose(to_chroma(turned), -to_chroma(brown), atol=1e-3)
    (sixth,) = jitter_colors([brown], np.array([[1 / 6, 0.25, 0.5, 0.0, *still]]), 1.0)
    i, q = to_chroma(brown).unbind(1)
    cos, sin = 0.8 * math.cos(math.pi / 3), 0.8 * math.sin(math.pi / 3)  # saturation 0.8
    expected = torch.stack([cos * i - sin * q, sin * i + cos * q], dim=1)
    assert torch.allclose(to_chroma(sixth), expected, atol=1e-3)
    (paler,) = jitter_colors([brown], np.array([[0.0, 0.0, 0.5, 0.0, *still]]), 1.0)
    assert torch.allclose(to_chroma(paler), 0.6 * to_chroma(brown), atol=1e-3)
    (brighter,) = jitter_colors([brown], np.array([[0.0, 0.5, 0.0, 0.0, *still]]), 1.0)
    assert torch.allclose(brighter, brown**0.75, atol=1e-3)


def test_a_bend_turns_each_hue_by_its_own_angle() -> None:
    colors = [flat(*rgb).float() / 255 for rgb in ((150, 110, 90), (90, 120, 150), (110, 130, 100))]

    def hue(picture: torch.Tensor) -> float:
        i, q = to_chroma(picture)[0, :, 0, 0].tolist()
        return math.atan2(q, i)

    waves = np.array([[0.8, 0.3, 0.5, 2.0]])
    for color in colors:
        bent = bend_hues(color, waves)
        assert torch.allclose(to_grey(bent), to_grey(color), atol=1e-3)
        assert torch.allclose(to_chroma(bent).norm(dim=1), to_chroma(color).norm(dim=1), atol=1e-3)
        angle = 0.8 * math.sin(hue(color) + 0.5) + 0.3 * math.sin(2 * hue(color) + 2.0)
        assert math.remainder(hue(bent) - hue(color) - angle, 2 * math.pi) == pytest.approx(
            0, abs=1e-2
        )
    # In the jitter it is the numbers after the first four, and spared samples are spared.
    random = np.array([[0.0, 0.5, 0.5, 0.0, 0.4, 0.3, 0.25, 0.75]] * 2)
    random[1, 3] = 1.0
    pair = torch.cat([colors[0], colors[0]])
    bent, spared = jitter_colors([pair], random, 1.0, 2.0)[0]
    expected = bend_hues(colors[0], np.array([[0.8, 0.3, np.pi / 2, 3 * np.pi / 2]]))
    assert torch.allclose(bent, expected[0], atol=1e-3)
    assert torch.allclose(spared, colors[0][0], atol=1e-5)


def test_a_dropped_reference_is_a_white_sheet_and_its_target_stays() -> None:
    places = np.arange(400)
    color = (flat(200, 60, 30, size=1).float() / 255).expand(400, -1, -1, -1)
    target, reference = augment(color, color, places, TrainConfig(drop_reference=0.1), 0)
    assert torch.equal(target, color)
    white = (reference == 1).all(dim=1).flatten()
    assert 0.05 < white.float().mean() < 0.15
    assert torch.equal(reference[~white], color[~white])


def test_a_mirrored_sample_has_sketch_and_picture_mirrored_and_is_decided_by_itself() -> None:
    places = np.arange(400)
    sketch = torch.rand(400, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    color = sketch.expand(-1, 3, -1, -1)
    config = TrainConfig(mirror=0.3)
    lines, picture = mirror(sketch, color, places, config, 0)
    assert torch.equal(picture, lines.expand(-1, 3, -1, -1))
    mirrored = (lines == sketch.flip(-1)).flatten(1).all(1)
    assert torch.equal(lines[~mirrored], sketch[~mirrored])
    assert 0.2 < mirrored.float().mean() < 0.4
    part, _ = mirror(sketch[7:9], color[7:9], places[7:9], config, 0)
    assert torch.equal(part, lines[7:9])
    assert not torch.equal(mirror(sketch, color, places, config, 1)[0], lines)


def test_another_pen_leaves_paper_white_and_is_decided_by_the_sample() -> None:
    sketch = torch.ones(400, 1, 9, 9)
    sketch[:, :, 4, :] = 0.5
    places = np.arange(400)
    config = TrainConfig(vary_lines=0.8)
    varied = vary_lines(sketch, places, config, 0)
    assert torch.equal(varied[:, :, [0, 1, 7, 8]], sketch[:, :, [0, 1, 7, 8]])
    same = (varied == sketch).flatten(1).all(1)
    assert 0.12 < same.float().mean() < 0.28
    beside = varied[:, 0, 3, 4]
    assert 0.3 < (beside < 1).float().mean() < 0.5  # half of the changed ones: broader, softer
    plain = varied[(beside == 1) & ~same, 0, 4, 4]  # 0.5 to the power of 1/4 to 4
    assert plain.min() >= 0.5**4 - 1e-6
    assert plain.max() <= 0.5**0.25 + 1e-6
    assert plain.min() < 0.1 < 0.8 < plain.max()
    part = vary_lines(sketch[7:9], places[7:9], config, 0)
    assert torch.equal(part, varied[7:9])
    assert not torch.equal(vary_lines(sketch, places, config, 1), varied)


def test_white_stays_white_and_only_the_share_is_changed() -> None:
    white = flat(255, 255, 255).float().expand(2, -1, -1, -1) / 255
    random = draw_uniform(0, 0, 1, np.arange(2), NUM_JITTER)
    assert torch.allclose(jitter_colors([white], random, 1.0)[0], white, atol=1e-5)
    random = draw_uniform(0, 0, 1, np.arange(400), NUM_JITTER)
    small = (flat(200, 60, 30, size=1).float() / 255).expand(400, -1, -1, -1)
    (found,) = jitter_colors([small], random, 0.8)
    changed = (found - small).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert 0.72 < changed.float().mean() < 0.88
    assert torch.allclose(found[~changed], small[~changed], atol=1e-5)


def test_reframing_brings_nearer_and_takes_away_by_octaves() -> None:
    color = torch.zeros(3, 3, 64, 64)
    color[..., 24:40, 24:40] = 1.0
    still = STILL.copy()
    assert torch.allclose(warp(color, still, 1.0), color, atol=1e-4)
    still[:, -1] = (0.0, 0.25, 1.0)  # an octave nearer, half of one, and one away
    areas = warp(color, still, 1.0).mean(dim=(1, 2, 3)) * 64 * 64
    assert areas.tolist() == pytest.approx([32**2, 2 * 16**2, 8**2], rel=0.1)
    assert torch.allclose(warp(color, still), color, atol=1e-4)
    shifted = STILL.copy()
    shifted[:, 4] = 1.0
    column = torch.arange(64.0)
    mild, strong = (
        31.5 - float((w[0].mean((0, 1)) * column).sum() / w[0].mean((0, 1)).sum())
        for w in (warp(color, shifted), warp(color, shifted, 1.0))
    )
    assert strong == pytest.approx(2 * mild, rel=0.02)


def test_a_warp_of_nothing_is_nothing_and_a_flip_is_a_flip() -> None:
    color = pictures()
    assert torch.allclose(warp(color, STILL), color, atol=1e-4)
    flipped = STILL.copy()
    flipped[:, 3] = 0.0
    assert torch.allclose(warp(color, flipped), color.flip(3), atol=1e-4)


def test_a_shift_moves_the_picture_the_stated_way() -> None:
    color = pictures()
    shifted = STILL.copy()
    shifted[:, 4] = 0.5 + 0.5 * (0.125 / 0.15)  # an eighth of half the width: 4 of 64 pixels
    assert torch.allclose(warp(color, shifted)[..., :-4], color[..., 4:], atol=1e-4)


COS, SIN = math.cos(0.25), math.sin(0.25)


@pytest.mark.parametrize(
    ("numbers", "x_of_xy", "y_of_xy"),
    [
        ({0: 1.0}, (COS, -SIN, 0), (SIN, COS, 0)),
        ({0: 1.0, 3: 0.49}, (-COS, -SIN, 0), (-SIN, COS, 0)),
        ({1: 1.0, 2: 0.0}, (1.2, 0, 0), (0, 0.85, 0)),
        ({4: 1.0, 5: 0.0}, (1, 0, 0.15), (0, 1, -0.15)),
        (dict.fromkeys(range(6, 22), 1.0), (1, 0, 0.15), (0, 1, 0)),
    ],
    ids=["turned", "flipped, then turned", "stretched", "shifted", "displaced"],
)
def test_a_warp_looks_where_its_numbers_say(
    numbers: dict[int, float],
    x_of_xy: tuple[float, float, float],
    y_of_xy: tuple[float, float, float],
) -> None:
    """By hand, in a picture whose colours are the places themselves; beyond lies its border."""
    y, x = coordinates(torch.zeros(1, 1, 64, 64))[0]
    random = STILL[:1].copy()
    for place, number in numbers.items():
        random[:, place] = number
    seen = warp(torch.stack([x, y])[None], random)[0]
    expected = torch.stack([a * x + b * y + c for a, b, c in (x_of_xy, y_of_xy)])
    assert torch.allclose(seen, expected.clamp(x.min(), x.max()), atol=1e-4)


def test_a_warp_bends_smoothly() -> None:
    """In a picture whose colours are the places themselves."""
    places = coordinates(torch.zeros(1, 1, 64, 64))
    random = STILL[:1].copy()
    random[:, 6:-1] = draw_uniform(0, 0, 2, np.array([0]), 32)
    bends = warp(places, random) - places
    assert bends.std() > 0.05
    assert max(bends.diff(dim=dim).abs().max() for dim in (2, 3)) < 0.05


def test_a_warp_keeps_the_colours_in_their_range() -> None:
    bent = warp(pictures(), draw_uniform(0, 0, 2, PLACES, NUM_WARP))
    assert bent.shape == pictures().shape
    assert bent.min() >= 0
    assert bent.max() <= 1
    assert bent.mean().item() == pytest.approx(pictures().mean().item(), abs=0.1)


def test_the_same_reference_setting_is_the_truth_bent() -> None:
    color = drawn(1, 2, 3)
    truth, reference = same_reference(color, PLACES, seed=0)
    assert truth.dtype == reference.dtype == torch.uint8
    again = same_reference(color, PLACES, seed=0)
    assert torch.equal(truth, again[0])
    assert torch.equal(reference, again[1])
    for one, other in ((truth, color), (reference, color), (truth, reference)):
        assert (one.float() - other.float()).abs().mean() > 5
    gap = truth.float().mean((2, 3)) - reference.float().mean((2, 3))
    assert gap.abs().max() < 25  # one palette
