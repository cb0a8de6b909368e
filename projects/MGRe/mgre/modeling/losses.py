"""Location loss, Eq. (3). The identification and triplet losses are the toolbox's."""

import torch
import torch.distributed as dist
from fastreid.utils import comm


def location_loss(boxes: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Squared distance of the four sides, summed over a stage's regions, averaged over a region's valid images.

    Several processes average over the valid images of all of them: the mean of their losses, and of the gradients,
    which DistributedDataParallel takes, are then those of one process with all images.

    Args:
        boxes: (B, R, 4) predicted boxes, normalised.
        targets: (B, R, 4) boxes of the key points (:func:`mgre.geometry.boxes_from_keypoints`).
        valid: (B, R), bool: which targets exist.

    Returns:
        A scalar; exactly 0, with zero gradients, when nothing is valid.
    """
    squared = (boxes - targets).square().sum(dim=-1).masked_fill(~valid, 0.0)
    counts = valid.sum(dim=0)
    world_size = comm.get_world_size()
    if world_size > 1:
        dist.all_reduce(counts)
    return (squared.sum(dim=0) * world_size / counts.clamp(min=1)).sum()
