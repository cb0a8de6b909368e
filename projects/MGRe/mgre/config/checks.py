"""Checks of a config: of the values of single keys, and of values that must fit together."""

from functools import reduce
from operator import getitem

import torch
from fastreid.config import CfgNode
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.layers import any_softmax, pooling
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY, MGN
from fastreid.utils import comm

from mgre.config.allowed import Allowed, Choice, at_least, between, choice, more_than, require
from mgre.config.keys import all_keys
from mgre.data.transforms import AUGMENTATION_REGISTRY
from mgre.data.validation_split import base_of_validation
from mgre.errors import ConfigError, SetupError
from mgre.modeling.losses import LOSS_REGISTRY, TOOLBOX_LOSSES
from mgre.modeling.timm_backbone import check_timm_name
from mgre.regions import describe_set, get_regions

NORMS = Choice(("BN", "syncBN", "GhostBN", "FrozenBN", "GN"))
# The toolbox's pooling layers that leave one number a channel.
POOL_LAYERS = tuple(name for name in pooling.__all__ if name not in ("Identity", "Flatten"))

# Keys of the toolbox, which checks none of them itself.
TOOLBOX_KEYS: dict[str, Allowed] = {
    "MODEL.META_ARCHITECTURE": Choice(META_ARCH_REGISTRY._obj_map),
    "MODEL.BACKBONE.NAME": Choice(BACKBONE_REGISTRY._obj_map),
    "MODEL.BACKBONE.NORM": NORMS,
    "MODEL.HEADS.NAME": Choice(REID_HEADS_REGISTRY._obj_map),
    "MODEL.HEADS.NORM": NORMS,
    "MODEL.HEADS.POOL_LAYER": Choice(pooling.__all__),
    "MODEL.HEADS.CLS_LAYER": Choice(any_softmax.__all__),
    "MODEL.HEADS.NECK_FEAT": choice("before", "after"),
    "MODEL.HEADS.EMBEDDING_DIM": at_least(0),
    "DATALOADER.SAMPLER_TRAIN": choice(
        "TrainingSampler",
        "NaiveIdentitySampler",
        "BalancedIdentitySampler",
        "SetReWeightSampler",
        "ImbalancedDatasetSampler",
    ),
    "DATALOADER.NUM_INSTANCE": more_than(0),
    "DATALOADER.NUM_WORKERS": at_least(0),
    "INPUT.FLIP.PROB": between(0, 1),
    "INPUT.REA.PROB": between(0, 1),
    "SOLVER.OPT": choice(*(n for n, o in vars(torch.optim).items() if isinstance(o, type) and n != "Optimizer")),
    "SOLVER.BASE_LR": more_than(0),
    "SOLVER.SCHED": choice("MultiStepLR", "CosineAnnealingLR"),
    "SOLVER.WARMUP_METHOD": choice("constant", "linear", "exp"),
    "SOLVER.WARMUP_ITERS": at_least(0),
    "SOLVER.IMS_PER_BATCH": more_than(0),
    "SOLVER.MAX_EPOCH": more_than(0),
    "SOLVER.CHECKPOINT_PERIOD": more_than(0),
    "TEST.METRIC": choice("cosine", "euclidean"),
    "TEST.IMS_PER_BATCH": more_than(0),
    "TEST.EVAL_PERIOD": more_than(0),
    "TEST.RERANK.K1": more_than(0),
    "TEST.RERANK.K2": more_than(0),
    "TEST.RERANK.LAMBDA": between(0, 1),
    "TEST.AQE.QE_K": more_than(0),
    "TEST.AQE.QE_TIME": more_than(0),
}


def check_config(cfg: CfgNode) -> None:
    """Stop at the first name or value that cannot work, with an error that names the allowed ones.

    Raises:
        ConfigError: a name or a value is not allowed, alone or together with others.
        SetupError: MODEL.DEVICE is a CUDA device and there is none.
    """
    for name, allowed in {**TOOLBOX_KEYS, **{key.name: key.allowed for key in all_keys()}}.items():
        if allowed is not None:
            allowed.check(name, reduce(getitem, name.split("."), cfg))
    _check_lists(cfg)
    _check_training(cfg)
    if cfg.MODEL.META_ARCHITECTURE == "MGRe":
        _check_mgre(cfg)
    elif cfg.MODEL.BACKBONE.NAME == "build_mgre_backbone":
        raise ConfigError(
            "MODEL.BACKBONE.NAME build_mgre_backbone gives four maps, which MODEL.META_ARCHITECTURE "
            f"'{cfg.MODEL.META_ARCHITECTURE}' does not take: use MGRe, or another backbone"
        )
    _check_device(cfg.MODEL.DEVICE)


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"MODEL.DEVICE is '{name}'; allowed: cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SetupError(
            f"MODEL.DEVICE is '{name}', but torch {torch.__version__} sees no CUDA device here: add "
            "MODEL.DEVICE cpu to the command line, or mend the driver"
        )


def _check_lists(cfg: CfgNode) -> None:
    """Check the keys that are lists of names."""
    known = DATASET_REGISTRY._obj_map
    for key in ("NAMES", "TESTS"):
        for name in cfg.DATASETS[key]:
            Choice(known).check(f"DATASETS.{key}", base_of_validation(name) or name)
        if not cfg.DATASETS[key]:
            raise ConfigError(f"DATASETS.{key} is empty; known data sets: {', '.join(sorted(known))}")
    _check_losses(cfg)
    for name in cfg.INPUT.AUGMENTATIONS:
        Choice(dict(AUGMENTATION_REGISTRY)).check("INPUT.AUGMENTATIONS", name)


def _check_losses(cfg: CfgNode) -> None:
    """Check names that the toolbox would ignore without an error."""
    registered = dict(LOSS_REGISTRY)
    if taken := registered.keys() & set(TOOLBOX_LOSSES):
        raise ConfigError(f"a plugin registers the loss '{min(taken)}', which is the toolbox's: choose another name")
    for name in cfg.MODEL.LOSSES.NAME:
        Choice({*TOOLBOX_LOSSES, *registered}).check("MODEL.LOSSES.NAME", name)
        if name in registered and META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE) is MGN:
            raise ConfigError(
                f"MODEL.LOSSES.NAME has '{name}', but MODEL.META_ARCHITECTURE MGN computes the toolbox's losses alone: "
                "take MGRe or Baseline, or leave the loss out"
            )


def _check_training(cfg: CfgNode) -> None:
    """Check the warm-up against the length of the training, and the seed against the number of processes and
    DETERMINISTIC."""
    solver = cfg.SOLVER
    require(
        solver.WARMUP_EPOCHS == 0 or 0 < solver.WARMUP_EPOCHS <= solver.MAX_EPOCH - 1,
        "SOLVER.WARMUP_EPOCHS",
        solver.WARMUP_EPOCHS,
        f"0, or at most {solver.MAX_EPOCH - 1}, one less than SOLVER.MAX_EPOCH (SOLVER.WARMUP_EPOCHS 0 for no warm-up)",
    )
    require(
        solver.WARMUP_EPOCHS == 0 or solver.WARMUP_ITERS == 0,
        "SOLVER.WARMUP_ITERS",
        solver.WARMUP_ITERS,
        f"0 where SOLVER.WARMUP_EPOCHS is {solver.WARMUP_EPOCHS:g}: one of the two gives the warm-up",
    )
    num_processes = comm.get_world_size()  # each process has a seed of its own: SEED + rank
    require(-1 <= cfg.SEED <= 2**32 - num_processes, "SEED", cfg.SEED, f"-1, or 0 to 2^32 - {num_processes}")
    require(
        not cfg.DETERMINISTIC or cfg.SEED >= 0,
        "SEED",
        cfg.SEED,
        "0 or more where DETERMINISTIC is True: a random seed gives another training each time",
    )


def _check_mgre(cfg: CfgNode) -> None:
    mgre = cfg.MODEL.MGRE
    for key in ("SIZE_TRAIN", "SIZE_TEST"):
        size = cfg.INPUT[key]
        require(
            len(size) == 2 and all(isinstance(side, int) and side >= 32 for side in size),
            f"INPUT.{key}",
            size,
            "two whole numbers (height, width) of at least 32",
        )
    regions = get_regions(mgre.REGIONS, mgre.STAGES)
    if mgre.BOXES != "prior" and not all(region.keypoints for members in regions.values() for region in members):
        raise ConfigError(
            f"{describe_set(mgre.REGIONS)} has regions without key points, which nothing can locate: set "
            "MODEL.MGRE.BOXES prior"
        )
    if mgre.BOXES == "keypoints" and cfg.TEST.FLIP.ENABLED:
        raise ConfigError(
            "TEST.FLIP.ENABLED True mirrors the test images, but not the key points that MODEL.MGRE.BOXES keypoints "
            "takes the boxes from: set one of them otherwise"
        )
    if regions and not mgre.REGION_FEATURES and (mgre.BOXES != "location" or not mgre.LOCATION.LOSS_WEIGHT):
        raise ConfigError(
            "MODEL.MGRE.REGION_FEATURES False leaves the location loss alone of the regions: it takes "
            "MODEL.MGRE.BOXES location and MODEL.MGRE.LOCATION.LOSS_WEIGHT above 0; or build no stages: "
            'MODEL.MGRE.STAGES "()"'
        )
    heads = REID_HEADS_REGISTRY.get(cfg.MODEL.HEADS.NAME)
    # The toolbox's heads take one map, MGRe's head takes the maps of all regions.
    if cfg.MODEL.BACKBONE.NAME != "build_mgre_backbone" or heads.__module__.startswith("fastreid."):
        raise ConfigError(
            "MODEL.META_ARCHITECTURE MGRe takes MODEL.BACKBONE.NAME build_mgre_backbone (what is inside is "
            "MODEL.MGRE.BACKBONE) and MODEL.HEADS.NAME MGReHead; "
            f"got '{cfg.MODEL.BACKBONE.NAME}' and '{cfg.MODEL.HEADS.NAME}'"
        )
    if mgre.BACKBONE == "build_resnet_backbone" and cfg.MODEL.BACKBONE.DEPTH in ("18x", "34x"):
        require(
            not cfg.MODEL.BACKBONE.WITH_NL,
            "MODEL.BACKBONE.WITH_NL",
            True,
            f"False with MODEL.BACKBONE.DEPTH {cfg.MODEL.BACKBONE.DEPTH}, which has none; 50x and 101x have",
        )
    if mgre.BACKBONE == "build_mgre_backbone":
        raise ConfigError("MODEL.MGRE.BACKBONE is the backbone inside build_mgre_backbone: name another one")
    if cfg.MODEL.HEADS.POOL_LAYER not in POOL_LAYERS:
        raise ConfigError(
            f"MODEL.HEADS.POOL_LAYER '{cfg.MODEL.HEADS.POOL_LAYER}' does not pool a region to one vector; "
            f"MGRe takes: {', '.join(POOL_LAYERS)}"
        )
    if mgre.BACKBONE == "build_timm_backbone":
        check_timm_name(cfg.MODEL.TIMM.NAME)
