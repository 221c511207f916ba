"""ONNX files from strangers, opened through onnxruntime (extra ``onnx``) so that no harm comes."""

import os
from collections.abc import Mapping
from threading import Timer
from typing import Any

from pipeline.errors import UserError, install

_NOWHERE = f"{os.devnull}/none"  # no folder can be there
_MAX_SECONDS = 600  # for one picture, of which a network of this program needs a few


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
            f"{name}: cannot be loaded as one self-contained ONNX file: {_first_line(error)}"
        ) from error


def run_session(session: Any, output: str, given: Mapping[str, Any], complaint: str) -> Any:
    """Return an output of a network, which may loop for ever: Ctrl-C would not end it.

    Raises:
        UserError: where it does not run, or not to its end in ten minutes; it begins with
            ``complaint``.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    timer = Timer(_MAX_SECONDS, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        return session.run([output], given, options)[0]
    except Exception as error:  # its exceptions have no base of their own
        took_too_long = f"takes longer than {_MAX_SECONDS} seconds"
        reason = took_too_long if options.terminate else _first_line(error)
        raise UserError(f"{complaint}: {reason}") from error
    finally:
        timer.cancel()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
