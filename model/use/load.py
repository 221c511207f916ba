"""A trained model, out of whichever file holds it: a checkpoint, or an ONNX file without torch."""

from pathlib import Path

from model.use.painter import Painter
from pipeline.errors import UserError


def load_painter(path: Path, *, device: str = "auto", style_weights: str = "") -> Painter:
    """Load a trained model for use.

    Args:
        path: a checkpoint (see ``checkpoint.load_checkpoint``), or an .onnx that ``export`` wrote.
        device: see ``device.pick_device``; an ONNX file computes on the CPU.
        style_weights: see ``colorize.load_colorizer``; an ONNX file has them in it.

    Raises:
        UserError: on a file that is none of these, or not usable here.
    """
    # Inside, for an ONNX file goes without torch, and a checkpoint without onnxruntime.
    if path.suffix.lower() == ".onnx":
        from model.use.painter_onnx import load_onnx

        if device not in ("auto", "cpu"):
            raise UserError(f"{path}: an ONNX file computes on the CPU, not on {device!r}.")
        if style_weights:
            raise UserError(f"{path}: has its style network in it; leave --style-weights out.")
        return load_onnx(path)
    from model.use.colorize import as_painter, load_colorizer

    return as_painter(*load_colorizer(path, device=device, style_weights=style_weights))
