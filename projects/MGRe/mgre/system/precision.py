"""The type of mixed precision."""

import torch


def amp_dtype(name: str, device: str | torch.device) -> torch.dtype:
    """The type that SOLVER.AMP.DTYPE or TEST.AMP.DTYPE names.

    Args:
        name: "float16", "bfloat16" or "auto": float16 on CUDA, bfloat16 on the CPU, which computes float16 slowly.
        device: of the model, such as "cuda" or "cuda:0".
    """
    if name == "auto":
        return torch.bfloat16 if torch.device(device).type == "cpu" else torch.float16
    return getattr(torch, name)
