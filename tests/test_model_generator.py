import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import model
from model import build_generator
from model.config import MODELS
from model.networks.generator import Generator
from model.networks.style import STYLE_NETWORKS

NARROW = 0.125


@pytest.fixture(autouse=True)
def seed() -> None:
    """In a narrow network, some first weights kill every unit that the style would reach."""
    torch.manual_seed(0)


def style_for(generator: Generator, num: int = 2, seed: int = 0) -> Tensor:
    shape = STYLE_NETWORKS[generator.style_spec.network].shape
    return torch.rand(num, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [("zhang2017", 26_501_145), ("batchnorm", 21_576_659), ("inception", 13_186_003)],
)
def test_number_of_parameters(name: str, num_parameters: int) -> None:
    with torch.device("meta"):
        generator = build_generator(name)
    assert sum(p.numel() for p in generator.parameters()) == num_parameters


def test_levels_have_the_papers_channels_and_sizes() -> None:
    with torch.device("meta"):
        generator = build_generator("zhang2017")
        found = {}
        for name, module in generator.named_children():
            module.register_forward_hook(
                lambda _, __, output, name=name: found.update({name: tuple(output.shape[1:])})
            )
        outputs = generator(torch.empty(1, 1, 256, 256), torch.empty(1, 4096))
    assert found == {
        "down_128": (32, 128, 128),
        "down_64": (64, 64, 64),
        "down_32": (128, 32, 32),
        "down_16": (256, 16, 16),
        "bottom_8": (2048, 8, 8),
        "style": (2048,),
        "up_16": (512, 16, 16),
        "level_16": (512, 16, 16),
        "up_32": (128, 32, 32),
        "up_64": (64, 64, 64),
        "up_128": (32, 128, 128),
        "up_256": (64, 256, 256),
        "out": (3, 256, 256),
        "guide_1": (3, 256, 256),
        "guide_2": (3, 256, 256),
    }
    assert outputs.picture.shape == outputs.guide_color.shape == (1, 3, 256, 256)
    assert outputs.guide_grey.shape == (1, 1, 256, 256)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_any_multiple_of_32_is_coloured(name: str, size: tuple[int, int]) -> None:
    generator = build_generator(name, NARROW)
    outputs = generator(torch.rand(2, 1, *size), style_for(generator))
    assert outputs.picture.shape == (2, 3, *size)
    assert (outputs.guide_grey is not None) == (name == "zhang2017")
    assert (outputs.guide_color is not None) == (name in ("zhang2017", "reference"))


@pytest.mark.parametrize("shape", [(1, 1, 32, 64), (1, 1, 100, 96), (1, 3, 64, 64)])
def test_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    generator = build_generator("zhang2017", NARROW)
    with pytest.raises(ValueError, match=rf"{shape[2]}"):
        generator(torch.rand(shape), style_for(generator, 1))


@pytest.mark.parametrize("name", MODELS)
def test_only_what_follows_the_bottom_sees_the_style(name: str) -> None:
    generator = build_generator(name, NARROW).eval()
    sketch = torch.rand(1, 1, 64, 64)
    one, two = (generator(sketch, style_for(generator, 1, seed)) for seed in (0, 1))
    assert not torch.equal(one.picture, two.picture)
    if name == "zhang2017":
        assert torch.equal(one.guide_grey, two.guide_grey)
        assert not torch.equal(one.guide_color, two.guide_color)


def test_a_style_map_of_the_right_size_is_added_as_it_is() -> None:
    generator = build_generator("inception", NARROW).eval()
    found = []
    generator.get_submodule("bottom_8").register_forward_hook(
        lambda _, __, output: found.append(output)
    )
    generator.get_submodule("up_16").register_forward_pre_hook(
        lambda _, inputs: found.append(inputs[0])
    )
    style = style_for(generator, 1)
    generator(torch.rand(1, 1, 256, 256), style)
    assert torch.equal(found[1], found[0] + style)


def test_levels_are_made_of_what_the_article_says() -> None:
    plain, normed = (build_generator(n, NARROW) for n in ("zhang2017", "batchnorm"))
    pair, up = (nn.Conv2d, nn.ReLU, nn.Conv2d), (nn.ConvTranspose2d, nn.ReLU, nn.Conv2d)
    guide = (nn.Conv2d, *[nn.ConvTranspose2d] * 4, nn.Conv2d)
    expected = {
        "down_128": (*pair, nn.MaxPool2d, *pair),
        **dict.fromkeys(("down_64", "down_32", "down_16"), (nn.MaxPool2d, *pair)),
        "bottom_8": (nn.MaxPool2d, nn.Conv2d),
        "up_16": (nn.ConvTranspose2d,),
        "level_16": (nn.ReLU, nn.Conv2d),
        **dict.fromkeys(("up_32", "up_64", "up_128", "up_256"), up),
        **dict.fromkeys(("guide_1", "guide_2"), guide),
    }
    for name, kinds in expected.items():
        modules = plain.get_submodule(name).modules()
        assert tuple(type(m) for m in modules if not list(m.children())) == kinds, name
    wide = [m for m in plain.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert {m.padding_mode for m in wide} == {"reflect"}
    norms = [m for m in normed.modules() if isinstance(m, nn.BatchNorm2d)]
    convolutions = [m for m in normed.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(norms) == len(convolutions) - 1  # none after the last
    assert not any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())


def test_the_second_guide_sees_the_style_before_any_activation() -> None:
    generator = build_generator("zhang2017", NARROW)
    seen = []
    generator.get_submodule("up_16").register_forward_hook(
        lambda _, __, output: seen.append(output)
    )
    generator.get_submodule("guide_2").register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    generator(torch.rand(1, 1, 64, 64), style_for(generator, 1))
    assert torch.equal(seen[0], seen[1])


def test_the_third_model_works_in_normalised_pictures() -> None:
    generator = build_generator("inception", NARROW).eval()
    for parameter in generator.get_submodule("out").parameters():
        nn.init.zeros_(parameter)
    picture = generator(torch.rand(1, 1, 64, 64), style_for(generator, 1)).picture
    assert torch.allclose(picture[0, :, 5, 5], torch.tensor([0.485, 0.456, 0.406]))


def test_the_seed_decides_the_weights() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_generator("batchnorm", NARROW).state_dict()["out.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_settings_can_be_read_without_importing_torch() -> None:
    code = "import sys, model, model.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'build_nothing'"):
        model.build_nothing  # noqa: B018
