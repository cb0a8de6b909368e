"""Class activation maps of the four stages and of the final feature (Fig. 4), through captum's Grad-CAM.

A retrieval model has no class to explain. The target here is the similarity of a feature with that of another image of
the same identity, ``f . r / (|f| |r|)``, in which ``r`` and both norms are held constant. So the other image's feature
is what the weights of a class are to a classifier, and a map says where the similarity comes from: where only pooling
and linear layers follow the map, its values add up to the similarity. (Were ``|f|`` left to vary they would add up to
0 there, as a cosine does not change with the length of a feature: about half of every map would be cut off.)

- A stage with a feature of its own is explained by it: f_i on F_i.
- A stage without one, as in a Baseline, is explained by the last: f_4 on C_i.
- The similarity of final features, Eq. (6), is the sum of ``l_i^2`` times that of f_i, over a constant. So the final
  map is that sum of the maps of the stages with features, each as a density over the image. A Baseline's final feature
  is f_4, and its final map that of stage 4.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.evaluation.evaluator import inference_context
from fastreid.modeling.meta_arch.baseline import Baseline
from torch import nn
from torch.utils.data import default_collate
from tqdm import tqdm

from mgre.data import build_test_loader
from mgre.engine.load_model import load_model
from mgre.errors import ConfigError, DataError, SetupError
from mgre.modeling.backbone import STAGES, MGReBackbone, StagedBackbone, stage_outputs
from mgre.visualization import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

LAST, FINAL = STAGES[-1], "final"

Batch = Mapping[str, Any]


def stage_cams(model: nn.Module, batch: Batch, reference: Batch) -> dict[str, torch.Tensor]:
    """Grad-CAM of each stage: the sum of its map's channels, each times the mean gradient of the similarity to it.

    Args:
        model: an MGRe or the toolbox's Baseline.
        batch: "images" (B, 3, H, W), RGB, 0 to 255, and whatever else the model's forward reads.
        reference: the same of other images of the same identities, pair by pair.

    Returns:
        By stage, (B, H_i, W_i); below 0 where the image takes from the similarity.

    Raises:
        ConfigError: the model has no four stages, or not one head.
        SetupError: captum is not installed.
    """
    grad_cam = _import_grad_cam()
    modules = _stage_modules(model)
    with inference_context(model), _hooks(model) as (features, taps):
        with torch.no_grad():
            model(reference)
        # What MGRe's modules read is F_i, which its backbone hands out; before it, there is only C_i.
        layers = modules | {stage: tap for stage, tap in taps.items() if stage in features}
        targets = {stage: F.normalize(feature, dim=1) for stage, feature in features.items()}

        def similarity(images: torch.Tensor, stage: str) -> torch.Tensor:
            model({**batch, "images": images})
            feature = features[stage]
            return (feature * targets[stage]).sum(dim=1) / feature.detach().norm(dim=1)

        cams = {}
        for stage, layer in layers.items():
            explained = stage if stage in targets else LAST
            cam = grad_cam(similarity, layer).attribute(batch["images"], additional_forward_args=explained)
            cams[stage] = cam.detach().squeeze(dim=1)
    return cams


def activation_maps(model: nn.Module, batch: Batch, reference: Batch) -> dict[str, torch.Tensor]:
    """The maps of Fig. 4, upsampled to the images; see :func:`stage_cams` for arguments and errors.

    Returns:
        "stage1" to "stage4" and "final", each (B, H, W): what is negative is 0, and an image's maximum is 1. A map that
        has nothing positive stays 0.
    """
    size = batch["images"].shape[-2:]
    cams = stage_cams(model, batch, reference)
    upsampled = {
        stage: F.interpolate(cam[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
        for stage, cam in cams.items()
    }
    # A value is its cell's share of the similarity. Times the number of cells, it no longer depends on their size.
    weights = {stage: weight**2 * cams[stage][0].numel() for stage, weight in _feature_weights(model).items()}
    upsampled[FINAL] = reduce(add, (weight * upsampled[stage] for stage, weight in weights.items()))
    return {name: _normalize(cam.clamp(min=0)) for name, cam in upsampled.items()}


def activation_sheet(
    maps: Mapping[str, Mapping[str, torch.Tensor]], image: torch.Tensor, reference: torch.Tensor
) -> "Figure":
    """One identity's picture: the models' maps over its image, a row for each model.

    Args:
        maps: by model, then as of :func:`activation_maps`, each (H, W).
        image: (3, H, W), RGB, 0 to 255.
        reference: the other image, likewise.

    Raises:
        SetupError: matplotlib is not installed.
    """
    columns = ["image", "same identity", *next(iter(maps.values()))]
    figure = new_figure(figsize=(1.1 * len(columns), 2.2 * len(maps) + 0.3))
    axes = figure.subplots(len(maps), len(columns), squeeze=False)
    photo, other = (_to_pixels(picture) for picture in (image, reference))
    for row, (name, maps_of_model) in zip(axes, maps.items(), strict=True):
        row[0].set_ylabel(name)
        row[0].imshow(photo)
        row[1].imshow(other)
        for axis, cam in zip(row[2:], maps_of_model.values(), strict=True):
            axis.imshow(photo)
            axis.imshow(cam.cpu().numpy(), cmap="jet", vmin=0, vmax=1, alpha=0.5)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title.replace("stage", "stage "), fontsize="small")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def save_figure4(cfgs: Mapping[str, CfgNode], folder: Path, *, num_identities: int = 8) -> list[Path]:
    """Write one picture for each identity, ``figure4_<identity>.png``, with a row for each model.

    The identities are picked at even spacing from the test set of the first config; each one's first query image is
    explained by its first gallery image of another camera.

    Args:
        cfgs: by the model's name; MODEL.WEIGHTS is its checkpoint.
        folder: made if need be.
        num_identities: fewer where the test set has fewer.

    Returns:
        The paths of the pictures.

    Raises:
        ConfigError: a config names no checkpoint, or they differ in INPUT.SIZE_TEST.
        DataError: no identity has a query and a gallery image of two cameras; or see ``build_test_loader``.
        SetupError: captum is not installed.
        WeightsError: a checkpoint is of another architecture.
    """
    _import_grad_cam()
    _check_configs(cfgs)
    first = next(iter(cfgs.values()))
    loader, num_query = build_test_loader(first, first.DATASETS.TESTS[0])
    test_set: Any = loader.dataset
    pairs = _pick_pairs(test_set.img_items, num_query, num_identities)
    if not pairs:
        raise DataError(
            f"the test set {first.DATASETS.TESTS[0]} has no identity with a query image and a gallery image of another "
            "camera, which Figure 4 compares: take another set with DATASETS.TESTS"
        )
    models = {name: load_model(cfg).eval() for name, cfg in cfgs.items()}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for query, gallery in tqdm(pairs, desc="activation maps", unit="identity", disable=None):
        samples = test_set[query], test_set[gallery]
        if None in samples:
            logger.warning("Identity %s has no picture: one of its images cannot be read", test_set.img_items[query][1])
            continue
        batch, reference = (default_collate([sample]) for sample in samples)
        maps = {
            name: {key: cam[0] for key, cam in activation_maps(model, batch, reference).items()}
            for name, model in models.items()
        }
        paths.append(folder / f"figure4_{test_set.img_items[query][1]}.png")
        activation_sheet(maps, batch["images"][0], reference["images"][0]).savefig(paths[-1], dpi=150)
    return paths


def _import_grad_cam() -> type:
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise SetupError("activation maps need the package captum: pip install 'captum>=0.9'") from error
    return LayerGradCam


@contextmanager
def _hooks(model: Baseline) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, nn.Module]]]:
    """Inside, the features that the heads gave last, by stage, and the modules through which the maps F_i pass.

    captum takes modules whose output is one tensor, which MGRe's backbone is not. A toolbox's Baseline has no F_i.
    """
    features: dict[str, torch.Tensor] = {}
    taps: dict[str, nn.Module] = (
        {stage: nn.Identity() for stage in STAGES} if isinstance(model.backbone, MGReBackbone) else {}
    )

    def keep(heads: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor | dict[str, torch.Tensor]) -> None:
        features.update(output if isinstance(output, dict) else {LAST: output})

    def pass_through(
        backbone: nn.Module, inputs: tuple[Any, ...], maps: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        return {stage: taps[stage](feature_map) for stage, feature_map in maps.items()}

    handles = [model.heads.register_forward_hook(keep)]
    if taps:
        handles.append(model.backbone.register_forward_hook(pass_through))
    try:
        yield features, taps
    finally:
        for handle in handles:
            handle.remove()


def _stage_modules(model: Baseline) -> dict[str, nn.Module]:
    """The module whose output is C_i, by stage."""
    name = type(model).__name__
    if not (hasattr(model, "backbone") and hasattr(model, "heads")):
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE {name} has not one backbone and one head, from which activation maps are taken; "
            "use MGRe or Baseline"
        )
    backbone: Any = model.backbone.staged if isinstance(model.backbone, MGReBackbone) else model.backbone
    if isinstance(backbone, StagedBackbone):
        backbone = backbone.bottom_up
    if hasattr(backbone, "stage_modules"):
        return backbone.stage_modules()
    if hasattr(backbone, "maps"):
        raise ConfigError(
            f"backbone {type(backbone).__name__} has no stage_modules(), from which activation maps are taken: give it "
            "this method, as in docs/extending.md"
        )
    return dict(zip(STAGES, stage_outputs(backbone, type(backbone).__name__), strict=True))


def _feature_weights(model: Baseline) -> dict[str, float]:
    """l_i of Eq. (6) of the stages that have a feature."""
    if not isinstance(model.backbone, MGReBackbone):
        return {LAST: 1.0}
    return {stage: model.stage_weights[stage] for stage in model.heads.embeddings}


def _normalize(maps: torch.Tensor) -> torch.Tensor:
    peaks = maps.amax(dim=(1, 2), keepdim=True)
    return maps / peaks.where(peaks > 0, 1)


def _to_pixels(image: torch.Tensor) -> np.ndarray:
    return image.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _check_configs(cfgs: Mapping[str, CfgNode]) -> None:
    sizes = {name: tuple(cfg.INPUT.SIZE_TEST) for name, cfg in cfgs.items()}
    if len(set(sizes.values())) > 1:
        raise ConfigError(f"Figure 4 shows all models one image, but they differ in INPUT.SIZE_TEST: {sizes}")
    for name, cfg in cfgs.items():
        if not cfg.MODEL.WEIGHTS:
            raise ConfigError(f"Figure 4 needs a checkpoint of {name}: set MODEL.WEIGHTS path/to/model_final.pth")


def _pick_pairs(items: Sequence[tuple[str, Any, Any]], num_query: int, num_identities: int) -> list[tuple[int, int]]:
    """Indices of an identity's first query image and its first gallery image of another camera, for some identities."""
    queries: dict[Any, int] = {}
    for index, (_, identity, _) in enumerate(items[:num_query]):
        queries.setdefault(identity, index)
    pairs: dict[Any, tuple[int, int]] = {}
    for index, (_, identity, camera) in enumerate(items[num_query:], start=num_query):
        if identity in queries and identity not in pairs and camera != items[queries[identity]][2]:
            pairs[identity] = (queries[identity], index)
    found = [pairs[identity] for identity in sorted(pairs)]
    picked = torch.linspace(0, len(found) - 1, min(num_identities, len(found))).long()
    return [found[i] for i in picked]
