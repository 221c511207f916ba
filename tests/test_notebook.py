"""The notebook: it runs as it stands, and shows what it promises."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")

ROOT = Path(__file__).resolve().parent.parent
PATH = ROOT / "notebooks" / "demo.ipynb"


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(cell: Any) -> dict[str, Any]:
    assert len(cell.outputs) == 1, cell.outputs  # no warnings, nothing printed beside
    return dict(cell.outputs[0]["data"])


def picture_of(cell: Any) -> np.ndarray:
    content = base64.b64decode(outputs_of(cell)["image/png"])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def check(notebook: Any) -> None:
    """Check what an executed notebook shows."""
    cells = code_cells(notebook)
    assert len(cells) == 10
    assert cells[0].outputs == []
    for cell in cells[1:]:
        outputs_of(cell)
    assert picture_of(cells[1]).shape == (128, 640, 3)
    assert "'kept': 393" in outputs_of(cells[3])["text/plain"]
    grid = picture_of(cells[6])
    assert grid.shape == (20 + 7 * 132, 4 + 4 * 132, 3)
    assert np.ptp(grid, axis=2).max() > 100  # in colour
    table = outputs_of(cells[7])["text/plain"]
    found = {
        row[0]: [float(v) for v in row[1].split()] for row in re.findall(r"(\w+) +(\d.*)", table)
    }
    following, chroma_error = found["model"][:2]
    assert 0.5 < following < 1.2
    assert chroma_error < 0.85 < found["grey"][1]
    sketch, guided, exaggerated = np.split(picture_of(cells[8]), 3, axis=1)
    colourfulness = [float(np.ptp(p, axis=2).mean()) for p in (sketch, guided, exaggerated)]
    assert colourfulness == sorted(colourfulness)
    assert "model.safetensors" in outputs_of(cells[9])["text/plain"]


def test_what_is_in_the_repository_was_executed_and_names_no_path() -> None:
    notebook = nbformat.read(PATH, as_version=4)
    check(notebook)
    assert PATH.stat().st_size < 500_000
    text = PATH.read_text(encoding="utf-8")
    assert str(Path.home()) not in text
    assert str(ROOT) not in text


@pytest.mark.slow
def test_it_runs_from_the_first_cell_to_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = pytest.importorskip("nbclient", reason="nbclient is not installed")
    manager = pytest.importorskip("jupyter_client").AsyncKernelManager
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where it works
    notebook = nbformat.read(PATH, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs = []
    kernel = manager(transport="ipc", ip=str(tmp_path / "kernel"))  # no port, but files
    client.NotebookClient(notebook, km=kernel, timeout=600).execute()
    check(notebook)
