"""Products along the rows and columns of a map: bilinear interpolation without one of torch's slow kernels.

A bilinear kernel is a product of a factor across and a factor down. So all its samples on a grid are ``A_y F A_x^T``,
two matrix products. On a GPU they are faster than upsampling kernels, and their gradients need no atomic additions,
which add in another order in each run. The maps' memory is read as (B, H, W, C), which is that of channels-last maps.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F


def resize_bilinear(features: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """``F.interpolate`` in mode "bilinear" without ``align_corners``, as two products.

    Args:
        features: (B, C, H, W).
        size: N x M, the new height and width.

    Returns:
        (B, C, N, M), channels-last in memory.
    """
    options: dict[str, Any] = {"device": features.device, "dtype": torch.promote_types(features.dtype, torch.float32)}
    rows = mix_rows(features, _interpolation(features.shape[2], size[0], **options))
    return mix_columns(rows, _interpolation(features.shape[3], size[1], **options))


def _interpolation(cells: int, samples: int, *, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """(samples, cells): what each of the ``cells`` of an axis adds to each of the ``samples``."""
    return F.interpolate(torch.eye(cells, device=device, dtype=dtype)[None], size=samples, mode="linear")[0].T


def mix_rows(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sums of the rows of a map.

    Args:
        features: (B, C, H, W).
        weights: (B, N, H) of each image, or (N, H) of all.

    Returns:
        (B, N, W, C): the N sums.
    """
    rows = features.permute(0, 2, 3, 1)
    return torch.matmul(weights.to(features.dtype), rows.flatten(2)).unflatten(2, rows.shape[2:])


def mix_columns(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sums of the columns of what :func:`mix_rows` gives.

    Args:
        rows: (B, N, W, C).
        weights: (B, M, W) of each image, or (M, W) of all.

    Returns:
        (B, C, N, M), channels-last in memory.
    """
    if weights.dim() == 3:
        weights = weights.unsqueeze(1)
    return torch.matmul(weights.to(rows.dtype), rows).permute(0, 3, 1, 2)
