"""Weight files: what may be in them, and how they get into a module."""

import logging
import os
import pickle
import zipfile
from collections import Counter
from typing import Any

import torch
from torch import nn

from mgre.errors import DamagedFileError, WeightsError, first_names

logger = logging.getLogger(__name__)

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


def load_matching(module: nn.Module, state: dict[str, torch.Tensor], *, source: str) -> None:
    """Load those tensors of ``state`` that fit ``module`` by name and shape, and log how many did.

    All names may have one prefix in common, such as ``module.`` or ``module.encoder.``: the one under which most fit.

    Args:
        source: what the user calls it, for the log and error messages.

    Raises:
        WeightsError: fewer than half of the module's tensors are there.
    """
    own = module.state_dict()
    prefix = _common_prefix(state, own)
    fitting = {n: state[prefix + n] for n in own if prefix + n in state and state[prefix + n].shape == own[n].shape}
    wanted = [n for n in own if not n.endswith("num_batches_tracked")]  # weight files before torch 0.4.1 have none
    missing = [n for n in wanted if n not in fitting]
    left_over = [n for n in state if n.removeprefix(prefix) not in fitting]
    if 2 * len(missing) > len(wanted):
        raise WeightsError(
            f"weight file '{source}' does not fit {type(module).__name__}: {len(missing)} of its {len(wanted)} tensors "
            f"are missing in it or have another shape, first {missing[0]}; choose the file of this architecture"
        )
    module.load_state_dict(fitting, strict=False)
    logger.info(
        "Loaded %d of %d parameters and statistics of %s from %s: %d missing%s, %d left over%s",
        len(wanted) - len(missing),
        len(wanted),
        type(module).__name__,
        source,
        len(missing),
        _some(missing),
        len(left_over),
        _some(left_over),
    )


def _common_prefix(state: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> str:
    prefixes = Counter()
    for name, value in state.items():
        starts = [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]
        prefixes.update(name[:i] for i in starts if name[i:] in own and own[name[i:]].shape == value.shape)
    return prefixes.most_common(1)[0][0] if prefixes else ""


def _some(names: list[str]) -> str:
    return f" ({first_names(names)})" if names else ""
