"""Weight files: what may be in them, and how they are read."""

import os
import pickle
import zipfile
from typing import Any

import torch

from mgre.errors import DamagedFileError, WeightsError

# Keys under which training codes wrap a state dict: this toolbox and MoCo, PyTorch's examples, pycls.
WRAPPERS = ("model", "state_dict", "model_state")


def read_weights(path: str) -> dict[str, Any]:
    """The content of a weight file, on the CPU. Only tensors and plain containers are read: no code in it is run.

    Raises:
        DamagedFileError: the file is cut short or changed.
        WeightsError: it is missing, or holds something else.
    """
    if not os.path.isfile(path):
        raise WeightsError(f"weight file '{path}' does not exist: check the path")
    _check_sums(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise WeightsError(
                f"weight file '{path}' holds Python objects besides tensors, which could run code: "
                "save its state dict alone and load that"
            ) from error
        raise _damaged(path) from error
    except Exception as error:  # torch raises many kinds for a file that was cut or changed
        raise _damaged(path) from error
    if not isinstance(content, dict):
        raise WeightsError(f"weight file '{path}' holds no state dict: save module.state_dict() and load that")
    return content


def _check_sums(path: str) -> None:
    """torch reads a changed tensor as it is; the archive that it is in has check sums."""
    try:
        if not zipfile.is_zipfile(path):
            return  # torch's older format, or no weights
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except Exception as error:  # a changed directory or header gives many kinds
        raise _damaged(path) from error
    if changed:
        raise _damaged(path)


def _damaged(path: str) -> DamagedFileError:
    return DamagedFileError(
        f"weight file '{path}' is damaged or cut short ({os.path.getsize(path)} bytes): copy or download it again, "
        "or use another checkpoint"
    )


def read_state_dict(path: str) -> dict[str, torch.Tensor]:
    """The tensors of a weight file by name, taken out of the wrappers :data:`WRAPPERS`.

    Raises:
        WeightsError: see :func:`read_weights`, or there are no tensors in it.
    """
    content = read_weights(path)
    while wrapper := next((w for w in WRAPPERS if isinstance(content.get(w), dict)), None):
        content = content[wrapper]
    state = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise WeightsError(f"weight file '{path}' holds no state dict: save module.state_dict() and load that")
    return state
