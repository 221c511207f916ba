"""app, as the command line calls it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import requests
from PIL import Image

from model.app.examples import take_examples
from pipeline.dolls.data_set import draw_examples
from pipeline.pictures.sketch import line_drawer
from tests.model_checkpoints import write_checkpoint
from tests.model_samples import write_samples

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command until the end; yields its process and the page's address."""
    pytest.importorskip("gradio")
    checkpoint = write_checkpoint(folder / "best.safetensors", "reference")
    (folder / "tmp").mkdir()
    command = [sys.executable, str(ROOT / "cli.py"), "app", str(checkpoint), "--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder / "tmp")},
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        url, _, rest = line.partition(" ")
        assert rest == "is the page; Ctrl-C ends it.\n"
        yield process, url
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as (process, url):
        with urlopen(url, timeout=120) as answer:
            assert b'content="Nurie"' in answer.read()
        process.send_signal(number)
        assert process.wait(120) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
def test_what_a_client_sends_moves_no_terminals_cursor(tmp_path: Path) -> None:
    file = {"path": "/\x1b[2Jx.png", "meta": {"_type": "gradio.FileData"}}
    with serving(tmp_path) as (process, url):
        page = requests.get(f"{url}/config", timeout=120).json()
        color = next(d["id"] for d in page["dependencies"] if d["api_name"] == "color")
        asked = {"data": [file, file, "", 1], "fn_index": color, "session_hash": "a"}
        requests.post(f"{url}/gradio_api/queue/join", json=asked, timeout=120).raise_for_status()
        place = f"{url}/gradio_api/queue/data?session_hash=a"
        with requests.get(place, stream=True, timeout=120) as events:
            assert any(b"process_completed" in line for line in events.iter_lines())
        requests.get(f"{url}/gradio_api/custom_component/%1b[2Ja/client/b/c", timeout=120)
        requests.post(f"{url}/gradio_api/run/%1b[2Jb", json={"data": []}, timeout=120)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=120)
    assert "\ufffd[2Jx.png" in said  # of Gradio's own traceback
    assert "\ufffd[2Jb" in said  # of the server's log
    assert "\ufffd[2Ja" in out
    assert "\x1b" not in said + out


@pytest.mark.slow
def test_without_gradio_the_extra_is_named(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "best.safetensors", "reference")
    code = "import sys; sys.modules['gradio'] = None; from cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "app", str(checkpoint)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: the page needs Gradio: pip install -e '.[app]' in the clone of Nurie.\n"
    )


@pytest.mark.parametrize("num_samples", [{"train": 4, "test": 4}, {"train": 4, "test": 0}], ids=str)
def test_samples_are_pictures_to_begin_with(tmp_path: Path, num_samples: dict[str, int]) -> None:
    write_samples(tmp_path / "samples", num_samples)
    sketches, references = take_examples(tmp_path / "samples", tmp_path)
    assert 0 < len(sketches) <= 4
    assert 0 < len(references) <= 8
    assert {Image.open(path).mode for path in sketches} == {"L"}
    assert {Image.open(path).mode for path in references} == {"RGB"}


def test_dolls_are_pictures_to_begin_with(tmp_path: Path) -> None:
    sketches, references = draw_examples(line_drawer("dodge", {}), tmp_path)
    assert (len(sketches), len(references)) == (4, 8)
    assert {Image.open(path).mode for path in sketches} == {"L"}
    pictures = [np.asarray(Image.open(path)) for path in references]
    assert len({picture.tobytes() for picture in pictures}) == 8
