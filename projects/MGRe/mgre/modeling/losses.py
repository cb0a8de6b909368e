"""Location loss, Eq. (3), and losses of one's own. The identification and triplet losses are the toolbox's."""

import torch
import torch.distributed as dist
from fastreid.config import CfgNode
from fastreid.utils import comm
from fvcore.common.registry import Registry
from torch import nn

from mgre.errors import ConfigError

# Classes or functions that make a loss, by the names that MODEL.LOSSES.NAME takes beside the toolbox's. They are called
# with the config and dim=D. A loss is a module: the heads' output dict of a batch and its identities (B,) to a scalar.
LOSS_REGISTRY = Registry("LOSSES")
# The modules of MGRe and of a Baseline that hold such losses.
LOSS_MODULES = ("stage_losses", "registered_losses")
# The toolbox's losses. It has no registry for them.
TOOLBOX_LOSSES = ("CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface")


def build_losses(cfg: CfgNode, *, pooled_dim: int) -> nn.ModuleDict:
    """The losses of MODEL.LOSSES.NAME that are registered here, by name.

    Args:
        pooled_dim: of the pooled vectors that go into the head.
    """
    heads = cfg.MODEL.HEADS
    # The toolbox's losses compare the vectors before all layers of the neck, or after them.
    dim = pooled_dim if heads.NECK_FEAT == "before" else heads.EMBEDDING_DIM or pooled_dim
    names = [name for name in cfg.MODEL.LOSSES.NAME if name in LOSS_REGISTRY]
    return nn.ModuleDict({name: LOSS_REGISTRY.get(name)(cfg, dim=dim) for name in names})


def registered_losses(
    losses: nn.Module, outputs: dict[str, torch.Tensor], targets: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The value of each loss, by the name it has in the log.

    Args:
        losses: a ModuleDict of :func:`build_losses`.
        outputs: what a head of the toolbox gives in training: "features" (B, D), the vectors that are compared;
            "cls_outputs" and "pred_class_logits" (B, number of identities), with and without the margin of the
            classifier.
        targets: (B,) identities.

    Raises:
        ConfigError: a loss gives more than one number.
    """
    values = {name: loss(outputs, targets) for name, loss in losses.named_children()}
    for name, value in values.items():
        if value.dim():
            raise ConfigError(
                f"loss '{name}' of MODEL.LOSSES.NAME gives a tensor {tuple(value.shape)}; allowed: a scalar"
            )
    return {f"loss_{name}": value for name, value in values.items()}


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
