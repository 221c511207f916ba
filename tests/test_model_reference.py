import itertools

import pytest
import torch

from model import build_generator
from model.networks.match import SHADES, Found, Match, attend, coordinates, sort_shades
from model.networks.reference import (
    OPACITY_BIAS,
    Encoder,
    GroupNorm,
    ReferenceUNet,
    convex_upsample,
    draw_lines,
    look_again,
)
from tests.tensors import drawn, flat

SKETCH = drawn(1, 2)[:, :1].float() / 255


@pytest.mark.parametrize("size", ["small", "medium", "base"])
@pytest.mark.parametrize("sides", [(64, 64), (96, 160)])
def test_sketch_and_reference_may_differ_in_size(size: str, sides: tuple[int, int]) -> None:
    generator = build_generator("reference", 0.25, size)
    outputs = generator(torch.rand(2, 1, *sides), torch.rand(2, 3, 128, 64))
    assert outputs.picture.shape == (2, 3, *sides)
    assert outputs.guide_color is not None
    assert outputs.guide_color.shape == (2, 3, *sides)
    assert outputs.guide_grey is None


@pytest.mark.parametrize(
    ("size", "num_parameters"), [("small", 2_720_253), ("medium", 4_730_295), ("base", 7_870_007)]
)
def test_number_of_parameters(size: str, num_parameters: int) -> None:
    with torch.device("meta"):
        generator = build_generator("reference", 1.0, size)
    assert sum(p.numel() for p in generator.parameters()) == num_parameters


def test_matched_levels_have_the_stated_sizes() -> None:
    found: list[int] = []
    for size, side, expected in (
        ("small", 64, [8, 16]),
        ("medium", 128, [8, 16, 32]),
        ("base", 256, [8, 16, 32]),
    ):
        found.clear()
        generator = build_generator("reference", 0.25, size).train()
        for match in generator.get_submodule("matches").children():
            match.register_forward_hook(lambda _, __, output: found.append(len(output[0][0, 0])))
        generator(torch.ones(1, 1, side, side), torch.ones(1, 3, side, side))
        assert found == expected


@pytest.mark.parametrize(
    ("sketch", "reference", "message"),
    [
        ((1, 1, 100, 64), (1, 3, 64, 64), "sketches .* 100"),
        ((1, 1, 64, 100), (1, 3, 64, 64), "sketches .* 100"),
        ((1, 3, 64, 64), (1, 3, 64, 64), r"sketches .*\(1, 3"),
        ((1, 1, 64, 64), (1, 3, 70, 64), "references .* 70"),
        ((1, 1, 64, 64), (1, 4096), "references .* 4096"),
    ],
)
def test_a_wrong_shape_is_named(
    sketch: tuple[int, ...], reference: tuple[int, ...], message: str
) -> None:
    generator = build_generator("reference", 0.25)
    with pytest.raises(ValueError, match=message):
        generator(torch.rand(sketch), torch.rand(reference))


def test_it_begins_as_the_colours_of_the_reference() -> None:
    generator = build_generator("reference", 0.25).eval()
    opacity = torch.tensor(OPACITY_BIAS).sigmoid()
    for color in ((200, 40, 90), (10, 150, 220)):
        reference = flat(*color, size=64).float() / 255
        picture = generator(SKETCH[:1], reference).picture
        assert torch.allclose(picture, 1 - opacity * (1 - reference), atol=1e-5)


def test_every_pixel_may_be_of_a_shade_that_is_nobodys_mean() -> None:
    """Of a reference of thin stripes, its two colours come out, and not what lies between."""
    generator = build_generator("reference", 0.25)  # one view: nearer ones are interpolated
    dark, light = torch.tensor((0.3, 0.1, 0.0)), torch.tensor((1.0, 0.8, 0.2))
    reference = torch.empty(1, 3, 64, 64)
    reference[..., ::2], reference[..., 1::2] = dark[:, None, None], light[:, None, None]
    out = generator.get_submodule("out")
    assert isinstance(out.bias, torch.Tensor)
    for rank, color in ((0, dark), (SHADES - 1, light)):
        with torch.no_grad():
            out.bias[3] = 20.0  # opaque
            out.bias[4 : 4 + SHADES] = -20.0
            out.bias[4 + rank] = 20.0
            picture = generator(SKETCH[:1], reference).picture
        assert torch.allclose(picture, color[:, None, None].expand_as(picture), atol=1e-4)


def test_a_pixel_may_mix_the_places_around_its_own_and_change_what_it_found() -> None:
    generator = build_generator("reference", 0.25)
    looked_up: list[Found] = []
    generator.get_submodule("matches.1").register_forward_hook(
        lambda _, __, found: looked_up.append(found)
    )
    out = generator.get_submodule("out")
    assert isinstance(out.bias, torch.Tensor)
    change, places = torch.tensor((0.1, -0.2, 0.3)), torch.arange(9.0)
    with torch.no_grad():
        out.bias[:3], out.bias[-9:] = change, places
        picture = generator(SKETCH[:1], drawn(3).float() / 255).picture
    logits = places.view(1, 9, 1, 1).expand(1, 9, 64, 64)
    shades = torch.unflatten(convex_upsample(looked_up[0].shades, logits), 1, (SHADES, 3))
    opacity = torch.tensor(OPACITY_BIAS).sigmoid()
    expected = 1 - opacity * (1 - shades.mean(1)) + change[:, None, None]
    assert torch.allclose(picture, expected, atol=1e-5)


def test_shades_are_ranked_by_their_luma() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = torch.randperm(16, generator=generator).float()
    colors = grey.view(1, 16, 1, 1, 1).expand(2, 16, 3, 2, 3)
    means = torch.tensor((1.5, 5.5, 9.5, 13.5))
    assert torch.allclose(sort_shades(colors), means.view(1, 4, 1, 1, 1).expand(2, 4, 3, 2, 3))
    red, blue = torch.tensor((1.0, 0.0, 0.0)), torch.tensor((0.0, 0.0, 1.0))
    mixed = torch.stack([red, blue] * 8).view(1, 16, 3, 1, 1)
    assert torch.equal(sort_shades(mixed).flatten(1), torch.cat([blue, blue, red, red])[None])


def test_colours_within_a_place_are_told_from_their_mean() -> None:
    """Stripes and their mean are one colour to a place of four pixels, and not to the network."""
    generator = build_generator("reference", 0.25).eval()
    stripes = torch.zeros(1, 3, 64, 64)
    stripes[..., ::2] = 0.8
    plain = torch.full((1, 3, 64, 64), 0.4)
    place = torch.rand(1, 32, 16, 16)
    match = generator.get_submodule("matches.1")
    assert isinstance(match, Match)
    striped, flat_ = (match(place, place, picture) for picture in (stripes, plain))
    mean, mean_of_plain = (
        torch.unflatten(found.shades, 1, (SHADES, 3)).mean(1) for found in (striped, flat_)
    )
    assert torch.allclose(mean, mean_of_plain, atol=1e-5)
    assert not torch.allclose(striped.features, flat_.features, atol=1e-3)


def test_like_places_near_each_other_are_matched_before_anything_is_learnt() -> None:
    """Sketch and reference of one drawing: what is found is nearer to it than the mean colour."""
    torch.manual_seed(0)
    generator = build_generator("reference").eval()
    reference = drawn(1, 2, 3, 4).float() / 255
    found = generator(draw_lines(reference), reference).guide_color
    assert found is not None
    mean = reference.mean((2, 3), keepdim=True)
    assert (found - reference).abs().mean() < 0.8 * (mean - reference).abs().mean()


def test_a_reference_is_looked_at_as_it_is_moved_and_from_nearer() -> None:
    references = drawn(1, 2).float() / 255
    as_it_is, moved, _ = look_again(references, 2).view(3, 2, 3, 64, 64)
    assert torch.equal(as_it_is, references)
    assert torch.equal(moved[..., :62, :62], references[..., 2:, 2:])
    assert torch.equal(moved[..., :62, 62:], references[..., 2:, 63:].expand(2, 3, 62, 2))
    square = torch.zeros(1, 3, 64, 96)
    square[..., 22:42, 38:58] = 1  # in the middle
    rows, columns = (look_again(square, 2)[2, 0].sum(d).max() for d in (0, 1))
    assert rows == pytest.approx(20 * 64 / 50, abs=0.5)
    assert columns == pytest.approx(20 * 96 / 74, abs=0.5)


@pytest.mark.parametrize(("size", "half_place"), [("small", 2), ("medium", 2), ("base", 4)])
def test_it_moves_by_half_a_place_of_the_finest_match(size: str, half_place: int) -> None:
    generator = build_generator("reference", 0.25, size)
    assert isinstance(generator, ReferenceUNet)
    assert generator.half_place == half_place


@pytest.mark.parametrize(("length", "value_length"), [(5, 9), (9, 5)])
def test_attention_takes_vectors_of_any_length(length: int, value_length: int) -> None:
    query, key = torch.rand(2, length, 6).mT, torch.rand(2, length, 7).mT
    value = torch.rand(2, 7, value_length)
    expected = (query @ key.mT).softmax(-1) @ value
    torch.testing.assert_close(attend(query, key, value), expected)


def test_a_trained_network_finds_what_another_view_shows_and_a_learning_one_does_not() -> None:
    """Of two places in the sketch, one is like what only the second view has there."""
    match = Match(16)
    torch.nn.init.eye_(match.likeness.weight[:, :, 0, 0])
    with torch.no_grad():
        match.log_nearness.fill_(-9)
    places = torch.eye(16).view(1, 16, 4, 4)  # no two are alike
    unlike = -places
    red, blue = torch.zeros(2, 1, 3, 4, 4)
    red[:, 0], blue[:, 2] = 1, 1
    both = torch.cat([red, blue])
    found = match(places, torch.cat([unlike, places]), both).shades
    assert torch.allclose(found, blue.repeat(1, SHADES, 1, 1), atol=1e-3)
    generator = build_generator("reference", 0.25)
    reference = drawn(3).float() / 255
    seen: list[int] = []
    first = generator.get_submodule("matches.0")
    first.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[1])))
    for mode in (True, False):
        generator.train(mode)(SKETCH[:1], reference)
    assert seen == [1, 3]


def test_views_of_one_reference_are_not_given_to_another_sketch() -> None:
    torch.manual_seed(0)
    generator = build_generator("reference", 0.25).eval()
    torch.nn.init.normal_(generator.get_parameter("out.weight"), std=0.1)
    references = drawn(3, 4).float() / 255
    together = generator(SKETCH, references).picture
    for number in range(2):
        alone = generator(SKETCH[number : number + 1], references[number : number + 1]).picture
        assert torch.allclose(together[number], alone[0], atol=1e-5)


def test_nearness_is_a_bell_around_the_same_place() -> None:
    """With all places alike, the weights are exp(-n |p - p'|^2), n = 2 at first."""
    match = Match(8)
    reference = torch.zeros(1, 3, 4, 4)
    reference[0, 0, 1, 2] = 1.0  # its weight comes out as the colour
    maps = torch.ones(1, 8, 4, 4)
    found = match(maps, maps, reference)
    places = coordinates(maps)[0].flatten(1)
    distances = (places[:, :, None] - places[:, None]).square().sum(0)
    weights = torch.exp(-2 * distances)
    weights = weights / weights.sum(1, keepdim=True)
    assert torch.allclose(found.shades[0, 0].flatten(), weights[:, 6], atol=1e-5)
    # and what is said of the match, by the same weights
    far = (weights @ places.T).T - places
    assert torch.allclose(found.trust[0, :2].flatten(1), far, atol=1e-5)
    apart = (weights @ places.square().sum(0)) - (weights @ places.T).square().sum(1)
    assert torch.allclose(found.trust[0, 2].flatten(), apart.sqrt(), atol=1e-4)
    red = (weights[:, 6] - weights[:, 6].square()).sqrt()  # of a share of red, none elsewhere
    assert torch.allclose(found.trust[0, 3].flatten(), red, atol=1e-4)


def test_places_are_where_their_centres_are_whatever_their_number() -> None:
    rows, columns = coordinates(torch.zeros(1, 8, 2, 4))[0]
    assert rows.tolist() == [[-0.5] * 4, [0.5] * 4]
    assert columns.tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2


def test_strong_lines_are_no_more_alike_than_faint_ones() -> None:
    torch.manual_seed(0)
    match = Match(16)
    torch.nn.init.zeros_(match.get_parameter("likeness.bias"))
    line, place = torch.randn(2, 1, 16, 4, 4)
    reference = drawn(1).float()[..., :4, :4] / 255
    found = [match(a * line, b * place, reference).shades for a, b in ((1, 1), (3, 1), (1, 3))]
    assert all(torch.allclose(found[0], other, atol=1e-5) for other in found)


def test_a_sure_match_is_told_from_a_guess() -> None:
    match = Match(16)
    torch.nn.init.eye_(match.likeness.weight[:, :, 0, 0])
    places = torch.eye(16).view(1, 16, 4, 4)  # no two are alike
    reference = drawn(1).float()[..., :4, :4] / 255
    with torch.no_grad():
        sure = match(places, places, reference).trust[0, 2]
        guess = match(torch.ones_like(places), places, reference).trust[0, 2]
    assert sure.mean() < 0.1 * guess.mean()


def test_pixels_are_mixed_of_the_nine_places_around_them() -> None:
    maps = torch.rand(2, 3, 4, 5)
    nothing_learnt = torch.zeros(2, 9, 16, 20)
    bilinear = torch.nn.functional.interpolate(maps, scale_factor=4.0, mode="bilinear")
    assert (convex_upsample(maps, nothing_learnt) - bilinear).abs().max() < 0.2
    assert (convex_upsample(maps, nothing_learnt) - bilinear).abs().mean() < 0.03
    own = torch.zeros(2, 9, 8, 10)
    own[:, 4] = 50
    enlarged = maps.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(convex_upsample(maps, own), enlarged)
    for number, (row, column) in enumerate(itertools.product((1, 2, 3), (2, 3, 4))):
        logits = torch.zeros(2, 9, 8, 10)
        logits[:, number, 5, 6] = 50  # of the place 2, 3
        mixed = convex_upsample(maps, logits)
        assert torch.allclose(mixed[..., 5, 6], maps[..., row, column])
    own[:, 0, 0, 0] = 100  # beyond the border lies the border
    assert torch.allclose(convex_upsample(maps, own), enlarged)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(convex_upsample(maps, own), enlarged)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalisation_is_the_same_in_any_layout(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    scales = torch.linspace(0.1, 2, 16)[:, None, None]
    maps = (1 + drawn(2, 8)[:, :1] * scales / 255).to(dtype)
    given = maps.clone(memory_format=memory_format).requires_grad_()
    plain = maps.float().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = GroupNorm(8, 16)(given)
    expected = torch.nn.GroupNorm(8, 16)(plain)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(found.float(), expected, atol=5e-3, rtol=1e-2)
    (found * scales).sum().backward()
    (expected * scales).sum().backward()
    torch.testing.assert_close(given.grad, plain.grad, check_dtype=False, atol=1e-2, rtol=1e-2)


def test_matched_levels_know_what_lies_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is 12 pixels off changes the features at 32 x 32, through the level below."""
    # Normalisation would carry a trace of anything anywhere.
    monkeypatch.setattr(
        "model.networks.reference.GroupNorm", lambda groups, channels: torch.nn.Identity()
    )
    torch.manual_seed(0)
    sketch = torch.ones(1, 1, 64, 64)
    changed = sketch.clone()
    changed[..., 12, 16] = 0
    for num_matched, reaches in ((2, True), (1, False)):
        encoder = Encoder([16, 16, 16], num_matched)
        with torch.no_grad():
            plain, other = (encoder(s, None)[1][0, :, 0, 8] for s in (sketch, changed))
        assert torch.equal(plain, other) != reaches


def test_every_weight_learns() -> None:
    torch.manual_seed(0)
    generator = build_generator("reference", 0.5)
    torch.nn.init.normal_(generator.get_parameter("out.weight"))
    reference = drawn(3, 4).float() / 255
    outputs = generator(SKETCH, reference)
    (outputs.picture - reference).square().mean().backward()
    silent = [
        name
        for name, parameter in generator.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert silent == []


def test_lines_are_dark_where_a_pixel_is_darker_than_its_surroundings() -> None:
    picture = torch.full((1, 3, 32, 32), 0.8)
    picture[..., 16] = 0.2
    lines = draw_lines(picture)
    assert lines.shape == (1, 1, 32, 32)
    around = (4 * 0.8 + 0.2) / 5
    assert lines[0, 0, 5, 16].item() == pytest.approx(0.2 / around)
    assert lines[0, 0, 5, 15].item() == 1
    assert lines[0, 0, 5, 3].item() == pytest.approx(1)
    assert draw_lines(torch.zeros(1, 3, 32, 32)).isfinite().all()
