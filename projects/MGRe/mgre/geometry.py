"""Boxes and key points: pure functions.

Legend: B images, R regions, K = 17 key points. Everything is normalised to [0, 1] by the image's width and
height, x to the right, y down. Points are (x, y), boxes are (x_min, y_min, x_max, y_max).
"""

import functools
from collections.abc import Sequence

import torch

from mgre.regions import MIN_KEYPOINTS, Region

# Eq. (3): a region's box exceeds its outermost key points by this much on each side.
KEYPOINT_MARGIN = 0.05


def boxes_from_keypoints(keypoints: torch.Tensor, regions: Sequence[Region]) -> tuple[torch.Tensor, torch.Tensor]:
    """The box of each region by its trusted key points: the pseudo-label of Eq. (3).

    Args:
        keypoints: (B, K, 3), x, y (normalised) and trust (1 trusted, 0 not). Untrusted points are never read.
        regions: R regions.

    Returns:
        boxes (B, R, 4), in float32: the outermost trusted points of the region, ``KEYPOINT_MARGIN`` further out; they
        may exceed the image by that margin. Zeros where a region has no box.
        valid (B, R), bool: whether at least ``MIN_KEYPOINTS`` of the region's points are trusted.
    """
    members = _members(tuple(regions), keypoints.shape[1], keypoints.device)[..., None]  # (R, K, 1)
    points = keypoints[:, None].float()  # (B, 1, K, 3)
    xy, trusted = points[..., :2], (points[..., 2:] > 0) & members  # (B, R, K, 1)
    low = torch.where(trusted, xy, torch.inf).amin(dim=2) - KEYPOINT_MARGIN
    high = torch.where(trusted, xy, -torch.inf).amax(dim=2) + KEYPOINT_MARGIN
    valid = trusted.sum(dim=(2, 3)) >= MIN_KEYPOINTS
    return torch.cat((low, high), dim=2).masked_fill(~valid[..., None], 0.0), valid


@functools.lru_cache(maxsize=64)
def _members(regions: tuple[Region, ...], num_keypoints: int, device: torch.device) -> torch.Tensor:
    """(R, K), bool: which key points belong to each region.

    Made once for each device: a list of indices would be copied to the GPU at each call, and the host would wait.
    """
    members = torch.zeros(len(regions), num_keypoints, dtype=torch.bool)
    for row, region in enumerate(regions):
        members[row, list(region.keypoints)] = True
    return members.to(device)


def paired_iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Intersection over union of boxes (..., 4) with the ``others`` (..., 4) at the same index; (...) in [0, 1].

    Examples:
        >>> left, middle = torch.tensor([0.0, 0.0, 0.5, 1.0]), torch.tensor([0.25, 0.0, 0.75, 1.0])
        >>> round(paired_iou(left, middle).item(), 3)  # a third of the union is in both
        0.333
    """
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(dim=-1) for b in (boxes, others)]
    return intersection / (areas[0] + areas[1] - intersection).clamp(min=torch.finfo(boxes.dtype).tiny)
