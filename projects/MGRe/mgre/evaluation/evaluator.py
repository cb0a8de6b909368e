"""One pass over the test images gives their features, a check that these are finite, and the regions' IoU.

During the pass everything stays on the model's device, and the host waits for nothing. The results are read once, at
the end, so the GPU always has work while the loader prepares the next batch.

Legend: N test images, of which a process sees its share; B images of a batch; D numbers of a feature; R regions.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeGuard, cast

import torch
from fastreid.config import CfgNode
from fastreid.evaluation import ReidEvaluator, print_csv_format
from fastreid.evaluation.evaluator import inference_context
from fastreid.utils import comm
from torch import nn
from torch.utils.data import DataLoader

from mgre.data.unreadable import count_readable_queries
from mgre.evaluation.finite import check_features
from mgre.evaluation.placement import place
from mgre.evaluation.ranking import Ranked, noting
from mgre.geometry import boxes_from_keypoints, paired_iou
from mgre.modeling import MGRe
from mgre.regions import Region
from mgre.system.precision import amp_dtype

logger = logging.getLogger(__name__)

# Seconds between two lines of progress in the log.
SECONDS_BETWEEN_LINES = 30.0


def evaluate(
    cfg: CfgNode, model: nn.Module, loader: DataLoader[Any], evaluator: "OnePassEvaluator", name: str
) -> OrderedDict[str, Any]:
    """Evaluate the model on one test set; all processes call it.

    Args:
        cfg: TEST.FLIP, TEST.AMP and TEST.REGION_IOU are read here, the other keys of TEST by the evaluator.
        model: an MGRe, or any other of the toolbox's.
        loader: of :func:`mgre.data.build_test_loader`.
        evaluator: made with the number of query images in ``loader``.
        name: of the test set, for the log.

    Returns:
        The toolbox's metrics in %, on the main process. On all processes ``IoU/<region>`` and ``IoU/mean`` in [0, 1],
        where the model locates regions and test images have key points.

    Raises:
        DataError: an image cannot be read, with DATASETS.UNREADABLE_IMAGES stop; none can; a feature is NaN or
            infinite; or no query has a match.
    """
    network: Any = getattr(model, "module", model)  # DistributedDataParallel's wrapper is for gradients
    device = next(network.parameters()).device
    overlap = RegionIoU(network) if cfg.TEST.REGION_IOU.ENABLED and has_regions(network) else None
    logger.info("Start inference on %d images", len(cast(Sized, loader.dataset)))
    next_line = time.monotonic() + SECONDS_BETWEEN_LINES
    evaluator.reset()
    with inference_context(network), torch.no_grad(), autocast(cfg, device):
        for number, batch in enumerate(loader, start=1):
            if not batch:  # none of its images can be read
                continue
            if overlap is not None and "keypoints" in batch:
                features, boxes = network.embed_and_locate(batch)
                overlap.add(boxes, batch["keypoints"].to(device))
            else:
                features = network(batch)
            if cfg.TEST.FLIP.ENABLED:
                features = (features.float() + network(_mirror(batch)).float()) / 2
            evaluator.process(batch, features)
            if time.monotonic() >= next_line:
                logger.info("Inference: %d of %d batches", number, len(loader))
                next_line = time.monotonic() + SECONDS_BETWEEN_LINES
    evaluator.leave_out_unreadable(loader)
    metrics = evaluator.evaluate()
    figures = overlap.means() if overlap is not None else {}
    if evaluator.evaluation is not None:
        evaluator.evaluation = replace(evaluator.evaluation, name=name, overlaps=figures)
    if comm.is_main_process():
        print_csv_format(OrderedDict(metrics, dataset=name))
        if cfg.TEST.RERANK.ENABLED:
            rerank = cfg.TEST.RERANK
            logger.info("These figures are re-ranked: K1 %d, K2 %d, LAMBDA %g", rerank.K1, rerank.K2, rerank.LAMBDA)
        if figures:
            logger.info("Regions on %s: %s", name, ", ".join(f"{key} {iou:.2f}" for key, iou in figures.items()))
    return OrderedDict(metrics, **figures)


def autocast(cfg: CfgNode, device: torch.device) -> torch.autocast:
    """The autocast of inference, where TEST.AMP is on."""
    return torch.autocast(device.type, dtype=amp_dtype(cfg.TEST.AMP.DTYPE, device), enabled=cfg.TEST.AMP.ENABLED)


def _mirror(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {**batch, "images": batch["images"].flip(dims=[3])}


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation has ranked, for rank lists and reports.

    Attributes:
        query_paths, gallery_paths: image files, Q and G.
        orders: by "plain" and, where TEST.RERANK is on, "re-ranked": what was ranked, and each query's figures.
        metrics: the toolbox's metrics in %, by name, of each of the orders.
        name: of the test set.
        overlaps: ``IoU/<region>`` and ``IoU/mean``, in [0, 1], where they were measured.
    """

    query_paths: list[str]
    gallery_paths: list[str]
    orders: dict[str, Ranked]
    metrics: dict[str, dict[str, float]]
    name: str = ""
    overlaps: dict[str, float] = field(default_factory=dict)

    @property
    def final(self) -> Ranked:
        """The order that the evaluation's figures are of: re-ranked, if re-ranking is on."""
        return list(self.orders.values())[-1]


class OnePassEvaluator(ReidEvaluator):
    """The toolbox's evaluator, which keeps all features on the device until the pass is over.

    The toolbox's copies each batch to the host, which waits for it. Distances and neighbours are computed on the device
    too. Metrics and keys of TEST are the toolbox's, but for TEST.RERANK.SEARCH.

    Attributes:
        keeps: keep what is ranked, and rank without re-ranking too. It costs the memory of the features.
        evaluation: what was kept of the last evaluation, on the main process; else None.
    """

    cfg: CfgNode
    keeps = False
    evaluation: Evaluation | None = None

    def __init__(self, cfg: CfgNode, num_query: int, output_dir: str | None = None) -> None:
        """
        Args:
            cfg: the keys of TEST are read.
            num_query: number of query images, which are the first of the test images.
            output_dir: as in the toolbox, not used.
        """
        super().__init__(cfg, num_query, output_dir)
        self._listed_queries = num_query
        self.reset()

    def reset(self) -> None:
        super().reset()
        self._num_query = self._listed_queries
        self._batches: list[dict[str, torch.Tensor]] = []
        self._paths: list[str] = []
        self._device: torch.device | None = None
        self._start = time.perf_counter()

    def process(self, inputs: Mapping[str, Any], outputs: torch.Tensor) -> None:
        """Keep what one batch gives; nothing waits for the device.

        Args:
            inputs: the loader's batch: "targets" (B,), "camids" (B,), "img_paths".
            outputs: features (B, D) of any floating type; they are kept in float32.
        """
        features, self._device = outputs.float(), outputs.device
        finite = features.isfinite().all(dim=1)
        self._batches.append(
            {"feats": features, "finite": finite, "pids": inputs["targets"], "camids": inputs["camids"]}
        )
        self._paths += inputs["img_paths"]

    def leave_out_unreadable(self, loader: DataLoader[Any]) -> None:
        """After the pass: warn of the images that ``loader`` has left out, and count the queries without them.

        Raises:
            DataError: no query image can be read, or no gallery image.
        """
        self._num_query = count_readable_queries(loader.dataset, self._listed_queries)

    def evaluate(self) -> dict[str, float]:
        """The toolbox's metrics in %, on the main process; elsewhere an empty dict.

        Raises:
            DataError: a feature is NaN or infinite, or no query has a match.
        """
        kept, self._batches = self._batches, []
        if kept:  # empty on a process that got no images
            # The host waits for the device here and in RegionIoU.means, once an evaluation.
            prediction = {key: torch.cat([batch[key] for batch in kept]) for key in kept[0]}
            del kept
            # The features of one process stay on their device. Those of several are gathered on the host.
            stay = {"feats"} if comm.get_world_size() == 1 else set()
            prediction = {key: value if key in stay else value.cpu() for key, value in prediction.items()}
            seconds = time.perf_counter() - self._start
            logger.info("Inference took %.1f s, %.1f images/s", seconds, len(self._paths) / seconds)
            check_features(prediction.pop("finite"), self._paths)
            self._predictions = [prediction]
        with place(self._device, self.cfg.TEST.RERANK.SEARCH):
            metrics = self._rank_and_keep() if self.keeps else super().evaluate()
        self.reset()
        return metrics

    def _rank_and_keep(self) -> dict[str, float]:
        """The metrics of ``evaluate``, which sets ``evaluation``."""
        whole: CfgNode = self.cfg
        plain = whole.clone()
        plain.defrost()
        plain.TEST.RERANK.ENABLED = False
        metrics: dict[str, dict[str, float]] = {}
        with noting() as ranked:
            try:
                for name, cfg in {"plain": plain, "re-ranked": whole}.items():
                    if name == "plain" or whole.TEST.RERANK.ENABLED:
                        self.cfg = cfg
                        metrics[name] = super().evaluate()
            finally:
                self.cfg = whole
        paths = list(chain(*comm.gather(self._paths, dst=0)))
        self.evaluation = None
        if comm.is_main_process():
            query, gallery = paths[: self._num_query], paths[self._num_query :]
            self.evaluation = Evaluation(query, gallery, dict(zip(metrics, ranked, strict=True)), metrics)
        return list(metrics.values())[-1]


def has_regions(model: nn.Module) -> TypeGuard[MGRe]:
    """Whether the model is an MGRe that locates regions."""
    return isinstance(model, MGRe) and bool(model.location)


class RegionIoU:
    """Mean IoU of the predicted boxes with the key points' boxes, summed on the model's device.

    A region's mean is over the images whose key points give it a box.
    """

    def __init__(self, model: MGRe) -> None:
        """
        Args:
            model: one that :func:`has_regions`.
        """
        self.regions: list[Region] = [region for members in model.regions.values() for region in members]
        # Sums of IoU, and the numbers of images in them, by region.
        self._totals = torch.zeros(2, len(self.regions), dtype=torch.float64, device=model.device)

    def add(self, boxes: Mapping[str, torch.Tensor], keypoints: torch.Tensor) -> None:
        """Add a batch.

        Args:
            boxes: predicted, (B, 4), (x_min, y_min, x_max, y_max), normalised, by the region's name.
            keypoints: (B, 17, 3), x, y, trust, normalised, on the model's device.
        """
        targets, valid = boxes_from_keypoints(keypoints, self.regions)
        iou = paired_iou(torch.stack([boxes[region.name] for region in self.regions], dim=1), targets)
        self._totals += torch.stack((iou.masked_fill(~valid, 0).sum(dim=0), valid.sum(dim=0)))

    def means(self) -> dict[str, float]:
        """``IoU/<region>`` of the regions that occur and ``IoU/mean`` over them, in [0, 1]; all processes call it."""
        sums, counts = sum(comm.all_gather(self._totals.cpu())).tolist()
        figures = {
            f"IoU/{region.name}": total / count
            for region, total, count in zip(self.regions, sums, counts, strict=True)
            if count
        }
        return figures | ({"IoU/mean": sum(figures.values()) / len(figures)} if figures else {})
