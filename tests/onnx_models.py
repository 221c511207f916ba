"""Tiny networks in ONNX files, for tests of sketches drawn by a network."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_model(path: Path, channels: int = 3, out_channels: int = 1, scale: float = 1.0) -> Path:
    """Write a network whose sketch is the mean of the picture's channels times ``scale``.

    Args:
        path: of the file; returned.
        channels: of the input picture.
        out_channels: of the output; a sketch has 1.
        scale: of the values.
    """
    weight = np.full((out_channels, channels, 1, 1), scale / channels, np.float32)
    onnx.save(build_model(weight), str(path))
    return path


def build_model(weight: np.ndarray) -> onnx.ModelProto:
    """Return a network of one convolution."""
    node = helper.make_node("Conv", ["picture", "weight"], ["sketch"])
    shape = ["n", weight.shape[1], "h", "w"]
    graph = helper.make_graph(
        [node],
        "sketch",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("sketch", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "weight")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9)
