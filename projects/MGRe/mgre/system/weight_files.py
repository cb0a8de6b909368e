"""Reads weight files: only tensors and plain containers, never code."""

import os
import pickle
import zipfile
from typing import Any

import torch

from mgre.errors import DamagedFileError, WeightsError
from mgre.system.foreign_messages import is_unsafe_global

# Keys under which training codes wrap a state dict: this toolbox and MoCo, PyTorch's examples, pycls.
WRAPPERS = ("model", "state_dict", "model_state")


def read_weights(path: str) -> dict[str, Any]:
    """The content of a weight file, on the CPU. Only tensors and plain containers are read, so no code is run.

    Raises:
        DamagedFileError: the file is cut short, or its content has changed since it was written.
        WeightsError: the file is missing, or holds something else than tensors and plain containers.
    """
    if not os.path.isfile(path):
        raise WeightsError(f"weight file '{path}' does not exist: check the path")
    is_archive = _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # An archive with the right check sums is not damaged, so torch has refused an object in it.
        if is_archive or is_unsafe_global(error):
            raise WeightsError(
                f"weight file '{path}' holds Python objects besides tensors, which could run code: "
                "save its state dict alone and load that"
            ) from error
        raise _damaged(path) from error
    except Exception as error:  # torch raises many kinds of errors for a file that was cut or changed
        raise _damaged(path) from error
    if not isinstance(content, dict):
        raise WeightsError(f"weight file '{path}' holds no state dict: save module.state_dict() and load that")
    return content


def _check_archive(path: str) -> bool:
    """Compare the check sums of a zip archive, which ``torch.load`` ignores; False if the file is no zip archive.

    Since torch 1.6 weight files are zip archives.

    Raises:
        DamagedFileError: a check sum is wrong, or the archive cannot be read.
    """
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except Exception as error:  # a damaged header or directory gives many kinds of errors
        raise _damaged(path) from error
    if changed:
        raise _damaged(path)
    return True


def _damaged(path: str) -> DamagedFileError:
    return DamagedFileError(
        f"weight file '{path}' is damaged or cut short ({os.path.getsize(path)} bytes): copy or download it again, "
        "or use another checkpoint"
    )


def read_state_dict(path: str) -> dict[str, torch.Tensor]:
    """The tensors of a weight file by name, taken out of the wrappers :data:`WRAPPERS`.

    Raises:
        WeightsError: see :func:`read_weights`; or the file has no tensors.
    """
    content = read_weights(path)
    while wrapper := next((w for w in WRAPPERS if isinstance(content.get(w), dict)), None):
        content = content[wrapper]
    state = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise WeightsError(f"weight file '{path}' holds no state dict: save module.state_dict() and load that")
    return state
