"""report, part 3: pictures to look at, decoded under a cap and encoded anew.

What lies in a shard comes from strangers. None of its bytes reaches the page: what is shown are
pixels, scaled to ``SIDE`` and written as WebP of at most ``MAX_BYTES``.
"""

import base64
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray

from pipeline.pictures.image import (
    Picture,
    UndecodableError,
    decode_reduced,
    read_header,
    sniff_format,
)
from pipeline.report.funnel import Place, taken_away
from pipeline.schema import EDGES, RAW, SAMPLES, SKETCH, Row, among, place_columns
from pipeline.shards.rows import read_rows
from pipeline.shards.shard import Span, read_span, rows_path, tar_path
from pipeline.work import Work

SIDE = 256
MAX_BYTES = 24_000
MAX_PIXELS = 40_000_000  # larger pictures are not shown, whatever the recipe allows

_MAX_FILE_BYTES = 64 * 2**20
_QUALITIES = (80, 60, 40)
_WALL_WIDTH, _WALL_HEIGHT = 64, 12


@dataclass(frozen=True, slots=True)
class Image:
    """A picture on the page: all of it as a ``data:`` URI, and its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ShownPost:
    """A post with whatever there is to see of it.

    Attributes:
        row: its columns, of the samples and of the originals.
        original: what was fetched; None where nothing came, or nothing that can be shown.
        crop: left, top, width and height of what was kept of it, in percent of the original; None
            where nothing was cut.
        color: the sample's colour picture, None for a post that is no sample.
        sketch: the sample's sketch, likewise.
    """

    row: Row
    original: Image | None
    crop: tuple[float, ...] | None
    color: Image | None
    sketch: Image | None


def show_posts(work: Work, places: Iterable[Place]) -> dict[int, ShownPost]:
    """Read posts and their pictures, each shard's together; return them by post id.

    Raises:
        UserError: where one has no row any more.
    """
    shards: dict[str, list[int]] = defaultdict(list)
    for place in places:
        shards[place.shard].append(place.post_id)
    found: dict[int, ShownPost] = {}
    for shard, post_ids in sorted(shards.items()):
        originals = _read_some(work.raw_dir, shard, post_ids, RAW)
        samples = _read_some(work.samples_dir, shard, post_ids, SAMPLES)
        for post_id in post_ids:
            row = originals.get(post_id, {}) | samples.get(post_id, {})
            if not row:
                raise taken_away(work, shard)
            original = _show(tar_path(work.raw_dir, shard), row, "")
            color = _show(tar_path(work.samples_dir, shard), row, "color")
            sketch = _show(tar_path(work.samples_dir, shard), row, SKETCH)
            crop = None if original is None else _crop_of(row, original)
            found[post_id] = ShownPost(row, original, crop, color, sketch)
    return found


def _read_some(directory: Path, shard: str, ids: list[int], schema: pa.Schema) -> dict[int, Row]:
    """Return the rows of some posts without what is null in them; none where there is no shard."""
    path = rows_path(directory, shard)
    if not path.is_file():
        return {}
    table = read_rows(path, schema)
    return {
        row["post_id"]: {column: value for column, value in row.items() if value is not None}
        for row in table.filter(among(table, ids)).to_pylist()
    }


def _show(tar: Path, row: Row, member: str) -> Image | None:
    """Return a member's picture, or None; "" is the original."""
    offset, size = map(row.get, place_columns(member))
    if offset is None or size is None or size > _MAX_FILE_BYTES or not tar.is_file():
        return None
    with tar.open("rb") as file:
        picture = decode_preview(read_span(file, Span(offset, size)))
    return None if picture is None else encode_image(picture)


def decode_preview(data: bytes) -> Picture | None:
    """Decode a file to a picture whose long side is at most ``SIDE``, or None where that fails.

    A damaged JPEG is shown as far as it goes.
    """
    header = read_header(data)
    if header is None or header.width * header.height > MAX_PIXELS:
        return None
    try:
        picture = decode_reduced(data, SIDE)
    except UndecodableError:
        if sniff_format(data) != "jpeg":
            return None
        try:
            picture = simplejpeg.decode_jpeg(
                data, min_height=SIDE, min_width=SIDE, min_factor=1, strict=False
            )
        except ValueError:
            return None
    height, width = picture.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cast(Picture, cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def encode_image(picture: Picture) -> Image:
    """Encode a picture for the page, as well and as large as ``MAX_BYTES`` allow."""
    height, width = picture.shape[:2]
    for quality in _QUALITIES:
        data = _encode(picture, ".webp", cv2.IMWRITE_WEBP_QUALITY, quality)
        if len(data) <= MAX_BYTES:
            return Image(_data_uri("webp", data), width, height)
    half = max(1, width // 2), max(1, height // 2)
    return encode_image(cast(Picture, cv2.resize(picture, half, interpolation=cv2.INTER_AREA)))


def _encode(picture: Picture, extension: str, *options: int) -> bytes:
    return cv2.imencode(extension, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def _data_uri(format_name: str, data: bytes) -> str:
    return f"data:image/{format_name};base64,{base64.b64encode(data).decode()}"


def _crop_of(row: Row, original: Image) -> tuple[float, ...] | None:
    """Return the crop box in percent; the file may be rotated on its way to the picture."""
    try:
        left, top, right, bottom = (row[f"crop_{edge}"] for edge in EDGES)
        width, height = row["file_width"], row["file_height"]
    except KeyError:
        return None  # it has not come so far
    if (width > height) != (original.width > original.height):
        width, height = height, width
    if (left, top, right, bottom) == (0, 0, width, height):
        return None
    parts = left / width, top / height, (right - left) / width, (bottom - top) / height
    return tuple(round(100 * min(max(part, 0.0), 1.0), 2) for part in parts)


def build_wall(colors: NDArray[np.uint8]) -> Image | None:
    """Lay colours (uint8, N x 3) side by side, a pixel each: by hue from left to right, by
    lightness from top to bottom; as many as make a rectangle.
    """
    width = min(_WALL_WIDTH, len(colors))
    if not width:
        return None
    height = min(_WALL_HEIGHT, len(colors) // width)
    some = colors[: width * height]
    hsv = cv2.cvtColor(some[None], cv2.COLOR_RGB2HSV_FULL)[0]
    columns = some[np.argsort(hsv[:, 0], kind="stable")].reshape(width, height, 3)
    order = np.argsort(-columns.astype(int).sum(axis=2), axis=1, kind="stable")
    picture = np.take_along_axis(columns, order[..., None], axis=1).transpose(1, 0, 2)
    return Image(_data_uri("png", _encode(np.ascontiguousarray(picture), ".png")), width, height)
