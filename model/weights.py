"""Weights of other people's networks: read without running their code, named by their hash."""

import hashlib
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.disk import reason
from pipeline.errors import UserError

StateDict = dict[str, Tensor]

_PYTORCH = (b"PK\3\4", b"\x80")
"""How PyTorch's files begin: a zip's, and until PyTorch 1.6 a pickle's."""

_MAX_HEADER = 4 * 2**20  # bytes; a whole training has fewer than 2**18


def read_weights(path: Path) -> StateDict:
    """Read a state dict from a .safetensors file, or from any other as PyTorch's own format.

    A PyTorch file is a pickle, and a pickle can run code: only tensors and plain containers are
    accepted from it.

    Raises:
        UserError: where the file is missing, damaged, or anything but named tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}.")
    try:
        if path.suffix == ".safetensors":
            check_header(path)
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {reason(error)}.") from error
    except Exception as error:  # of what is no pickle, PyTorch's reader raises whatever comes
        raise UserError(f"{path}: {_what_is_wrong(path, error)}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path}: is not a state dict of named tensors. Save the state dict alone.")
    return state


def check_header(path: Path) -> None:
    """Check that a .safetensors says in 4 MiB what it holds: read, that takes 30 times as much.

    Raises:
        ValueError: where it does not.
        OSError: where it cannot be read.
    """
    with path.open("rb") as file:
        num_bytes = int.from_bytes(file.read(8), "little")
    if num_bytes > _MAX_HEADER:
        raise ValueError(f"its header has {num_bytes} bytes, and at most {_MAX_HEADER} are read")


def _what_is_wrong(path: Path, error: Exception) -> str:
    own = "a .safetensors file"
    if path.suffix != ".safetensors":
        own = "a file of weights that PyTorch wrote"
        with path.open("rb") as file:
            begin = file.read(4)
        if not begin.startswith(_PYTORCH):
            return f"is neither {own}, nor called .safetensors."
        if isinstance(error, UnpicklingError):
            return (
                "holds something other than tensors, and is not loaded. Save it again as a plain "
                "state dict, or as .safetensors."
            )
    return f"damaged or cut short, or not {own}. Copy or download it again."


def download_weights(url: str) -> StateDict:
    """Return published weights from PyTorch's cache, or download them there first.

    Args:
        url: of a file called ``NAME-HASH.pth``, HASH being the beginning of its SHA-256.

    Raises:
        UserError: where they cannot be had, or are not what was published; it names ways round.
    """
    name = url.rsplit("/", 1)[1]
    prefix = name.removesuffix(".pth").rsplit("-", 1)[1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"{url}: cannot be downloaded ({_first_line(error)}). Give the file with "
            "--style-weights PATH, or go without ImageNet's knowledge: --style-weights random."
        ) from error
    if not sha256.startswith(prefix):
        raise UserError(f"{path}: is not the file that was published as {url}. Delete it.")
    return read_weights(path)


def digest_weights(state: StateDict) -> str:
    """Return the SHA-256 (hex) over names, shapes and values: the same in every file format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        values = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        digest.update(values.data)
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
