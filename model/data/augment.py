"""What training makes of its samples; colour jitter and warp teach to follow a reference.

The target is the picture in other colours, and the reference is that target, warped: the right
colours can be found in the reference only. Every random number is a pure function of (seed, epoch,
sample), so a resumed run sees what it would have seen.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.config import TrainConfig
from model.data.order import Indices
from model.data.samples import Batch, to_bytes, to_unit
from model.device import constant

Floats = NDArray[np.float64]

EVALUATION = 2**63
"""In the place of an epoch: a number that no training reaches."""

JITTER, WARP, PAIR, DROP, LINES, MIRROR, SKETCH = range(1, 8)
"""What random numbers are for: each use has its own stream."""

_GRID = 4
NUM_JITTER = 8
NUM_WARP = 6 + 2 * _GRID**2 + 1
NUM_LINES = 3
"""Random numbers that a sample takes."""

_TO_YIQ = np.array(((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)))
_TO_RGB = np.linalg.inv(_TO_YIQ)


def draw_uniform(seed: int, epoch: int, use: int, places: Indices, count: int) -> Floats:
    """Return random numbers in [0, 1), float64 N x ``count``: a pure function of the arguments.

    Raw Philox words, whose stream NumPy promises never to change; ``order.epoch_order`` reads
    those of use 0.

    Args:
        seed: of the run.
        epoch: from 0 on.
        use: what they are for.
        places: N numbers, such as samples' places; each row depends on its own alone.
        count: numbers a row.
    """
    key = np.array([seed, epoch], dtype=np.uint64)
    rows = np.empty((len(places), count), dtype=np.uint64)
    for row, place in zip(rows, places, strict=True):
        counter = np.array([0, int(place), use, 0], dtype=np.uint64)
        row[:] = np.random.Philox(key=key, counter=counter).random_raw(count)
    return np.ldexp((rows >> np.uint64(11)).astype(np.float64), -53)


def augment_batch(
    batch: Batch, config: TrainConfig, epoch: int, device: torch.device, layout: torch.memory_format
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sketches, true pictures and references as training sees them.

    That is on the device, and after ``mirror``, ``vary_lines`` and ``augment``.

    Args:
        batch: the samples.
        config: says what is done to them.
        epoch: from 0 on; decides, with the seed and each sample, what becomes of it.
        device: where they go.
        layout: of their memory.

    Returns:
        Float N x 1 x H x W, N x 3 x H x W and N x 3 x H x W in [0, 1].
    """
    places = batch.indices
    sketch = to_unit(batch.sketch, device, layout)
    color = to_unit(batch.color, device, layout)
    if config.mirror:
        sketch, color = mirror(sketch, color, places, config, epoch)
    if config.vary_lines:
        sketch = vary_lines(sketch, places, config, epoch)
    own = config.is_self_reference()
    reference = color if own else to_unit(batch.reference, device, layout)
    return sketch, *augment(color, reference, places, config, epoch)


def augment(
    color: Tensor, reference: Tensor, places: Indices, config: TrainConfig, epoch: int
) -> tuple[Tensor, Tensor]:
    """Return targets and references as training sees them: jittered alike, the latter warped.

    A reference that is dropped becomes a white sheet, which is how a model is told that there is
    none; see ``colorize.Colorizer``.

    Args:
        color: true pictures, float N x 3 x H x W in [0, 1].
        reference: what to colour them after, likewise.
        places: of the samples, which decide the random numbers with the seed and ``epoch``.
        config: says what is done; ``jitter``, ``bend``, ``warp``, ``reframe``, ``drop_reference``.
        epoch: from 0 on.
    """
    seed = config.seed
    if config.jitter:
        random = draw_uniform(seed, epoch, JITTER, places, NUM_JITTER)
        color, reference = jitter_colors([color, reference], random, config.jitter, config.bend)
    if config.warp:
        random = draw_uniform(seed, epoch, WARP, places, NUM_WARP)
        reference = warp(reference, random, config.reframe)
    if config.drop_reference:
        dropped = draw_uniform(seed, epoch, DROP, places, 1) < config.drop_reference
        white = torch.from_numpy(dropped).to(reference.device, non_blocking=True)[..., None, None]
        reference = torch.where(white, 1.0, reference)
    return color, reference


def jitter_colors(
    pictures: list[Tensor], random: Floats, share: float, bend: float = 0.0
) -> list[Tensor]:
    """Turn the colours of pictures: hue by any angle, saturation 0.6 to 1.4, gamma 0.75 to 1.25.

    Hue and saturation change in YIQ, which keeps lightness, and so the sketch, as it is; only the
    gamma changes that. White stays white. A bend turns each hue by an angle of its own as well, so
    that the colour of the hair no longer tells that of the eyes.

    Args:
        pictures: each float N x 3 x H x W in [0, 1]; the n-th of all get the same colours.
        random: N x ``NUM_JITTER`` numbers in [0, 1).
        share: how many of the N are changed at all, 0 to 1.
        bend: largest amplitude of the first wave of ``bend_hues``, in radians; the second has
            half of it. 0 turns all hues by one angle.
    """
    angle = 2 * np.pi * random[:, 0]
    saturation = 0.6 + 0.8 * random[:, 1]
    cos, sin = saturation * np.cos(angle), saturation * np.sin(angle)
    turn = np.zeros((len(random), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2] = cos, -sin
    turn[:, 2, 1], turn[:, 2, 2] = sin, cos
    matrix = _TO_RGB @ turn @ _TO_YIQ
    gamma = 0.75 + 0.5 * random[:, 2]
    spared = random[:, 3] >= share
    matrix[spared], gamma[spared] = np.eye(3), 1.0
    waves = random[:, 4:] * (bend, bend / 2, 2 * np.pi, 2 * np.pi)
    waves[spared] = 0
    results = []
    for picture in pictures:
        bent = bend_hues(picture, waves) if bend else picture
        turned = torch.einsum("nij,njhw->nihw", constant(matrix, picture), bent)
        results.append(turned.clamp(0, 1) ** constant(gamma, picture).view(-1, 1, 1, 1))
    return results


def bend_hues(picture: Tensor, waves: Floats) -> Tensor:
    """Turn each hue by an angle that depends on it; in YIQ, as ``jitter_colors``.

    Args:
        picture: float N x 3 x H x W in [0, 1].
        waves: the angle is the sum of two sine waves over the hue, with one and with two periods
            around the circle. N x 4: both amplitudes, then both phases, in radians.

    Returns:
        Float N x 3 x H x W; colours that have left the gamut are outside [0, 1].
    """
    yiq = torch.einsum("ij,njhw->nihw", constant(_TO_YIQ, picture), picture)
    luma, chroma = yiq[:, :1], torch.view_as_complex(yiq[:, 1:].movedim(1, -1).contiguous())
    once, twice, start, start_of_two = constant(waves, picture).T[..., None, None]
    hue = chroma.angle()
    angle = once * torch.sin(hue + start) + twice * torch.sin(2 * hue + start_of_two)
    turned = torch.view_as_real(torch.polar(chroma.abs(), hue + angle)).movedim(-1, 1)
    yiq = torch.cat([luma, turned], dim=1)
    return torch.einsum("ij,njhw->nihw", constant(_TO_RGB, picture), yiq)


def mirror(
    sketch: Tensor, color: Tensor, places: Indices, config: TrainConfig, epoch: int
) -> tuple[Tensor, Tensor]:
    """Mirror a share of the samples, sketch and picture alike: a figure may look either way.

    The arguments are those of ``augment``, with sketches, float N x 1 x H x W.
    """
    mirrored = draw_uniform(config.seed, epoch, MIRROR, places, 1) < config.mirror
    there = torch.from_numpy(mirrored).to(sketch.device, non_blocking=True)[..., None, None]
    return torch.where(there, sketch.flip(-1), sketch), torch.where(there, color.flip(-1), color)


def vary_lines(sketch: Tensor, places: Indices, config: TrainConfig, epoch: int) -> Tensor:
    """Draw a share of the sketches with another pen: fainter or darker, some broader or softer.

    A model that has seen one kind of line alone knows its grey levels by heart, and is lost with
    other sketches. The other arguments are those of ``augment``.

    Args:
        sketch: float N x 1 x H x W in [0, 1], 1 on paper.
    """
    random = draw_uniform(config.seed, epoch, LINES, places, NUM_LINES)
    broader = -F.max_pool2d(-sketch, kernel_size=3, stride=1, padding=1)
    softer = F.avg_pool2d(F.pad(sketch, (1, 1, 1, 1), mode="replicate"), kernel_size=3, stride=1)
    pen = constant(random[:, 1], sketch).view(-1, 1, 1, 1)
    lines = torch.where(pen < 1 / 4, broader, torch.where(pen < 1 / 2, softer, sketch))
    darkness = constant(4 ** (2 * random[:, 2] - 1), sketch).view(-1, 1, 1, 1)
    changed = constant(random[:, 0], sketch).view(-1, 1, 1, 1) < config.vary_lines
    return torch.where(changed, lines**darkness, sketch)


def warp(picture: Tensor, random: Floats, reframe: float = 0.0) -> Tensor:
    """Bend pictures: flip, turn, scale, shift, and displace smoothly from a 4 x 4 grid.

    Args:
        picture: float N x 3 x H x W.
        random: N x ``NUM_WARP`` numbers in [0, 1).
        reframe: largest additional scaling, up or down, in octaves; shifts grow with it. Another
            drawing of a character is seldom framed alike.
    """
    angle = 0.25 * (2 * random[:, 0] - 1)
    distance = 2 ** (reframe * (2 * random[:, -1] - 1))
    scale_x, scale_y = distance * (0.85 + 0.35 * random[:, 1:3]).T
    flip = np.where(random[:, 3] < 0.5, -1.0, 1.0)
    shift_x, shift_y = 0.15 * (1 + reframe) * (2 * random[:, 4:6] - 1).T
    cos, sin = np.cos(angle), np.sin(angle)
    theta = np.empty((len(random), 2, 3))  # from places of the output to places of the picture
    theta[:, 0] = np.stack([flip * scale_x * cos, -scale_y * sin, shift_x], axis=1)
    theta[:, 1] = np.stack([flip * scale_x * sin, scale_y * cos, shift_y], axis=1)
    coarse = 0.15 * (2 * random[:, 6:-1].reshape(-1, 2, _GRID, _GRID) - 1)
    grid = F.affine_grid(constant(theta, picture), list(picture.shape), align_corners=False)
    smooth = F.interpolate(constant(coarse, picture), picture.shape[-2:], mode="bicubic")
    return F.grid_sample(
        picture, grid + smooth.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )


def same_reference(color: Tensor, places: Indices, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return the ``same`` reference setting: truths in other colours, references bent from them.

    Every picture is jittered, one angle for all hues, and its reference is that, warped.

    Args:
        color: uint8 N x 3 x H x W.
        places: of the samples.
        seed: with ``places`` decides the colours and the bends.

    Returns:
        The truths and the references, uint8 N x 3 x H x W, on the pictures' device.
    """
    picture = to_unit(color, color.device)
    config = TrainConfig(jitter=1.0, warp=True, seed=seed)
    truth, reference = augment(picture, picture, places, config, EVALUATION)
    return to_bytes(truth), to_bytes(reference)
