"""MGRe: the meta-architecture that wires the parts."""

import functools
from typing import Any

import torch
from fastreid.config import CfgNode, configurable
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baseline import Baseline
from fastreid.utils.events import get_event_storage
from torch import nn

from mgre.errors import DataError
from mgre.geometry import boxes_from_keypoints, paired_iou
from mgre.modeling.feature_extraction import FeatureExtractionModule
from mgre.modeling.final_feature import final_feature
from mgre.modeling.location import LocationModule
from mgre.modeling.losses import build_losses, location_loss, registered_losses
from mgre.modeling.sampling import SamplingModule
from mgre.regions import Region, count_maps, get_regions, prior_boxes, source_maps
from mgre.system.scalars import log_mean


@functools.lru_cache(maxsize=64)
def _prior_boxes(regions: tuple[Region, ...], device: torch.device) -> torch.Tensor:
    """(R, 4) prior boxes. Made once for each device, because the host waits for the copy to a GPU."""
    return torch.tensor(prior_boxes(regions), device=device)


@META_ARCH_REGISTRY.register()
class MGRe(Baseline):
    """Features of several granularities from regions of several granularities.

    Stages 1 to 3 locate their regions, sample them from their map and embed them; stage 4 embeds the whole image. All
    dicts by stage have the keys "stage1" to "stage4", those that are built, in this order.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        location: dict[str, LocationModule],
        sampling: dict[str, SamplingModule],
        extraction: dict[str, FeatureExtractionModule],
        heads: nn.Module,
        regions: dict[str, tuple[Region, ...]],
        sources: dict[str, str],
        boxes_from: str,
        stage_weights: dict[str, float],
        stage_loss_weight: float,
        location_loss_weight: float,
        stage_losses: dict[str, nn.ModuleDict],
        **baseline: Any,
    ) -> None:
        """
        Args:
            backbone: images to the maps F_i (B, C_i, H_i, W_i), by stage.
            location: F_i to boxes, for the stages with regions; none where boxes are given.
            sampling: F_i and boxes to the regions' maps, for the stages whose regions are embedded.
            extraction: the regions' maps to maps of the same shape, for these stages and stage 4.
            heads: these maps to features, for the same stages.
            regions: the regions of the stages that have some.
            sources: the map that each stage reads, by stage.
            boxes_from: "location", or where boxes that are given come from: the batch's "keypoints", or the regions'
                "prior".
            stage_weights: lambda_i^F of Eq. (6).
            stage_loss_weight: lambda of Eq. (9).
            location_loss_weight: weight of Eq. (3) in a stage's loss; 0 needs no key points.
            stage_losses: registered losses (:func:`build_losses`), by stage.
            baseline: pixel_mean, pixel_std and loss_kwargs of the toolbox's Baseline.
        """
        super().__init__(backbone=backbone, heads=heads, **baseline)
        self.location = nn.ModuleDict(location)
        self.sampling = nn.ModuleDict(sampling)
        self.extraction = nn.ModuleDict(extraction)
        self.regions = regions
        self.sources = sources
        self.boxes_from = boxes_from
        self.stage_weights = stage_weights
        self.stage_loss_weight = stage_loss_weight
        self.location_loss_weight = location_loss_weight
        self.stage_losses = nn.ModuleDict(stage_losses)
        if not location_loss_weight and not any(module.reid_gradient for module in sampling.values()):
            # No loss reaches the location modules. Weight decay would still move their boxes off the priors.
            self.location.requires_grad_(False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        mgre, norm = cfg.MODEL.MGRE, cfg.MODEL.BACKBONE.NORM
        regions = get_regions(mgre.REGIONS, mgre.STAGES)
        sources = source_maps(mgre.STAGES, mgre.SOURCE_BLOCKS)
        embedded = regions if mgre.REGION_FEATURES else {}
        arguments = super().from_config(cfg)
        channels = arguments["backbone"].channels
        return arguments | {
            "location": {
                stage: LocationModule(
                    in_channels=channels[sources[stage]],
                    regions=r,
                    conv_channels=mgre.LOCATION.CONV_CHANNELS,
                    pool_size=tuple(mgre.LOCATION.POOL_SIZE),
                    hidden_dim=mgre.LOCATION.HIDDEN_DIM,
                    norm=norm,
                )
                for stage, r in (regions if mgre.BOXES == "location" else {}).items()
            },
            "sampling": {
                stage: SamplingModule(regions=r, reid_gradient=mgre.LOCATION.REID_GRADIENT)
                for stage, r in embedded.items()
            },
            "extraction": {
                stage: FeatureExtractionModule(channels=channels[sources[stage]], num_regions=number, norm=norm)
                if mgre.EXTRACTION
                else nn.Identity()
                for stage, number in count_maps(embedded).items()
            },
            "regions": regions,
            "sources": sources,
            "boxes_from": mgre.BOXES,
            "stage_weights": {f"stage{i}": weight for i, weight in enumerate(mgre.STAGE_WEIGHTS, start=1)},
            "stage_loss_weight": mgre.LAMBDA,
            "location_loss_weight": mgre.LOCATION.LOSS_WEIGHT,
            "stage_losses": {
                stage: build_losses(cfg, pooled_dim=number * channels[sources[stage]])
                for stage, number in count_maps(embedded).items()
            },
        }

    def forward(self, batched_inputs: dict[str, Any]) -> torch.Tensor | dict[str, torch.Tensor]:
        """
        Args:
            batched_inputs: the toolbox's batch: "images" (B, 3, H, W), RGB, 0 to 255; in training also "targets" (B,),
                the identities, and "keypoints" (B, 17, 3): x, y, trust, normalised, for the location loss if it is on.
                Boxes from the key points need these in evaluation too.

        Returns:
            In evaluation the final feature of Eq. (6), (B, sum of D_i). In training the loss dict; its sum is Eq. (9).

        Raises:
            DataError: key points are needed and the batch has none.
        """
        # Regions that are not embedded are there for training alone.
        stages = tuple(self.regions) if self.training else tuple(self.sampling)
        images, given = self.preprocess_image(batched_inputs), self._given_boxes(batched_inputs, stages)
        if not self.training:
            return self.network(images, stages, given)[1]
        # The toolbox's precise batch norm may pass targets of -1. Its pass ignores the losses, so identity 0 stands in.
        targets = batched_inputs["targets"].to(self.device).clamp(min=0)
        boxes, outputs = self.network(images, stages, given, targets)
        return self._reid_losses(outputs, targets) | self._location_losses(boxes, batched_inputs)

    def network(
        self,
        images: torch.Tensor,
        stages: tuple[str, ...],
        given: dict[str, torch.Tensor] | None = None,
        targets: torch.Tensor | None = None,
    ) -> tuple[dict[str, torch.Tensor], Any]:
        """From images to features: what MODEL.COMPILE compiles.

        Args:
            images: (B, 3, H, W), normalised by mean and standard deviation.
            stages: the stages whose regions are located.
            given: (B, R, 4) boxes of each of the ``stages``, normalised; None: they are predicted.
            targets: (B,) identities, in training.

        Returns:
            The boxes (B, R, 4), normalised, by stage. In evaluation the final feature of Eq. (6), in training what the
            heads give each stage's losses.
        """
        boxes, extracted = self._extract(images, stages, given)
        outputs = self.heads(extracted, targets)
        return boxes, outputs if self.training else final_feature(outputs, self.stage_weights)

    def _extract(
        self, images: torch.Tensor, stages: tuple[str, ...], given: dict[str, torch.Tensor] | None
    ) -> tuple[dict[str, torch.Tensor], dict[str, list[torch.Tensor]]]:
        """From images to the regions' maps, each by stage; see :meth:`network`."""
        maps = self.backbone(images, [self.sources[stage] for stage in stages])
        boxes = given or {stage: self.location[stage](maps[self.sources[stage]]) for stage in stages}  # Eq. (1)-(2)
        samples = {stage: module(maps[self.sources[stage]], boxes[stage]) for stage, module in self.sampling.items()}
        samples["stage4"] = [maps["stage4"]]
        return boxes, {stage: self.extraction[stage](samples[stage]) for stage in samples}

    @torch.no_grad()
    def predict_boxes(self, batched_inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The box of each region: (B, 4), (x_min, y_min, x_max, y_max), normalised, by the region's name."""
        stages = tuple(self.regions)
        boxes = self._given_boxes(batched_inputs, stages)
        if boxes is None:
            maps = self.backbone(self.preprocess_image(batched_inputs))
            boxes = {stage: self.location[stage](maps[self.sources[stage]]) for stage in stages}
        return self._by_region(boxes)

    @torch.no_grad()
    def embed_and_locate(self, batched_inputs: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The features of :meth:`forward` and the boxes of :meth:`predict_boxes`, from one forward pass.

        The model has to be in evaluation mode. With REGION_FEATURES False this locates regions that :meth:`forward`
        passes over.
        """
        stages = tuple(self.regions)
        given = self._given_boxes(batched_inputs, stages)
        boxes, features = self.network(self.preprocess_image(batched_inputs), stages, given)
        return features, self._by_region(boxes)

    @torch.no_grad()
    def explain(
        self, batched_inputs: dict[str, Any]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """What the features of :meth:`forward` are made of. The model has to be in evaluation mode.

        Returns:
            The features (B, D); the boxes (B, 4) by region, see :meth:`predict_boxes`; and by stage the vectors of its
            regions and its constant (B, R_i + 1, D_i), which add up to f_i of Eq. (6).
        """
        stages = tuple(self.regions)
        given = self._given_boxes(batched_inputs, stages)
        boxes, extracted = self._extract(self.preprocess_image(batched_inputs), stages, given)
        features = final_feature(self.heads(extracted), self.stage_weights)
        return features, self._by_region(boxes), self.heads.terms(extracted)

    def _by_region(self, boxes: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {r.name: boxes[stage][:, i] for stage, rs in self.regions.items() for i, r in enumerate(rs)}

    def _given_boxes(self, batched_inputs: dict[str, Any], stages: tuple[str, ...]) -> dict[str, torch.Tensor] | None:
        """(B, R, 4) by stage: the priors, or the key points' boxes and the priors of regions that have none."""
        if self.boxes_from == "location":
            return None
        # What is made while a model is exported is a part of the graph, which later calls must not be given.
        make = _prior_boxes.__wrapped__ if torch.compiler.is_exporting() else _prior_boxes
        priors = {stage: make(self.regions[stage], self.device) for stage in stages}
        if self.boxes_from == "prior":
            num_images = batched_inputs["images"].shape[0]  # len() would fix the batch of an exported model
            # Real copies: a compiled network would be compiled anew for a batch that is no view of one set of boxes.
            return {stage: boxes.expand(num_images, -1, -1).contiguous() for stage, boxes in priors.items()}
        keypoints = self._keypoints(batched_inputs)
        given = {stage: boxes_from_keypoints(keypoints, self.regions[stage]) for stage in stages}
        return {stage: torch.where(valid[..., None], boxes, priors[stage]) for stage, (boxes, valid) in given.items()}

    def _keypoints(self, batched_inputs: dict[str, Any]) -> torch.Tensor:
        if "keypoints" not in batched_inputs:
            raise DataError(
                "the batch has no 'keypoints', which the location loss and MODEL.MGRE.BOXES keypoints need: train and "
                "evaluate through tools/train_net.py or the loaders of mgre.data, or set "
                "MODEL.MGRE.LOCATION.LOSS_WEIGHT 0 and another MODEL.MGRE.BOXES"
            )
        return batched_inputs["keypoints"].to(self.device)

    def _reid_losses(self, outputs: dict[str, dict[str, Any]], targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """The losses of MODEL.LOSSES.NAME for each stage, weighted by Eq. (9)."""
        losses: dict[str, torch.Tensor] = {}
        for stage, output in outputs.items():
            # Distances of half precision are differences of large numbers: too coarse to find the hardest example.
            with get_event_storage().name_scope(stage), torch.autocast(self.device.type, enabled=False):
                output = {name: value.float() for name, value in output.items()}
                values = self.losses(output, targets) | registered_losses(self.stage_losses[stage], output, targets)
            losses |= {f"{name}_{stage}": self._weight(stage) * loss for name, loss in values.items()}
        return losses

    def _location_losses(
        self, boxes: dict[str, torch.Tensor], batched_inputs: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        """Eq. (3) of each stage with regions, weighted by Eq. (9); logs each region's mean IoU."""
        if not self.location_loss_weight or not self.location:
            return {}
        keypoints = self._keypoints(batched_inputs)
        losses = {}
        for stage, predicted in boxes.items():
            targets, valid = boxes_from_keypoints(keypoints, self.regions[stage])
            weight = self._weight(stage) * self.location_loss_weight
            losses[f"loss_location_{stage}"] = weight * location_loss(predicted, targets, valid)
            self._log_overlap(stage, paired_iou(predicted.detach(), targets), valid)
        return losses

    def _log_overlap(self, stage: str, iou: torch.Tensor, valid: torch.Tensor) -> None:
        """Log the mean of ``iou`` (B, R) over the ``valid`` (B, R) images of each region."""
        totals, counts = iou.masked_fill(~valid, 0.0).sum(dim=0), valid.sum(dim=0)
        for region, total, count in zip(self.regions[stage], totals, counts, strict=True):
            log_mean(f"train_iou/{region.name}", total, count)

    def _weight(self, stage: str) -> float:
        return 1.0 if stage == "stage4" else self.stage_loss_weight
