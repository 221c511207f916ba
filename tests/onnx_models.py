"""Tiny networks in ONNX files, for tests of sketches drawn by a network."""

import json
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


def write_painter(path: Path, *nodes: onnx.NodeProto, side: int = 64) -> Path:
    """Write what says of itself that ``export`` wrote it, and makes ``picture`` by other nodes."""
    shapes = {"sketch": [1, 1, side, side], "reference": [1, 3, side, side], "picture": None}
    sketch, reference, picture = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    )
    graph = helper.make_graph(nodes, "painter", [sketch, reference], [picture])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    about = {"version": 1, "model": "reference", "size": [side, side]}
    helper.set_model_props(model, {"nurie": json.dumps(about)})
    onnx.save(model, str(path))
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


def build_endless_model() -> onnx.ModelProto:
    """Return a network that adds nothing to a picture, for ever."""
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, "h", "w"])
    before, after, sketch = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in ("before", "after", "sketch")
    )
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    goes_on, stays_on = (
        helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("on", "still_on")
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still_on"]),
            helper.make_node("Abs", ["before"], ["after"]),
        ],
        "body",
        [turn, goes_on, before],
        [stays_on, after],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "true", "picture"], ["sketch"], body=body)],
        "endless",
        [picture],
        [sketch],
        [numpy_helper.from_array(np.array(True), "true")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9)
