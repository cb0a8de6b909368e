"""Checks that stop a wrong config at once."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from fastreid.config import CfgNode
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.layers import any_softmax, pooling
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.utils import comm

from mgre.data.validation_split import base_of_validation
from mgre.errors import ConfigError, SetupError, nearest
from mgre.regions import get_regions

BOXES = ("location", "keypoints", "prior")


LOSSES = ("CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface")


SAMPLERS = (
    "TrainingSampler",
    "NaiveIdentitySampler",
    "BalancedIdentitySampler",
    "SetReWeightSampler",
    "ImbalancedDatasetSampler",
)


NORMS = ("BN", "syncBN", "GhostBN", "FrozenBN", "GN")


# The toolbox's pooling layers that leave one number a channel.
POOL_LAYERS = tuple(name for name in pooling.__all__ if name not in ("Identity", "Flatten"))


def check_config(cfg: CfgNode) -> None:
    """Stop at the first name or value that cannot work, and say which ones can.

    Raises:
        ConfigError: see there.
        SetupError: MODEL.DEVICE is a CUDA device and there is none.
    """
    _check_names(cfg)
    _check_ranges(cfg)
    if cfg.MODEL.META_ARCHITECTURE == "MGRe":
        _check_mgre(cfg)
    elif cfg.MODEL.BACKBONE.NAME == "build_mgre_backbone":
        raise ConfigError(
            "MODEL.BACKBONE.NAME build_mgre_backbone gives four maps, which MODEL.META_ARCHITECTURE "
            f"'{cfg.MODEL.META_ARCHITECTURE}' does not take: use MGRe, or another backbone"
        )
    try:
        device = torch.device(cfg.MODEL.DEVICE)
    except RuntimeError as error:
        raise ConfigError(f"MODEL.DEVICE is '{cfg.MODEL.DEVICE}'; allowed: cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SetupError(
            f"MODEL.DEVICE is '{cfg.MODEL.DEVICE}', but torch {torch.__version__} sees no CUDA device here: add "
            "MODEL.DEVICE cpu to the command line, or mend the driver"
        )


def _check_names(cfg: CfgNode) -> None:
    registries = {
        "MODEL.META_ARCHITECTURE": (cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY),
        "MODEL.BACKBONE.NAME": (cfg.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY),
        "MODEL.MGRE.BACKBONE": (cfg.MODEL.MGRE.BACKBONE, BACKBONE_REGISTRY),
        "MODEL.HEADS.NAME": (cfg.MODEL.HEADS.NAME, REID_HEADS_REGISTRY),
    }
    for key, (name, registry) in registries.items():
        _check_choice(key, name, tuple(registry._obj_map))
    for key in ("NAMES", "TESTS"):
        for name in cfg.DATASETS[key]:
            _check_choice(f"DATASETS.{key}", base_of_validation(name) or name, tuple(DATASET_REGISTRY._obj_map))
        if not cfg.DATASETS[key]:
            raise ConfigError(
                f"DATASETS.{key} is empty; known data sets: {', '.join(sorted(DATASET_REGISTRY._obj_map))}"
            )
    for name in cfg.MODEL.LOSSES.NAME:
        # The toolbox leaves out a loss it does not know without a word.
        _check_choice("MODEL.LOSSES.NAME", name, LOSSES)
    _check_choice("MODEL.BACKBONE.NORM", cfg.MODEL.BACKBONE.NORM, NORMS)
    _check_choice("MODEL.HEADS.NORM", cfg.MODEL.HEADS.NORM, NORMS)
    _check_choice("MODEL.HEADS.POOL_LAYER", cfg.MODEL.HEADS.POOL_LAYER, tuple(pooling.__all__))
    _check_choice("MODEL.HEADS.CLS_LAYER", cfg.MODEL.HEADS.CLS_LAYER, tuple(any_softmax.__all__))
    _check_choice("MODEL.HEADS.NECK_FEAT", cfg.MODEL.HEADS.NECK_FEAT, ("before", "after"))
    _check_choice("DATASETS.UNREADABLE_IMAGES", cfg.DATASETS.UNREADABLE_IMAGES, ("stop", "skip"))
    _check_choice("DATALOADER.SAMPLER_TRAIN", cfg.DATALOADER.SAMPLER_TRAIN, SAMPLERS)
    _check_choice("SOLVER.SCHED", cfg.SOLVER.SCHED, ("MultiStepLR", "CosineAnnealingLR"))
    _check_choice("SOLVER.WARMUP_METHOD", cfg.SOLVER.WARMUP_METHOD, ("constant", "linear", "exp"))
    optimizers = tuple(n for n, o in vars(torch.optim).items() if isinstance(o, type) and n != "Optimizer")
    _check_choice("SOLVER.OPT", cfg.SOLVER.OPT, optimizers)
    _check_choice("TEST.METRIC", cfg.TEST.METRIC, ("cosine", "euclidean"))
    _check_choice("TEST.AMP.DTYPE", cfg.TEST.AMP.DTYPE, ("float16", "bfloat16"))


def _check_ranges(cfg: CfgNode) -> None:
    positive = {
        "SOLVER.IMS_PER_BATCH": cfg.SOLVER.IMS_PER_BATCH,
        "SOLVER.MAX_EPOCH": cfg.SOLVER.MAX_EPOCH,
        "SOLVER.CHECKPOINT_PERIOD": cfg.SOLVER.CHECKPOINT_PERIOD,
        "SOLVER.BASE_LR": cfg.SOLVER.BASE_LR,
        "TEST.IMS_PER_BATCH": cfg.TEST.IMS_PER_BATCH,
        "TEST.EVAL_PERIOD": cfg.TEST.EVAL_PERIOD,
        "TEST.RERANK.K1": cfg.TEST.RERANK.K1,
        "TEST.RERANK.K2": cfg.TEST.RERANK.K2,
        "TEST.AQE.QE_K": cfg.TEST.AQE.QE_K,
        "TEST.AQE.QE_TIME": cfg.TEST.AQE.QE_TIME,
        "DATALOADER.NUM_INSTANCE": cfg.DATALOADER.NUM_INSTANCE,
        "DATASETS.VALIDATION.NUM_IDS": cfg.DATASETS.VALIDATION.NUM_IDS,
    }
    for key, value in positive.items():
        _require(value > 0, key, value, "more than 0")
    _require(cfg.SOLVER.CHECKPOINTS_KEPT >= 0, "SOLVER.CHECKPOINTS_KEPT", cfg.SOLVER.CHECKPOINTS_KEPT, "0 or more")
    _require(cfg.DATALOADER.NUM_WORKERS >= 0, "DATALOADER.NUM_WORKERS", cfg.DATALOADER.NUM_WORKERS, "0 or more")
    _require(
        cfg.MODEL.HEADS.EMBEDDING_DIM >= 0, "MODEL.HEADS.EMBEDDING_DIM", cfg.MODEL.HEADS.EMBEDDING_DIM, "0 or more"
    )
    part = cfg.DATASETS.PART
    _require(part.NUM_TRAIN_IDS >= 0, "DATASETS.PART.NUM_TRAIN_IDS", part.NUM_TRAIN_IDS, "0 (all) or more")
    _require(part.NUM_TEST_IDS >= 0, "DATASETS.PART.NUM_TEST_IDS", part.NUM_TEST_IDS, "0 (all) or more")
    _require(0 <= part.SEED < 2**32, "DATASETS.PART.SEED", part.SEED, "0 to 2^32 - 1")
    _require(0 <= cfg.DATASETS.VALIDATION.SEED < 2**32, "DATASETS.VALIDATION.SEED", cfg.DATASETS.VALIDATION.SEED,
             "0 to 2^32 - 1")  # fmt: skip
    solver = cfg.SOLVER
    _require(solver.WARMUP_ITERS >= 0, "SOLVER.WARMUP_ITERS", solver.WARMUP_ITERS, "0 or more")
    _require(
        solver.WARMUP_EPOCHS == 0 or 0 < solver.WARMUP_EPOCHS <= solver.MAX_EPOCH - 1,
        "SOLVER.WARMUP_EPOCHS",
        solver.WARMUP_EPOCHS,
        f"0, or at most {solver.MAX_EPOCH - 1}, one less than SOLVER.MAX_EPOCH (SOLVER.WARMUP_EPOCHS 0 for no warm-up)",
    )
    _require(solver.WARMUP_EPOCHS == 0 or solver.WARMUP_ITERS == 0, "SOLVER.WARMUP_ITERS", solver.WARMUP_ITERS,
             f"0 where SOLVER.WARMUP_EPOCHS is {solver.WARMUP_EPOCHS:g}: one of the two gives the warm-up")  # fmt: skip
    ranks = comm.get_world_size()  # each has a seed of its own
    _require(-1 <= cfg.SEED <= 2**32 - ranks, "SEED", cfg.SEED, f"-1, or 0 to 2^32 - {ranks}")
    fractions = {
        "TEST.RERANK.LAMBDA": cfg.TEST.RERANK.LAMBDA,
        "INPUT.FLIP.PROB": cfg.INPUT.FLIP.PROB,
        "INPUT.REA.PROB": cfg.INPUT.REA.PROB,
        "TEST.OCCLUSION.PROB": cfg.TEST.OCCLUSION.PROB,
        "DATASETS.KEYPOINT_MIN_SCORE": cfg.DATASETS.KEYPOINT_MIN_SCORE,
    }
    for key, value in fractions.items():
        _require(0 <= value <= 1, key, value, "a number from 0 to 1")


def _check_mgre(cfg: CfgNode) -> None:
    mgre = cfg.MODEL.MGRE
    for key in ("SIZE_TRAIN", "SIZE_TEST"):
        size = cfg.INPUT[key]
        _require(len(size) == 2 and all(isinstance(s, int) and s >= 32 for s in size), f"INPUT.{key}", size,
                 "two whole numbers (height, width) of at least 32")  # fmt: skip
    _require(len(set(mgre.STAGES)) == len(mgre.STAGES) and set(mgre.STAGES) <= {1, 2, 3}, "MODEL.MGRE.STAGES",
             mgre.STAGES, "different ones of 1, 2, 3, or none: ()")  # fmt: skip
    regions = get_regions(mgre.REGIONS, mgre.STAGES)
    _require(len(mgre.SOURCE_BLOCKS) == 3 and set(mgre.SOURCE_BLOCKS) <= {1, 2, 3, 4}, "MODEL.MGRE.SOURCE_BLOCKS",
             mgre.SOURCE_BLOCKS, "three of 1, 2, 3, 4, for the stages 1, 2, 3")  # fmt: skip
    _check_choice("MODEL.MGRE.BOXES", mgre.BOXES, BOXES)
    if mgre.BOXES != "prior" and not all(region.keypoints for members in regions.values() for region in members):
        raise ConfigError(
            f"MODEL.MGRE.REGIONS '{mgre.REGIONS}' has regions without key points, which nothing can locate: "
            "MODEL.MGRE.BOXES has to be prior"
        )
    if mgre.BOXES == "keypoints" and cfg.TEST.FLIP.ENABLED:
        raise ConfigError(
            "TEST.FLIP.ENABLED True mirrors the test images, but not the key points that MODEL.MGRE.BOXES keypoints "
            "takes the boxes from: set one of them otherwise"
        )
    if regions and not mgre.REGION_FEATURES and (mgre.BOXES != "location" or not mgre.LOCATION.LOSS_WEIGHT):
        raise ConfigError(
            "MODEL.MGRE.REGION_FEATURES False leaves the location loss alone of the regions: it takes "
            "MODEL.MGRE.BOXES location and MODEL.MGRE.LOCATION.LOSS_WEIGHT above 0; or build no stages (STAGES ())"
        )
    _require(len(mgre.STAGE_WEIGHTS) == 4 and min(mgre.STAGE_WEIGHTS) >= 0 and mgre.STAGE_WEIGHTS[3] > 0,
             "MODEL.MGRE.STAGE_WEIGHTS", mgre.STAGE_WEIGHTS, "four numbers of 0 or more, the last above 0")  # fmt: skip
    _require(mgre.LAMBDA >= 0, "MODEL.MGRE.LAMBDA", mgre.LAMBDA, "0 or more")
    location = mgre.LOCATION
    _require(location.LOSS_WEIGHT >= 0, "MODEL.MGRE.LOCATION.LOSS_WEIGHT", location.LOSS_WEIGHT, "0 or more")
    _require(0 <= location.REID_GRADIENT <= 1, "MODEL.MGRE.LOCATION.REID_GRADIENT", location.REID_GRADIENT,
             "a number from 0 to 1")  # fmt: skip
    _require(location.CONV_CHANNELS > 0, "MODEL.MGRE.LOCATION.CONV_CHANNELS", location.CONV_CHANNELS, "more than 0")
    _require(location.HIDDEN_DIM > 0, "MODEL.MGRE.LOCATION.HIDDEN_DIM", location.HIDDEN_DIM, "more than 0")
    _require(len(location.POOL_SIZE) == 2 and min(location.POOL_SIZE) > 0, "MODEL.MGRE.LOCATION.POOL_SIZE",
             location.POOL_SIZE, "two numbers (height, width) above 0")  # fmt: skip
    heads = REID_HEADS_REGISTRY.get(cfg.MODEL.HEADS.NAME)
    # The toolbox's heads take one map, MGRe's take those of all regions.
    if cfg.MODEL.BACKBONE.NAME != "build_mgre_backbone" or heads.__module__.startswith("fastreid."):
        raise ConfigError(
            "MODEL.META_ARCHITECTURE MGRe takes MODEL.BACKBONE.NAME build_mgre_backbone (what is inside is "
            "MODEL.MGRE.BACKBONE) and MODEL.HEADS.NAME MGReHead; "
            f"got '{cfg.MODEL.BACKBONE.NAME}' and '{cfg.MODEL.HEADS.NAME}'"
        )
    if mgre.BACKBONE == "build_resnet_backbone" and cfg.MODEL.BACKBONE.DEPTH in ("18x", "34x"):
        _require(not cfg.MODEL.BACKBONE.WITH_NL, "MODEL.BACKBONE.WITH_NL", True,
                 f"False with DEPTH {cfg.MODEL.BACKBONE.DEPTH}, which has none; 50x and 101x have")  # fmt: skip
    if mgre.BACKBONE == "build_mgre_backbone":
        raise ConfigError("MODEL.MGRE.BACKBONE is the backbone inside build_mgre_backbone: name another one")
    if cfg.MODEL.HEADS.POOL_LAYER not in POOL_LAYERS:
        raise ConfigError(
            f"MODEL.HEADS.POOL_LAYER '{cfg.MODEL.HEADS.POOL_LAYER}' does not pool a region to one vector; "
            f"MGRe takes: {', '.join(POOL_LAYERS)}"
        )
    if mgre.BACKBONE == "build_timm_backbone" and not timm.is_model(cfg.MODEL.TIMM.NAME):
        raise ConfigError(
            f"MODEL.TIMM.NAME '{cfg.MODEL.TIMM.NAME}' is no model of timm {timm.__version__}"
            f"{nearest(cfg.MODEL.TIMM.NAME, timm.list_models())}"
        )


def _require(holds: bool, key: str, value: Any, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{key} is {value!r}; allowed: {allowed}")


def _check_choice(key: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ConfigError(
            f"{key} has '{name}', which is not known{nearest(name, known)}; known: {', '.join(sorted(known))}"
        )
