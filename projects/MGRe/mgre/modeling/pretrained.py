"""Loads pretrained weights into a module, by name and shape."""

import logging
from collections import Counter

import torch
from torch import nn

from mgre.errors import WeightsError, first_names

logger = logging.getLogger(__name__)


def load_matching(module: nn.Module, state: dict[str, torch.Tensor], *, source: str) -> None:
    """Load the tensors of ``state`` that fit ``module`` by name and shape, and log how many fit.

    The names may have a common prefix, such as ``module.`` or ``module.encoder.``. It is found as the prefix under
    which most tensors fit.

    Args:
        source: the path or name of the weights, for the log and error messages.

    Raises:
        WeightsError: fewer than half of the module's tensors are in ``state``.
    """
    own = module.state_dict()
    prefix = _common_prefix(state, own)
    fitting = {n: state[prefix + n] for n in own if prefix + n in state and state[prefix + n].shape == own[n].shape}
    wanted = [n for n in own if not n.endswith("num_batches_tracked")]  # not in weight files before torch 0.4.1
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
