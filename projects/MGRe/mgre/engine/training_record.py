"""The record of a model in training, for its checkpoints."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping

import torch
from fastreid.config import CfgNode

from mgre.record import ModelRecord
from mgre.regions import get_regions
from mgre.version import VERSION

# Keys that hold paths of the machine that trains.
_PATHS = ("OUTPUT_DIR", "MODEL.WEIGHTS", "MODEL.BACKBONE.PRETRAIN_PATH", "DATASETS.CUSTOM.ROOT")
# What no later config can tell.
_OF_TRAINING = ("trained_on", "figures", "calibration", "versions", "licence")


def make_record(cfg: CfgNode, figures: Mapping[str, float]) -> ModelRecord:
    """The record of the config's model.

    Args:
        cfg: of the training.
        figures: of the last evaluation, by name.
    """
    size, crop = cfg.INPUT.SIZE_TEST, cfg.INPUT.CROP
    return ModelRecord(
        architecture=cfg.MODEL.META_ARCHITECTURE,
        input_size=tuple(size),
        center_crop=_pair(crop.SIZE) if crop.ENABLED else None,
        pixel_mean=tuple(cfg.MODEL.PIXEL_MEAN),
        pixel_std=tuple(cfg.MODEL.PIXEL_STD),
        config=config_text(cfg),
        regions=_regions(cfg),
        stage_weights={f"stage{i}": float(w) for i, w in enumerate(cfg.MODEL.MGRE.STAGE_WEIGHTS, start=1)},
        trained_on=list(cfg.DATASETS.NAMES),
        figures=dict(figures),
        versions={"mgre": VERSION, "torch": torch.__version__, "fastreid": _toolbox_version()},
        licence="not stated; weights are bound by the terms of the images they were trained on",
    )


def renew_record(cfg: CfgNode, known: ModelRecord | None) -> ModelRecord:
    """The record of the config's model, whose weights are from a file.

    Args:
        cfg: under which the weights are used.
        known: the file's own record, from which is what only the training could know; None where it has none.
    """
    made = make_record(cfg, {})
    if known is None:
        return dataclasses.replace(made, versions={})  # those of the training are not known
    return dataclasses.replace(made, **{name: getattr(known, name) for name in _OF_TRAINING})


def _regions(cfg: CfgNode) -> dict[str, list[str]]:
    mgre = cfg.MODEL.MGRE
    if cfg.MODEL.META_ARCHITECTURE != "MGRe":
        return {}
    regions = get_regions(mgre.REGIONS, mgre.STAGES) if mgre.REGION_FEATURES else {}
    return {stage: [r.name for r in members] for stage, members in regions.items()} | {"stage4": ["whole_image"]}


def config_text(cfg: CfgNode) -> str:
    """The config as YAML, without paths of this machine."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.MGRE.pop("COMPUTED_CHANNELS", None)
    if cfg.SOLVER.WARMUP_EPOCHS > 0:
        cfg.SOLVER.WARMUP_ITERS = 0  # the trainer has computed it, and a config may give only one of the two
    for key in _PATHS:
        cfg.merge_from_list([key, ""])
    return cfg.dump()


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])


def _toolbox_version() -> str:
    try:
        return importlib.metadata.version("fastreid")
    except importlib.metadata.PackageNotFoundError:  # a git clone
        return "unknown"
