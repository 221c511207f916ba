"""LPIPS, how different two pictures look (Zhang et al. 2018), by the `lpips` package.

The package brings its own weights for AlexNet's layers, and downloads AlexNet's. Here these come
from a file, so that nothing is asked for that the user did not name.
"""

import importlib.util
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from model.weights import read_weights
from pipeline.errors import UserError, install


def load_lpips(weights_path: Path, device: torch.device) -> nn.Module:
    """Load the network.

    Args:
        weights_path: torchvision's AlexNet, ``alexnet-owt-7be5be79.pth``, or the same as
            .safetensors.
        device: where it computes.

    Raises:
        UserError: where the package is missing, the file cannot be read, or it holds another
            network's weights.
    """
    if importlib.util.find_spec("lpips") is None:
        raise UserError(f"--lpips-weights needs the package lpips: {install('lpips')}.")
    import lpips

    state = read_weights(weights_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks torchvision for a network in the old way
        network: nn.Module = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    # Its slices keep the layers' numbers: slice3.6 is features.6.
    layers = network.get_submodule("net")
    names = {f"features.{name.split('.', 1)[1]}": name for name in layers.state_dict()}
    try:
        layers.load_state_dict({own: state[name] for name, own in names.items()})
    except (KeyError, RuntimeError) as error:  # other names, or other shapes
        raise UserError(
            f"{weights_path}: not the weights of torchvision's AlexNet, alexnet-owt-7be5be79.pth."
        ) from error
    return network.to(device)


@torch.inference_mode()
def lpips_distance(network: nn.Module, output: Tensor, truth: Tensor) -> Tensor:
    """Return the LPIPS of each picture: N, 0 for equal ones.

    Args:
        network: of ``load_lpips``.
        output: uint8 N x 3 x H x W, sides of at least 32 pixels.
        truth: likewise.
    """
    device = next(network.parameters()).device
    a, b = (picture.to(device).float() / 127.5 - 1 for picture in (output, truth))
    return torch.as_tensor(network(a, b)).flatten().cpu()
