"""Autocast off for a part of the network."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Turn autocast off for the block; do nothing while the model is exported.

    A model is exported without autocast anyway. There torch would make a graph of its own of the block, which takes
    longer and adds nodes to the exported file.
    """
    return nullcontext() if torch.compiler.is_exporting() else torch.autocast(device.type, enabled=False)
