import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model import build_discriminator, build_generator
from model.color import ab_of, to_ab, to_grey
from model.networks.discriminator import PatchDiscriminator, PatchVerdict, Verdict
from model.networks.generator import Outputs
from model.networks.losses import (
    adversarial_terms,
    chroma_terms,
    discriminator_terms,
    l1_terms,
    patch_discriminator_terms,
    patch_terms,
    stand_out,
    total,
)
from model.ranks import Ranks
from tests.tensors import drawn, flat


def picture(*channels: float) -> torch.Tensor:
    return torch.tensor(channels).view(1, -1, 1, 1).expand(2, -1, 4, 4)


def test_grey_is_luma() -> None:
    assert torch.allclose(to_grey(picture(1.0, 0.0, 0.5)), picture(0.299 + 0.5 * 0.114))
    assert torch.allclose(to_grey(picture(1.0, 1.0, 1.0)), picture(1.0))


def test_l1_terms_by_hand() -> None:
    color = picture(0.2, 0.4, 0.6)  # luma 0.363
    outputs = Outputs(picture(0.3, 0.3, 0.9), picture(0.5), picture(0.2, 0.0, 0.6))
    terms = l1_terms(outputs, color, weight=10, alpha=0.3, beta=0.9)
    assert {name: pytest.approx(float(t), rel=1e-5) for name, t in terms.items()} == {
        "l1": 10 * (0.1 + 0.1 + 0.3) / 3,
        "l1_guide_grey": 10 * 0.3 * (0.5 - 0.363),
        "l1_guide_color": 10 * 0.9 * 0.4 / 3,
    }
    assert list(l1_terms(Outputs(color), color, weight=1, alpha=0.3, beta=0.9)) == ["l1"]
    assert float(total(terms)) == pytest.approx(sum(map(float, terms.values())))


def test_the_chroma_term_is_the_mean_distance() -> None:
    """By what the chroma error is measured by."""
    olive, blue = flat(128, 128, 26, size=8), flat(40, 60, 200, size=8)
    output = olive.clone()
    output[:, :, :2] = blue[:, :, :2]  # a quarter is wrong
    (term,) = chroma_terms(Outputs(output / 255), olive / 255, weight=3.0).values()
    ab = ab_of(np.array([(40, 60, 200), (128, 128, 26)], np.uint8))
    assert term.item() == pytest.approx(3 * np.hypot(*(ab[0] - ab[1])) / 100 / 4, rel=0.01)


def test_chroma_counts_more_where_it_stands_out() -> None:
    color = torch.full((1, 3, 64, 64), 0.5)
    color[:, 0, 30:34, 30:34] = 1.0  # a red eye in a grey face
    outputs = Outputs(torch.full((1, 3, 64, 64), 0.5))
    (plain,) = chroma_terms(outputs, color, weight=2.0).values()
    (weighted,) = chroma_terms(outputs, color, weight=2.0, contrast=3.0).values()
    still = 2e-3  # what no distance counts, under the root
    assert weighted.item() - still == pytest.approx(4 * (plain.item() - still), rel=1e-2)
    assert stand_out(to_ab(color))[0, 0, 32, 32] == 1
    assert stand_out(to_ab(color))[0, 0, 10, 10] < 1e-5
    plain_red = color.new_tensor((0.9, 0.2, 0.2)).view(1, 3, 1, 1).expand_as(color)
    assert stand_out(to_ab(plain_red)).max() < 1e-3  # nor at the border
    near = stand_out(to_ab(color))[0, 0, 32] > 1e-3  # in windows of 17 pixels with some of the eye
    assert near.nonzero().flatten().tolist() == list(range(30 - 8, 34 + 8))
    assert chroma_terms(outputs, color, weight=0.0, contrast=3.0) == {}


def test_how_far_a_colour_stands_out_by_hand() -> None:
    """Of one pixel's 9 there is 1 in the mean of each window of 3 x 3 that has it."""
    chroma = torch.zeros(1, 2, 8, 8)
    chroma[0, 1, 4, 4] = 0.09
    found = stand_out(chroma)[0, 0]
    assert found[4, 4].item() == pytest.approx(0.08 / 0.2)
    assert found[3, 5].item() == pytest.approx(0.01 / 0.2)


def test_a_picture_that_is_not_square_has_windows_of_its_own_shape() -> None:
    chroma = torch.zeros(1, 2, 8, 16)
    chroma[0, 1, 4, 8] = 0.15
    found = stand_out(chroma)[0, 0]
    assert (found > 1e-3).nonzero().tolist() == [[y, x] for y in (3, 4, 5) for x in range(6, 11)]
    assert found[3, 6].item() == pytest.approx(0.01 / 0.2)
    assert torch.allclose(stand_out(chroma.mT), stand_out(chroma).mT)


def test_each_pictures_chroma_stands_out_by_itself() -> None:
    color, outputs = drawn(1, 2).float() / 255, Outputs(drawn(3, 4).float() / 255)
    (together,) = chroma_terms(outputs, color, weight=1.0, contrast=3.0).values()
    alone = [
        chroma_terms(Outputs(outputs.picture[i : i + 1]), color[i : i + 1], weight=1, contrast=3)
        for i in range(2)
    ]
    assert together.item() == pytest.approx(sum(t["chroma"].item() for t in alone) / 2)


def test_acgan_terms_by_hand() -> None:
    style = torch.tensor([[1.0, -1.0]])
    real = Verdict(torch.tensor([[3.0]]), torch.tensor([[1.0, 1.0]]))
    generated = Verdict(torch.tensor([[2.0]]), torch.tensor([[4.0, -1.0]]))
    terms = discriminator_terms(real, generated, style)
    assert {name: pytest.approx(float(t), rel=1e-5) for name, t in terms.items()} == {
        "d_source_real": math.log(1 + math.exp(-3)),
        "d_source_generated": math.log(1 + math.exp(2)),
        "d_style_real": 0.5 * (0 + 4) / 2,
        "d_style_generated": 0.5 * (9 + 0) / 2,
    }
    terms = adversarial_terms(generated, style)
    assert {name: pytest.approx(float(t), rel=1e-5) for name, t in terms.items()} == {
        "g_source": math.log(1 + math.exp(-2)),
        "g_style": 0.5 * 9 / 2,
    }


def test_the_papers_terms_by_hand() -> None:
    style = torch.tensor([[0.0, 50.0]])  # targets 0.5 and 1
    real = Verdict(torch.tensor([[0.0, 3.0]]), None)
    generated = Verdict(torch.tensor([[0.0, -3.0]]), None)
    terms = discriminator_terms(real, generated, style)
    assert {name: pytest.approx(float(t), rel=1e-5) for name, t in terms.items()} == {
        "d_real": (math.log(2) + math.log(1 + math.exp(-3))) / 2,
        "d_generated": (math.log(2) + math.log(1 + math.exp(-3))) / 2,
    }
    (term,) = adversarial_terms(generated, style).values()
    assert float(term) == pytest.approx((math.log(2) + math.log(1 + math.exp(3))) / 2, rel=1e-5)


def test_the_patch_discriminators_terms_by_hand() -> None:
    real = PatchVerdict(torch.tensor([[2.0, 0.5]]), [torch.tensor([1.0]), torch.tensor([3.0])])
    generated = PatchVerdict(
        torch.tensor([[-2.0, 0.5]]), [torch.tensor([2.0]), torch.tensor([3.5])]
    )
    terms = patch_discriminator_terms(real, generated)
    assert {name: float(t) for name, t in terms.items()} == {
        "d_patch_real": (0 + 0.5) / 2,
        "d_patch_generated": (0 + 1.5) / 2,
    }
    terms = patch_terms(generated, real, weight=10, feature_weight=4)
    assert {name: float(t) for name, t in terms.items()} == {
        "g_patch": 10 * 1.5 / 2,
        "g_features": 4 * (1 + 0.5) / 2,
    }


def test_features_are_brought_to_the_true_ones_and_not_these_to_them() -> None:
    generated, real = (torch.tensor([[x]], requires_grad=True) for x in (2.0, 1.0))
    verdicts = (PatchVerdict(source, [source]) for source in (generated, real))
    torch.autograd.backward(total(patch_terms(*verdicts, weight=0, feature_weight=4)))
    assert generated.grad == 4
    assert real.grad is None


def test_what_networks_say_in_half_precision_is_weighed_in_full() -> None:
    """The same numbers give the same losses, whatever they are kept in."""
    random = torch.Generator().manual_seed(0)
    color, picture, guide = torch.rand(3, 2, 3, 8, 8, generator=random)
    style, vectors = torch.randn(2, 2, 4, generator=random)

    def terms(dtype: torch.dtype) -> dict[str, float]:
        half = [t.bfloat16().to(dtype) for t in (picture, to_grey(guide), guide, style, color)]
        outputs, verdict = Outputs(*half[:3]), Verdict(half[3], half[3])
        patches = [PatchVerdict(half[n], [half[n]]) for n in (0, 4)]
        found = l1_terms(outputs, color, weight=1, alpha=1, beta=1)
        found |= chroma_terms(outputs, color, weight=1, contrast=1)
        found |= discriminator_terms(verdict, verdict, vectors)
        found |= adversarial_terms(verdict, vectors)
        found |= patch_discriminator_terms(patches[0], patches[1])
        found |= patch_terms(patches[0], patches[1], weight=1, feature_weight=1)
        return {name: term.item() for name, term in found.items()}

    assert terms(torch.bfloat16) == terms(torch.float32)


def test_a_patch_sees_46_pixels_of_picture_and_of_sketch() -> None:
    discriminator = PatchDiscriminator(0.25)
    sketch, picture = torch.rand(1, 1, 96, 96), torch.rand(1, 3, 96, 96)
    sketch.requires_grad_(True), picture.requires_grad_(True)
    source = discriminator(sketch, picture).source
    assert source.shape == (1, 1, 11, 11)
    for given in torch.autograd.grad(source[0, 0, 5, 5], [sketch, picture]):
        seen = given.abs().sum((0, 1)).nonzero()
        assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [46, 46]


def test_discriminators_see_pictures_between_minus_1_and_1() -> None:
    seen: list[Tensor] = []
    black_and_white = torch.arange(2.0).view(1, 1, 1, 2).repeat(1, 3, 64, 32)
    for discriminator, pictures in (
        (build_discriminator(7, "acgan", 0.25), (black_and_white,)),
        (PatchDiscriminator(0.25), (black_and_white[:, :1], black_and_white)),
    ):
        first = next(m for m in discriminator.modules() if isinstance(m, nn.Conv2d))
        first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        discriminator(*pictures)
        assert set(seen.pop().flatten().tolist()) == {-1, 1}


def widths(discriminator: nn.Module) -> list[int]:
    return [m.out_channels for m in discriminator.modules() if isinstance(m, nn.Conv2d)]


def test_discriminators_are_of_the_width_that_is_asked_for() -> None:
    assert widths(build_discriminator()) == [32, 64, 128, 256, 512]
    assert widths(build_discriminator(7, "paper", 0.25)) == [8, 16, 32, 64, 128]
    assert widths(build_discriminator(7, "acgan", 1 / 64)) == [4, 4, 4, 4, 8]
    assert widths(PatchDiscriminator()) == [32, 64, 128, 128, 1]
    assert widths(PatchDiscriminator(0.25)) == [8, 16, 32, 32, 1]
    assert widths(PatchDiscriminator(1 / 64)) == [4, 4, 4, 4, 1]


def test_the_discriminator_goes_down_to_a_thirty_second() -> None:
    body = build_discriminator(7, "acgan", 0.25).body
    assert body[:-2](torch.rand(2, 3, 96, 64)).shape == (2, 128, 3, 2)


def test_the_patch_discriminators_layers_stretch_nothing() -> None:
    """Spectral norm keeps the largest singular value of each at 1."""
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(0.25)
    layers = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert len(layers) == 5
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
        assert largest == pytest.approx(1, rel=0.1)


def test_sure_verdicts_keep_their_gradient() -> None:
    """Losses of probabilities saturate here: this is what losses of logits are for."""
    logits = torch.tensor([[-200.0]], requires_grad=True)
    (source, _) = adversarial_terms(Verdict(logits, torch.zeros(1, 2)), torch.zeros(1, 2)).values()
    (gradient,) = torch.autograd.grad(source, logits)
    assert source.item() == pytest.approx(200)
    assert gradient.item() == pytest.approx(-1)


@pytest.mark.parametrize("size", [64, 96])
def test_the_discriminator_has_the_heads_of_its_kind(size: int) -> None:
    pictures = torch.rand(2, 3, size, size)
    source, style = build_discriminator(7, "acgan", 0.25)(pictures)
    assert source.shape == (2, 1)
    assert style.shape == (2, 7)
    source, style = build_discriminator(7, "paper", 0.25)(pictures)
    assert source.shape == (2, 7)
    assert style is None


def test_the_discriminator_sees_the_mean_and_contrast_of_pictures() -> None:
    """BatchNorm on the picture itself would take them away."""
    layers = [
        type(m) for m in build_discriminator(7, "acgan", 0.25).get_submodule("body").children()
    ]
    later = [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU]
    assert layers == [nn.Conv2d, nn.LeakyReLU, *later * 4, nn.AdaptiveAvgPool2d, nn.Flatten]


def test_style_vectors_are_standardised_by_the_training_set() -> None:
    discriminator = build_discriminator(3, "acgan", 0.25)
    vectors = torch.tensor([[0.0, 10.0, 5.0], [4.0, 30.0, 5.0]])
    discriminator.fit_style(vectors)
    assert torch.allclose(
        discriminator.standardise(vectors),
        torch.tensor([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]]),
        atol=1e-4,
    )
    assert torch.equal(discriminator.state_dict()["style_mean"], torch.tensor([2.0, 20.0, 5.0]))


def test_style_vectors_are_standardised_over_all_ranks() -> None:
    vectors = torch.tensor([[0.0, 10.0], [4.0, 30.0], [5.0, 5.0]])

    class First(Ranks):
        """Has two of the vectors; the other rank adds what it has of the third."""

        def sum(self, values: Tensor) -> Tensor:
            return values + next(others)

    others = iter([torch.tensor(1), vectors[2], (vectors[2] - vectors.mean(0)).square()])
    found, expected = (build_discriminator(2, "acgan", 0.25) for _ in range(2))
    found.fit_style(vectors[:2], First())
    expected.fit_style(vectors)
    assert torch.allclose(found.style_mean, expected.style_mean)
    assert torch.allclose(found.style_std, expected.style_std)


def test_generators_and_discriminators_are_built_by_name() -> None:
    with torch.device("meta"):
        assert build_generator().style_spec.network == "vgg19"
        assert build_discriminator().style_mean.shape == (4096,)
