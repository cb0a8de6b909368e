"""Boxes and key points: pure functions.

Legend: B images, R regions, K = 17 key points. Everything is normalised to [0, 1] by the image's width and
height, x to the right, y down. Points are (x, y), boxes are (x_min, y_min, x_max, y_max).
"""

from collections.abc import Sequence

import torch

from mgre.regions import Region

# Eq. (3): a region's box exceeds its outermost key points by this much on each side.
KEYPOINT_MARGIN = 0.05
# A single point says where a region is, but not how large it is.
MIN_KEYPOINTS = 2


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
    boxes, valid = [], []
    for region in regions:
        points = keypoints[:, list(region.keypoints)].float()
        xy, trusted = points[..., :2], points[..., 2:] > 0
        low = xy.masked_fill(~trusted, torch.inf).amin(dim=1) - KEYPOINT_MARGIN
        high = xy.masked_fill(~trusted, -torch.inf).amax(dim=1) + KEYPOINT_MARGIN
        enough = trusted.sum(dim=(1, 2)) >= MIN_KEYPOINTS
        boxes.append(torch.cat((low, high), dim=1).masked_fill(~enough[:, None], 0.0))
        valid.append(enough)
    return torch.stack(boxes, dim=1), torch.stack(valid, dim=1)


def paired_iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Intersection over union of boxes (..., 4) with the ``others`` (..., 4) at the same index; (...) in [0, 1]."""
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(dim=-1) for b in (boxes, others)]
    return intersection / (areas[0] + areas[1] - intersection).clamp(min=torch.finfo(boxes.dtype).tiny)
