"""Sketches by a user's own network, from an ONNX file, through onnxruntime (extra ``onnx``).

The network takes one float32 picture, N x 3 x H x W (RGB) or N x 1 x H x W (grey), in [0, 1], and
its first output is the sketch: float32, N x 1 x H x W or N x H x W, in [0, 1], 1 being paper. What
lies outside [0, 1] is clamped. It runs on one thread of the CPU, so that the same file and version
give the same bytes whatever the number of workers. All of it must lie in the one file: that file's
SHA-256 stands for it in the recipe and in every fingerprint.
"""

import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.pictures.image import Picture
from pipeline.pictures.onnx_session import open_session, run_session
from pipeline.recipe import OnnxSettings


def pin_model(settings: OnnxSettings, size: int) -> OnnxSettings:
    """Return the settings with the SHA-256 of the file filled in, after a trial run.

    Args:
        settings: a SHA-256 that they give already must be the file's.
        size: side of the finished square in pixels.

    Raises:
        UserError: where there is no such file or no onnxruntime, it is another file, or what it
            holds does not make sketches of that size.
    """
    if not settings.model:
        raise UserError("method 'onnx' needs a file: --set prepare.sketch.onnx.model=PATH.")
    pinned = replace(settings, sha256=hashlib.sha256(_read(settings.model)).hexdigest())
    if settings.sha256 not in ("", pinned.sha256):
        raise UserError(
            f"{settings.model}: its SHA-256 is {pinned.sha256}, and the recipe wants the file "
            f"with {settings.sha256}."
        )
    draw_with_model(np.full((size, size, 3), 255, np.uint8), pinned)
    return pinned


def draw_with_model(picture: Picture, settings: OnnxSettings) -> NDArray[np.uint8]:
    """Draw a picture's sketch by the network of settings that ``pin_model`` returned.

    Returns:
        uint8, H x W.

    Raises:
        UserError: where the network does not take the picture, or gives no sketch of its size.
    """
    session, channels = _session(settings.model, settings.sha256)
    grey = channels == 1
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] if grey else picture
    batch = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
    complaint = f"{settings.model}: does not run on a picture of {list(batch.shape)}"
    given, first = {session.get_inputs()[0].name: batch}, session.get_outputs()[0].name
    output = run_session(session, first, given, complaint)
    height, width = picture.shape[:2]
    shapes = ((1, 1, height, width), (1, height, width))
    if not isinstance(output, np.ndarray) or output.shape not in shapes:
        raise UserError(
            f"{settings.model}: its first output for a picture of {list(batch.shape)} is of "
            f"{list(np.shape(output))}; a sketch is of {list(shapes[0])} or {list(shapes[1])}."
        )
    sketch = output.reshape(height, width)
    if not np.isfinite(sketch).all():
        raise UserError(f"{settings.model}: its first output holds values that are no numbers.")
    return cast(NDArray[np.uint8], np.rint(np.clip(sketch, 0, 1) * 255).astype(np.uint8))


@lru_cache(maxsize=8)
def _session(model: str, sha256: str) -> tuple[Any, int]:
    """Return the network, loaded once a process, and the channels of its input."""
    content = _read(model)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{model}: has changed since this run began; run the same command again.")
    session = open_session(content, model, num_threads=1)
    inputs = session.get_inputs()
    found = [f"{node.type} {node.shape}" for node in inputs]
    channels = inputs[0].shape[1] if len(inputs) == 1 and len(inputs[0].shape) == 4 else 0
    if channels not in (1, 3) or inputs[0].type != "tensor(float)":
        raise UserError(
            f"{model}: takes {' and '.join(found) or 'nothing'}; it has to take one float32 "
            "picture, N x 3 x H x W or N x 1 x H x W."
        )
    return session, channels


def _read(model: str) -> bytes:
    try:
        return Path(model).read_bytes()
    except OSError as error:
        raise UserError(f"{model}: cannot be read: {error.strerror}.") from error
