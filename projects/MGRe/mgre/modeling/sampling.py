"""Sampling module: N x M bilinear samples of a box (Eq. 4-5).

A spatial transformer without rotation. Map cell (i, j) has its centre at ((j + 0.5) / W, (i + 0.5) / H), as in
``grid_sample(..., align_corners=False)``. Eq. (5) sums over cells inside the map only, so samples fade to 0 beyond it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mgre.modeling.autocast import without_autocast
from mgre.modeling.separable import mix_columns, mix_rows
from mgre.regions import Region


def sample_boxes(features: torch.Tensor, boxes: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
    """Sample R boxes of each image.

    Args:
        features: (B, C, H, W).
        boxes: (B, R, 4), (x_min, y_min, x_max, y_max), normalised; they may exceed the map, where it is zero.
        sizes: N x M of each box, the samples (height, width). Sample (n, m) lies at the centre of cell (n, m) of the
            box's N x M grid.

    Returns:
        R maps (B, C, N, M), of the features' dtype; differentiable in the features and in the boxes. Where a sample
        lies at a cell's centre, the kernel of Eq. (5) has a kink. There the gradient is the mean of those on both
        sides.
    """
    x_min, y_min, x_max, y_max = boxes.unbind(dim=2)
    heights, widths = [height for height, _ in sizes], [width for _, width in sizes]
    down = _kernel(_positions(y_min, y_max, heights), features.shape[2])
    across = _kernel(_positions(x_min, x_max, widths), features.shape[3])
    # Eq. (5): its kernel is a product of a factor down and a factor across, so the sums over rows and columns separate.
    # Autocast would make infinities of features beyond the range of float16.
    with without_autocast(features.device):
        rows = mix_rows(features, down).split(heights, dim=1)
        return [mix_columns(*pair) for pair in zip(rows, across.split(widths, dim=1), strict=True)]


def _positions(low: torch.Tensor, high: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Eq. (4) along one axis: box r has ``counts[r]`` samples between ``low`` and ``high`` (B, R).

    Returns:
        (B, sum of counts), box by box, normalised.
    """
    extent = high - low
    options: dict[str, Any] = {"device": low.device, "dtype": low.dtype}
    # (n + 0.5) / N for n = 0 ... N - 1, the centres of N cells.
    centers = [torch.linspace(0.5 / count, 1 - 0.5 / count, count, **options) for count in counts]
    # Views of one box each: a list of indices would be copied to the GPU, and the host would wait.
    parts = zip(low.split(1, dim=1), centers, extent.split(1, dim=1), strict=True)
    return torch.cat([start + c * length for start, c, length in parts], dim=1)


def _kernel(positions: torch.Tensor, cells: int) -> torch.Tensor:
    """The bilinear kernel of Eq. (5) along one axis: weight of each of the ``cells`` of the map in each sample.

    The weights are made in the precision of the boxes, because in bfloat16 neighbouring cells of C1 would share a
    coordinate.

    Args:
        positions: (B, S), normalised.
        cells: H or W.

    Returns:
        (B, S, cells): 1 - distance to the cell's centre in cells, at least 0.
    """
    centers = torch.arange(cells, device=positions.device, dtype=positions.dtype)
    nearness = 1 - (positions[..., None] * cells - 0.5 - centers).abs()
    # At a tie torch.maximum gives half of the gradient to each side, and abs() gives 0.
    return torch.maximum(nearness, torch.zeros_like(nearness))


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
        return sample_boxes(features, boxes, [region.sample_size(features.shape[-2:]) for region in self.regions])

    def extra_repr(self) -> str:
        return f"regions={[r.name for r in self.regions]}, reid_gradient={self.reid_gradient}"
