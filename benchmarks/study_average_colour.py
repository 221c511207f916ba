"""Why does the article's first model paint everything alike? One suspect at a time, same budget.

    python -m benchmarks.study_average_colour SAMPLES [--steps 400] [--only PART]

SAMPLES is a work folder's ``samples``. The model is ``zhang2017`` at a quarter of its width, with
every picture as its own reference; each variant changes one thing of the article's recipe. Judged
on the test split: following over 16 sketches x 16 references, the highest of its eight marks on
the way and, below, all of them, chroma error and PSNR with the picture as its own reference.

Before that, a probe without any generator: how much of a picture's mean colour (CIELAB a and b
over the foreground) can a ridge regression read from its style vector? The weights of VGG19 are
random unless ``--style-weights`` names a file, and the result says so.
"""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.config import TrainConfig
from model.data.augment import augment
from model.data.order import epoch_order
from model.data.samples import Batch, Samples, to_bytes, to_unit
from model.evaluation.metrics import chroma_distances, following, palette, psnr, ratio
from model.evaluation.seen import Seen
from model.networks.discriminator import Discriminator
from model.networks.style import build_style_network
from model.training.state import TrainState
from model.training.steps import training_step

CPU = torch.device("cpu")
BATCH_SIZE = 16
WIDTH = 0.25
NUM_MARKS = 8
STYLE_SIZE = 4096

Embed = Callable[[Tensor], Tensor]
"""References, float N x 3 x H x W in [0, 1] -> style vectors, N x STYLE_SIZE."""


@dataclass(frozen=True)
class Variant:
    """One recipe: what is different from the article's."""

    name: str
    embed: str = "fc1"
    gan: str = "acgan"
    lr: float = 1e-3
    step_factor: int = 1
    jitter: bool = False
    on_sketch: bool = False
    model: str = "zhang2017"


_COLOURS = partial(Variant, embed="colours", gan="none")

VARIANTS = (
    Variant("as in the article"),
    Variant("no adversary", gan="none"),
    Variant("learning rate 1e-4", lr=1e-4),
    Variant("four times the steps", gan="none", step_factor=4),
    Variant("fc1 standardised", embed="fc1, standardised", gan="none"),
    _COLOURS("colours for a style vector"),
    _COLOURS("on the sketch as well", on_sketch=True),
    _COLOURS("colours, 4 x the steps", step_factor=4),
    _COLOURS("colours, jittered labels, 4 x", step_factor=4, jitter=True),
    _COLOURS("on the sketch as well, 4 x", step_factor=4, on_sketch=True),
    Variant("BatchNorm, 4 x the steps", gan="none", step_factor=4, model="batchnorm"),
    _COLOURS("BatchNorm, colours, 4 x", step_factor=4, model="batchnorm"),
    _COLOURS("BatchNorm, on the sketch, 4 x", step_factor=4, model="batchnorm", on_sketch=True),
)


def thumbnails(pictures: Tensor) -> Tensor:
    """Return style vectors that are nothing but colour: 4 x 4 mean colours, centred and repeated.

    Repeated to fill the 4,096 numbers, so that linear layer and scale are those of fc1.
    """
    cells = F.adaptive_avg_pool2d(pictures, 4).flatten(1) - 0.5
    return cells.repeat(1, -(-STYLE_SIZE // cells.shape[1]))[:, :STYLE_SIZE]


def color_sketches(generator: nn.Module) -> None:
    """Have the mean colour of ``thumbnails`` added to the sketch, beside the article's place.

    It is the same addition of the same numbers at every place, at the top of the U as well as at
    its bottom, and without any further weight.
    """
    given: list[Tensor] = []

    def remember(_: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        given[:] = [inputs[1][:, :48].reshape(-1, 3, 16).mean(2)[..., None, None]]

    def add(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0] + given[0],)

    generator.register_forward_pre_hook(remember)
    generator.get_submodule("down_128").register_forward_pre_hook(add)


def load_all(samples_dir: Path, split: str) -> Batch:
    with Samples(samples_dir, split) as samples:
        return samples.load(range(len(samples)))


def in_parts(function: Embed, pictures: Tensor) -> Tensor:
    return torch.cat([function(pictures[i : i + 32]) for i in range(0, len(pictures), 32)])


def read_colour(train: Tensor, train_ab: Tensor, test: Tensor, test_ab: Tensor) -> float:
    """Return R^2 on the test split of a ridge regression from vectors to mean colours.

    The penalty is the best of nine on a fifth of the training split.
    """
    mean, std = train.mean(0), train.std(0) + 1e-5
    x, z = (train - mean) / std, (test - mean) / std

    def predict(x: Tensor, y: Tensor, z: Tensor, penalty: float) -> Tensor:
        gram = x @ x.T + penalty * torch.eye(len(x), dtype=x.dtype)
        weights = torch.linalg.solve(gram, y - y.mean(0))
        found: Tensor = z @ (x.T @ weights) + y.mean(0)
        return found

    def r2(found: Tensor, y: Tensor) -> float:
        return 1 - float(((found - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())

    cut = len(x) * 4 // 5
    penalties = [10.0**i * x.shape[1] for i in range(-5, 4)]
    held = [r2(predict(x[:cut], train_ab[:cut], x[cut:], p), train_ab[cut:]) for p in penalties]
    return r2(predict(x, train_ab, z, penalties[int(np.argmax(held))]), test_ab)


@torch.no_grad()
def paint(state: TrainState, sketch: Tensor, style: Tensor) -> Tensor:
    state.generator.eval()
    pictures = []
    for i in range(0, len(sketch), 32):
        part = to_unit(sketch[i : i + 32], CPU)
        pictures.append(to_bytes(state.generator(part, style[i : i + 32]).picture))
    state.generator.train()
    return torch.cat(pictures)


def measure_following(state: TrainState, test: Batch, style: Tensor) -> float:
    sketch, color, style = test.sketch[:16], test.color[-16:], style[-16:]
    outputs = [palette(paint(state, sketch, v.expand(len(sketch), -1))) for v in style]
    slope = following(np.stack(outputs, axis=1), palette(color))
    if slope is None:
        raise SystemExit("the test split's references all have one palette")
    return slope


def try_variant(
    variant: Variant, steps: int, train: Batch, style: Tensor, test: Batch, test_style: Tensor
) -> tuple[list[float], float, float]:
    """Train one variant; return following at each mark, the end among them, chroma error, PSNR."""
    config = TrainConfig(
        model=variant.model,
        width_multiplier=WIDTH,
        gan=variant.gan,
        lr=variant.lr,
        batch_size=BATCH_SIZE,
    )
    state = TrainState.build(config, CPU)
    if variant.on_sketch:
        color_sketches(state.generator)
    if isinstance(state.discriminator, Discriminator):
        state.discriminator.fit_style(style)
    num_epochs = -(-steps * variant.step_factor * BATCH_SIZE // len(style))
    orders = np.concatenate([epoch_order(len(style), 0, epoch) for epoch in range(num_epochs)])
    marks = []
    total = steps * variant.step_factor
    due = {total * number // NUM_MARKS for number in range(1, NUM_MARKS + 1)}
    for step in range(total):
        places = orders[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
        color, sketch = (to_unit(x[places], CPU) for x in (train.color, train.sketch))
        vector = style[places]
        if variant.jitter:  # after which "colours" is computed anew: it costs next to nothing
            color, _ = augment(color, color, places, TrainConfig(jitter=0.8), step)
            vector = thumbnails(color)
        given = vector if state.discriminator is not None else None
        training_step(state, config, color, sketch, vector, given, nullcontext())
        if step + 1 in due:
            marks.append(measure_following(state, test, test_style))
    output = paint(state, test.sketch, test_style)
    error = ratio(chroma_distances(Seen(output), Seen(test.color)))
    return marks, error or 0.0, float(psnr(output, test.color).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", default="", help="variants with this in their name")
    parser.add_argument("--style-weights", default="random")
    options = parser.parse_args()
    train, test = (load_all(options.samples, split) for split in ("train", "test"))
    network = build_style_network("vgg19", normalised=False, weights=options.style_weights)
    print(network.provenance, f"; {len(train.indices)} pictures, {options.steps} steps")
    pictures = [to_unit(batch.color, CPU) for batch in (train, test)]
    fc1 = [in_parts(network, p) for p in pictures]
    mean, std = fc1[0].mean(0), fc1[0].std(0) + 1e-5
    embeddings = {
        "fc1": fc1,
        "fc1, standardised": [(v - mean) / std for v in fc1],
        "colours": [thumbnails(p) for p in pictures],
    }
    ab = [torch.from_numpy(palette(batch.color)).float() for batch in (train, test)]
    for name in ("fc1", "colours"):
        vectors = embeddings[name]
        spread = float(vectors[0].std(0).mean() / vectors[0].abs().mean())
        print(
            f"probe, {name}: R^2 {read_colour(vectors[0], ab[0], vectors[1], ab[1]):.2f} of the "
            f"mean colour, spread over pictures {spread:.3f} of the mean size"
        )
    print(f"{'':30}following   highest   chroma error   PSNR")
    for variant in (v for v in VARIANTS if options.only in v.name):
        vectors = embeddings[variant.embed]
        marks, error, decibels = try_variant(
            variant, options.steps, train, vectors[0], test, vectors[1]
        )
        print(f"{variant.name:30}{marks[-1]:9.3f}{max(marks):10.3f}{error:15.3f}{decibels:7.2f}")
        print("    marks " + " ".join(f"{mark:.3f}" for mark in marks), flush=True)


if __name__ == "__main__":
    main()
