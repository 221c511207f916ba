"""A trained model from an ONNX file that ``export`` wrote: colours without torch.

The file takes ``sketch``, float32 1 x 1 x H x W, and ``reference``, float32 1 x 3 x H x W, both in
[0, 1], and gives ``picture``, float32 1 x 3 x H x W, to be clamped to [0, 1]. What else there is to
know lies in its metadata, as JSON.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import orjson
from numpy.typing import NDArray

from model.foreign import Recipe, check_shape, check_sides
from model.use.painter import Painter
from model.use.pictures import Pixels
from pipeline.disk import check_plain
from pipeline.errors import UserError
from pipeline.pictures.onnx_session import open_session, run_session
from pipeline.settings import Table, convert

INFO_KEY = "nurie"
VERSION = 1
"""Raise it when an older program must not read what this one writes."""

INPUTS = ("sketch", "reference")
OUTPUT = "picture"


@dataclass(frozen=True, slots=True)
class OnnxInfo:
    """What an exported file says about itself.

    Attributes:
        version: of the format.
        model: the name of the model.
        size: sides of its pictures in pixels, (height, width).
        recipe: the effective recipe of its training pictures.
        can_be_guided: see ``Painter``.
    """

    version: int
    model: str
    size: tuple[int, int]
    recipe: Table = field(default_factory=dict)
    can_be_guided: bool = False


def load_onnx(path: Path) -> Painter:
    """Load an exported file; it computes on all cores of the CPU.

    Raises:
        UserError: on a file that is missing, of another program or of a newer version, and without
            onnxruntime; when it is used, where it gives no picture.
    """
    check_plain(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    session = open_session(content, str(path), num_threads=0)
    text = session.get_modelmeta().custom_metadata_map.get(INFO_KEY, "")
    info = _read_info(path, text)
    height, width = info.size
    shapes = {node.name: list(node.shape) for node in session.get_inputs()}
    if shapes != {"sketch": [1, 1, height, width], "reference": [1, 3, height, width]}:
        raise UserError(f"{path}: takes {shapes}, which is not what it says of itself.")

    def run(sketch: Pixels, reference: Pixels) -> NDArray[np.float32]:
        given = dict(zip(INPUTS, (to_batch(sketch[..., None]), to_batch(reference)), strict=True))
        picture = run_session(session, OUTPUT, given, f"{path}: does not run")
        is_picture = isinstance(picture, np.ndarray) and picture.shape == given["reference"].shape
        if not is_picture or not np.isfinite(picture).all():
            raise UserError(f"{path}: what it gives is no picture, or holds what is no number.")
        return cast(NDArray[np.float32], picture)

    def answer(sketch: Pixels, reference: Pixels, guidance: float) -> Pixels:
        picture = run(sketch, reference)
        if guidance != 1:  # as ``colorize.Colorizer``: no reference is a white sheet
            without = run(sketch, np.full_like(reference, 255))
            picture = without + np.float32(guidance) * (picture - without)
        return to_pixels(picture)

    return Painter(answer, (width, height), info.model, info.recipe, info.can_be_guided)


def _read_info(path: Path, text: str) -> OnnxInfo:
    try:
        table = orjson.loads(text)
        version = int(table["version"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: is an ONNX file, but not one that `export` wrote.") from error
    if version > VERSION:
        raise UserError(
            f"{path}: written by a newer version of this program (format {version}; this one "
            f"reads up to {VERSION}). Update it."
        )
    info = convert(table, OnnxInfo, str(path))
    check_sides(info.size, path)
    check_shape(info.recipe, Recipe, f"{path}: its recipe is none")
    return info


def to_batch(pixels: Pixels) -> NDArray[np.float32]:
    """Return a picture, uint8 H x W x C, as float32 1 x C x H x W in [0, 1]."""
    batch = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
    return batch / np.float32(255)


def to_pixels(picture: NDArray[np.float32]) -> Pixels:
    """Return a picture, float32 1 x 3 x H x W, as uint8 H x W x 3, clamped and rounded."""
    levels = np.rint(np.clip(picture[0], 0, 1) * 255).astype(np.uint8)
    return cast(Pixels, np.ascontiguousarray(levels.transpose(1, 2, 0)))
