"""What the JSON of files that may come from others looks like, as far as it is read here.

A hash tells that a file is whole, not that this program wrote it. Further keys may come from other
versions, and are ignored.
"""

from typing import Any, NotRequired, TypedDict

import msgspec

from pipeline.errors import UserError
from pipeline.schema import MAX_SIDE
from pipeline.settings import Table


class _Network(TypedDict, total=False):
    model: str


class _Sketch(TypedDict, total=False):
    method: str
    onnx: _Network


class _Prepare(TypedDict, total=False):
    sketch: _Sketch
    sketches: dict[str, _Sketch]


class _Select(TypedDict, total=False):
    rating: list[str]
    tags: list[str]
    any_tags: list[str]
    exclude_tags: list[str]


class Recipe(TypedDict, total=False):
    """The effective recipe that a checkpoint keeps; {} where it is unknown."""

    select: _Select
    prepare: _Prepare
    source: Table
    split: Table
    train: Table


class _Measured(TypedDict, total=False):
    psnr: float | None
    ssim: float | None
    lpips: float | None
    following: float | None
    chroma_error: float | None
    regional_error: float | None
    paper_error: float | None
    fid: float | None
    kid: float | None
    intervals: dict[str, tuple[float, float] | None]


class _Setting(_Measured):
    reference: str
    file: NotRequired[str]
    num_samples: int
    num_clusters: NotRequired[int]
    baselines: dict[str, _Measured]


class Metrics(TypedDict):
    """A ``metrics.json``."""

    model: str
    step: int
    split: str
    settings: dict[str, _Setting]
    sha256: NotRequired[str]
    sketch: NotRequired[str]
    guidance: NotRequired[float]
    reduce: NotRequired[int]
    fid_weights: NotRequired[str | None]
    lpips_weights: NotRequired[str | None]


def check_shape(value: Any, shape: type, where: str) -> None:
    """Check that ``value``, out of JSON, has what ``shape``, a ``TypedDict``, says.

    Raises:
        UserError: where it has not; it begins with ``where``.
    """
    try:
        msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {error}.") from error


def check_sides(size: tuple[int, int], where: object) -> None:
    """Check that a model's pictures, (height, width) in pixels, are of a size that models take.

    Raises:
        UserError: where they are not; it begins with ``where``.
    """
    if any(side % 32 or not 32 <= side <= MAX_SIDE for side in size):
        height, width = size
        raise UserError(
            f"{where}: is of pictures of {width} x {height} pixels, and models take multiples of "
            f"32 up to {MAX_SIDE}."
        )
