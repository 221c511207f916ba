"""From a loaded model to an ONNX file that says the same, as a check in onnxruntime shows."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import orjson
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.use.colorize import Colorizer
from model.use.painter_onnx import INFO_KEY, INPUTS, OUTPUT, OnnxInfo
from pipeline.errors import UserError, install
from pipeline.pictures.onnx_session import open_session
from pipeline.settings import to_table

MAX_DIFFERENCE = 1e-3
"""Between what PyTorch and onnxruntime compute, of values in [0, 1]; a grey level is 4e-3."""

NUM_CHECKED = 6

_MAX_BYTES = 2**31 - 1  # of a protobuf


class Exported(NamedTuple):
    """An ONNX file.

    Attributes:
        content: the whole file; weights of a style network are in it.
        difference: the largest between PyTorch's output and onnxruntime's, of ``NUM_CHECKED``
            pairs of pictures.
    """

    content: bytes
    difference: float


class _Whole(nn.Module):
    """Style network and generator as one, with the picture as the only output."""

    def __init__(self, colorizer: Colorizer) -> None:
        super().__init__()
        self.generator = colorizer.generator
        self.style_network = colorizer.style_network

    def forward(self, sketch: Tensor, reference: Tensor) -> Tensor:
        picture: Tensor = self.generator(sketch, self.style_network(reference)).picture
        return picture


def export_onnx(colorizer: Colorizer, info: OnnxInfo) -> Exported:
    """Translate a model on the CPU, and compare the translation with it.

    Raises:
        UserError: where the extra ``onnx`` is missing, or the file would not compute the same.
    """
    model = _Whole(colorizer).eval()
    content = _translate(model, info)
    difference = _compare(model, content, info.size)
    if not difference <= MAX_DIFFERENCE:  # nor where it is no number
        raise UserError(
            f"the ONNX file would differ from the model by up to {difference:.2g}, and "
            f"{MAX_DIFFERENCE:.0e} is allowed. Nothing was written; --no-onnx leaves it out."
        )
    return Exported(content, difference)


def _translate(model: nn.Module, info: OnnxInfo) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the ONNX file needs onnx and onnxscript: {install('onnx')}, or leave it out with "
            "--no-onnx."
        ) from error
    height, width = info.size
    example = (torch.zeros(1, 1, height, width), torch.zeros(1, 3, height, width))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # Decomposed first: the exporter translates attention only with an axis for its heads.
        apart = torch.export.default_decompositions()
        apart[torch.ops.aten.native_group_norm.default] = _normalise_groups
        program = torch.export.export(model, example).run_decompositions(apart)
        exported = torch.onnx.export(
            program,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None  # only TorchScript's way returns nothing
    proto = exported.model_proto
    if proto.ByteSize() > _MAX_BYTES:
        raise UserError("the model is too large for one ONNX file; leave it out with --no-onnx.")
    _forget(proto)
    entry = proto.metadata_props.add()
    entry.key, entry.value = INFO_KEY, orjson.dumps(to_table(info)).decode()
    return bytes(proto.SerializeToString(deterministic=True))


def _normalise_groups(
    x: Tensor, weight: Tensor, bias: Tensor, n: int, c: int, area: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Do what ``native_group_norm`` does, by the means of rows and then the mean of these.

    In a node of its own onnxruntime adds a group's values one by one: of 200,000 equal values,
    which bare paper gives, a float32 sum is off by a ten thousandth.
    """
    rows = x.reshape(n, groups, -1, x.shape[-1])
    mean = rows.mean(3, keepdim=True).mean(2, keepdim=True)
    centred = rows - mean
    scale = (centred.square().mean(3, keepdim=True).mean(2, keepdim=True) + eps).rsqrt()
    normalised = (centred * scale).reshape(x.shape) * weight[:, None, None] + bias[:, None, None]
    return normalised, mean.reshape(n, groups), scale.reshape(n, groups)


def _forget(proto: Any) -> None:
    """Drop what the translator notes at every node: this machine's paths and lines of code."""
    graphs = [proto.graph, *proto.functions]
    del proto.metadata_props[:]
    for graph in graphs:
        graph.doc_string = ""
        del graph.metadata_props[:]
        parts = [*graph.node, *graph.value_info]
        if graph is proto.graph:
            parts += [*graph.initializer, *graph.input, *graph.output]
        for part in parts:
            part.doc_string = ""
            del part.metadata_props[:]


def _compare(model: nn.Module, content: bytes, size: tuple[int, int]) -> float:
    """Return the largest difference over pairs of noise, and of lines and flat colours."""
    session = open_session(content, "the ONNX file", num_threads=0)
    largest = 0.0
    for number in range(NUM_CHECKED):
        sketch, reference = draw_pair(number, size)
        with torch.inference_mode():
            expected = model(sketch, reference).numpy()
        given = dict(zip(INPUTS, (sketch.numpy(), reference.numpy()), strict=True))
        (found,) = session.run([OUTPUT], given)
        if found.shape != expected.shape:
            return float("inf")
        largest = float(np.maximum(largest, np.abs(found - expected).max()))
    return largest


def draw_pair(number: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return a sketch, 1 x 1 x H x W, and a reference, 1 x 3 x H x W, in [0, 1]."""
    random = torch.Generator().manual_seed(number)
    if number % 2:
        return torch.rand(1, 1, *size, generator=random), torch.rand(1, 3, *size, generator=random)
    areas = F.interpolate(torch.rand(1, 4, 7, 7, generator=random), size, mode="bicubic")
    lines = 1 - (areas[:, :1] % 0.25 < 0.02).float()
    return lines, (areas[:, 1:] * 4).round().div(4).clamp(0, 1)
