"""TorchScript files, by tracing. torch has deprecated them, but runtimes in C++ and older trackers still load them."""

import json
import warnings

import torch

from mgre.errors import ConfigError
from mgre.export.network import ExportedNetwork
from mgre.inference.exported import ExportedFacts
from mgre.inference.torchscript_model import FACTS


def write_torchscript(network: ExportedNetwork, path: str, facts: ExportedFacts, size: tuple[int, int]) -> None:
    """Write a .torchscript file of a network for images of ``size`` (H, W).

    Raises:
        ConfigError: the network cannot be traced.
    """
    images = torch.zeros(2, 3, *size, device=network.scale.device)
    alone = len(network.outputs) == 1
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(_First(network) if alone else network, images, check_trace=False)
            content = json.dumps(facts.to_metadata() | {"outputs": network.outputs})
            torch.jit.save(traced, path, _extra_files={FACTS: content})
    except Exception as error:  # torch raises errors of many kinds for what it cannot trace
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(f"the model cannot be traced ({reason}): choose --format onnx") from error


class _First(torch.nn.Module):
    """The features alone, as the one tensor that trackers expect."""

    def __init__(self, network: ExportedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)[0]
