"""Contact sheets: columns of pictures under their names, as one PNG."""

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from torch import Tensor

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Sheet = NDArray[np.uint8]
"""height x width x 3, RGB."""

GAP = 4
HEADER = 20
PAPER = 236  # not white, so that white pictures keep their edges

_FONT_SIZE = 12
_FONTS = (  # which some machines have; Pillow's own knows ASCII
    "NotoSansCJK-Regular.ttc",
    "ipagp.ttf",
    "DroidSansFallbackFull.ttf",
    "wqy-microhei.ttc",
    "DejaVuSans.ttf",
)
_NO_CHARACTER = "\U0010ffff"


def tile(columns: "Mapping[str, Tensor]") -> Sheet:
    """Lay pictures out in labelled columns, one sample a row.

    Args:
        columns: label to uint8 N x C x H x W on the CPU, C = 1 or 3, all of one N, H and W.

    Returns:
        uint8, height x width x 3, RGB.
    """
    return lay_out(
        {label: c.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy() for label, c in columns.items()}
    )


def lay_out(columns: Mapping[str, Sequence[Sheet] | Sheet]) -> Sheet:
    """Lay pictures out in labelled columns.

    Args:
        columns: label to N pictures, uint8 H x W x 3, all of one N, H and W.

    Returns:
        uint8, height x width x 3, RGB.
    """
    shapes = {np.shape(pictures)[:3] for pictures in columns.values()}
    if len(shapes) != 1:
        raise ValueError(f"columns of different shapes: {sorted(shapes)}")
    num_rows, height, width = shapes.pop()
    sheet = np.full(
        (HEADER + num_rows * (height + GAP), GAP + len(columns) * (width + GAP), 3),
        PAPER,
        dtype=np.uint8,
    )
    for i, pictures in enumerate(columns.values()):
        left = GAP + i * (width + GAP)
        for j, picture in enumerate(pictures):
            top = HEADER + j * (height + GAP)
            sheet[top : top + height, left : left + width] = picture
    return _label(sheet, list(columns), width + GAP)


def encode_png(sheet: Sheet) -> bytes:
    """Return a sheet as the bytes of a PNG."""
    content = io.BytesIO()
    Image.fromarray(sheet).save(content, "PNG", optimize=True)
    return content.getvalue()


def _label(sheet: Sheet, labels: list[str], pitch: int) -> Sheet:
    image = Image.fromarray(sheet)
    draw = ImageDraw.Draw(image)
    for i, label in enumerate(labels):
        font = _find_font(label)
        if font is None:
            label, font = str(i), ImageFont.load_default(_FONT_SIZE)
        while draw.textlength(label, font) > pitch and len(label) > 1:
            label = label.rstrip("…")[:-1] + "…"
        center = (GAP + i * pitch + (pitch - GAP) // 2, HEADER // 2)
        draw.text(center, label, fill=(40, 40, 40), font=font, anchor="mm")
    return np.asarray(image)


def _find_font(label: str) -> Font | None:
    """Return a font that has every character of a label; None where this machine has none."""
    for font in chain([ImageFont.load_default(_FONT_SIZE)], map(_load, _FONTS)):
        if font is not None:
            box = bytes(font.getmask(_NO_CHARACTER))
            if all(bytes(font.getmask(character)) != box for character in set(label)):
                return font
    return None


@cache
def _load(name: str) -> Font | None:
    with suppress(OSError):  # not on this machine
        return ImageFont.truetype(name, _FONT_SIZE)
    return None
