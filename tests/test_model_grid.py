import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from model.grid import HEADER, encode_png, tile
from tests.tensors import drawn


def test_pictures_lie_in_labelled_columns() -> None:
    pictures = drawn(1, 2, 3)
    content = encode_png(tile({"sketch": pictures[:, :1], "truth": pictures}))
    sheet = np.asarray(Image.open(io.BytesIO(content)))
    assert sheet.shape == (HEADER + 3 * 68, 4 + 2 * 68, 3)
    cell = sheet[HEADER + 68 : HEADER + 68 + 64, 4 + 68 : 4 + 68 + 64]
    assert (cell == pictures[1].permute(1, 2, 0).numpy()).all()
    grey = sheet[HEADER : HEADER + 64, 4 : 4 + 64]
    assert (grey == pictures[0, :1].permute(1, 2, 0).numpy()).all()
    headers = sheet[:HEADER, 4:68], sheet[:HEADER, 72:136]
    assert all(header.min() < 100 for header in headers)
    assert (headers[0] != headers[1]).any()


def test_columns_must_match() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        tile({"a": torch.zeros(2, 3, 8, 8), "b": torch.zeros(1, 3, 8, 8)})


def test_a_label_is_drawn_in_a_font_that_has_its_characters_or_is_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pillow's own font has ASCII alone, and draws boxes for all else."""
    pictures = drawn(1)

    def head(label: str) -> np.ndarray:
        return tile({"sketch": pictures, label: pictures})[:HEADER, 68:]

    monkeypatch.setattr("model.grid._FONTS", ())
    assert (head("塗り絵") == head("1")).all()
    assert (head("plain") != head("1")).any()
    font = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    monkeypatch.setattr("model.grid._FONTS", ("no such font.ttf", font))
    assert (head("жёлтый") != head("1")).any()
    assert (head("жёлтый") != head("зелёный")).any()
    assert (head("塗り絵") == head("1")).all()
