"""Parts of the network that compute in the precision of their weights."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Within the block autocast is off.

    A model is exported without autocast, and a block would be a graph of its own in the exported one, each step of
    which takes longer with it.
    """
    return nullcontext() if torch.compiler.is_exporting() else torch.autocast(device.type, enabled=False)
