"""Sampling module: N x M bilinear samples of a box (Eq. 4-5).

A spatial transformer without rotation. Map cell (i, j) has its centre at ((j + 0.5) / W, (i + 0.5) / H), so sampling
uses ``align_corners=False``; Eq. (5) sums over cells inside the map only, hence ``padding_mode="zeros"``.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mgre.regions import Region


def sample_box(features: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Sample one box of each image.

    Args:
        features: (B, C, H, W).
        boxes: (B, 4), (x_min, y_min, x_max, y_max), normalised; they may exceed the map, where it is zero.
        size: N x M, the samples (height, width). Sample (n, m) lies at the centre of cell (n, m) of the box's N x M
            grid.

    Returns:
        (B, C, N, M), of the features' dtype; differentiable in the features and in the boxes.
    """
    height, width = size
    across = (torch.arange(width, device=boxes.device, dtype=boxes.dtype) + 0.5) / width
    down = (torch.arange(height, device=boxes.device, dtype=boxes.dtype) + 0.5) / height
    x_min, y_min, x_max, y_max = boxes[:, :, None].unbind(dim=1)
    x = x_min + across * (x_max - x_min)  # (B, M), Eq. (4)
    y = y_min + down * (y_max - y_min)  # (B, N)
    grid = torch.stack(
        (x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)), dim=-1
    )  # (B, N, M, 2), (x, y)
    # The grid keeps the precision of the boxes, because in bfloat16 neighbouring cells of C1 would share a coordinate.
    dtype = torch.promote_types(features.dtype, boxes.dtype)
    # Eq. (5): each sample is the sum over the cells of the map, weighted by their distance.
    sampled = F.grid_sample(
        features.to(dtype), 2 * grid.to(dtype) - 1, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled.to(features.dtype)


class SamplingModule(nn.Module):
    """Samples every region of a stage from its map.

    Attributes:
        reid_gradient: factor on the gradient that flows from the samples to the boxes. 1 is the paper's joint
            optimisation; with 0 only the location loss trains the boxes.
    """

    def __init__(self, *, regions: Sequence[Region], reid_gradient: float) -> None:
        super().__init__()
        self.regions = tuple(regions)
        self.reid_gradient = reid_gradient

    def forward(self, features: torch.Tensor, boxes: torch.Tensor) -> list[torch.Tensor]:
        """
        Args:
            features: F_i, (B, C_i, H_i, W_i).
            boxes: (B, R, 4), normalised.

        Returns:
            R maps (B, C_i, N_r, M_r).
        """
        if self.reid_gradient == 0:
            boxes = boxes.detach()
        elif self.reid_gradient != 1:
            boxes = self.reid_gradient * boxes + (1 - self.reid_gradient) * boxes.detach()
        return [
            sample_box(features, boxes[:, index], region.sample_size(features.shape[-2:]))
            for index, region in enumerate(self.regions)
        ]

    def extra_repr(self) -> str:
        return f"regions={[r.name for r in self.regions]}, reid_gradient={self.reid_gradient}"
