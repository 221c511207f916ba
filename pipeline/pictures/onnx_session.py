"""ONNX files from strangers, opened through onnxruntime (extra ``onnx``) so that no harm comes."""

import os
from typing import Any

from pipeline.errors import UserError, install

_NOWHERE = f"{os.devnull}/none"  # no folder can be there


def open_session(content: bytes, name: str, num_threads: int) -> Any:
    """Return an ``onnxruntime.InferenceSession`` on the CPU.

    Args:
        content: of one file that holds all of it. Weights in further files would escape its sum,
            and could name any file of this machine: they are not read.
        name: what to call it in errors.
        num_threads: that compute; 0 for all cores. With one, the same file and version give the
            same bytes.

    Raises:
        UserError: where onnxruntime is missing, or cannot load it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{name}: needs onnxruntime: {install('onnx')}.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NOWHERE
    )
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base of their own
        raise UserError(
            f"{name}: cannot be loaded as one self-contained ONNX file: {first_line(error)}"
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, not too long."""
    return str(error).partition("\n")[0][:300]
