"""Mean IoU of the predicted regions with the key points' boxes."""

import torch
from fastreid.evaluation.evaluator import inference_context
from fastreid.utils import comm
from torch import nn
from torch.utils.data import DataLoader

from mgre.geometry import boxes_from_keypoints, paired_iou
from mgre.modeling import MGRe


def has_regions(model: nn.Module) -> bool:
    """Whether the model, or the one DistributedDataParallel wraps, is an MGRe that locates regions."""
    model = getattr(model, "module", model)
    return isinstance(model, MGRe) and bool(model.location)


@torch.no_grad()
def evaluate_regions(model: nn.Module, loader: DataLoader) -> dict[str, float]:
    """``IoU/<region>`` for each region and ``IoU/mean`` over them, in [0, 1]; collective over all processes.

    Args:
        model: one that :func:`has_regions`.
        loader: batches with "keypoints", as of :func:`mgre.data.build_test_loader`.

    Returns:
        The mean of a region is over the images whose key points give it a box; a region without any is left out.
    """
    model = getattr(model, "module", model)
    regions = [r for members in model.regions.values() for r in members]
    total = torch.zeros(len(regions), dtype=torch.float64)
    count = torch.zeros(len(regions), dtype=torch.float64)
    with inference_context(model):
        for batch in loader:
            targets, valid = boxes_from_keypoints(batch["keypoints"].to(model.device), regions)
            predicted = model.predict_boxes(batch)
            iou = paired_iou(torch.stack([predicted[r.name] for r in regions], dim=1), targets)
            total += iou.masked_fill(~valid, 0).sum(dim=0).double().cpu()
            count += valid.sum(dim=0).cpu()
    gathered = comm.all_gather((total, count))  # each process sees its share of the images
    total, count = (sum(parts) for parts in zip(*gathered, strict=True))
    figures = {f"IoU/{r.name}": (t / c).item() for r, t, c in zip(regions, total, count, strict=True) if c}
    return figures | ({"IoU/mean": sum(figures.values()) / len(figures)} if figures else {})
