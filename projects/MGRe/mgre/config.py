"""The config keys MGRe adds to the toolbox's, and the checks that stop a wrong config at once."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import timm
import torch
import yaml
from fastreid.config import CfgNode, get_cfg
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.layers import any_softmax, pooling
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.utils import comm

from mgre.data.validation import base_of_validation
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
# Of a config file: far more than there are keys, far fewer than a few lines of YAML aliases can stand for.
MAX_VALUES = 10_000
# The toolbox's pooling layers that leave one number a channel.
POOL_LAYERS = tuple(name for name in pooling.__all__ if name not in ("Identity", "Flatten"))


def add_mgre_config(cfg: CfgNode) -> None:
    """Declare MGRe's config keys, each with its default, unit and symbol in the paper."""
    # -- Model -----------------------------------------------------------------------------------
    cfg.MODEL.MGRE = CfgNode()
    # Registered backbone with four stages that gives C1 to C4.
    cfg.MODEL.MGRE.BACKBONE = "build_resnet_backbone"
    # (The backbone leaves the stages' channels for the heads in the computed key MODEL.MGRE.COMPUTED_CHANNELS.)
    # Stages i in {1, 2, 3} with a location, sampling and extraction module; stage 4 is always there.
    cfg.MODEL.MGRE.STAGES = (1, 2, 3)
    # Region set in mgre/regions.py: "table1" is the paper's Table 1.
    cfg.MODEL.MGRE.REGIONS = "table1"
    # Block j whose map F_j the regions of stages 1, 2, 3 come from; (4, 4, 4): Table 5's single-grained features.
    cfg.MODEL.MGRE.SOURCE_BLOCKS = (1, 2, 3)
    # Boxes of the regions: "location" predicts them (Eq. 1-2), "keypoints" takes the pose model's, in training and at
    # test (Table 7's "without joint optimisation"), "prior" fixes them to the region set's.
    cfg.MODEL.MGRE.BOXES = "location"
    # Embed the regions; False locates them in training only, for the sake of C1 to C4 (Table 7's "Baseline + joint
    # optimisation").
    cfg.MODEL.MGRE.REGION_FEATURES = True
    # Feature extraction modules, the bottleneck blocks of the regions and of stage 4; the paper's Baseline has none.
    cfg.MODEL.MGRE.EXTRACTION = True
    # Semantic guidance: F_i = C_i + up(conv1x1(C4)) in stages 1 and 2.
    cfg.MODEL.MGRE.GUIDANCE = True
    # lambda_1^F .. lambda_4^F of Eq. (6); those of stages that are not built are left out.
    cfg.MODEL.MGRE.STAGE_WEIGHTS = (0.35, 0.5, 0.7, 0.8)
    # lambda of Eq. (9): weight of the losses of stages 1 to 3 against stage 4's.
    cfg.MODEL.MGRE.LAMBDA = 1.0

    # -- Location module (Sec. 3.1, Eq. 1-3) -----------------------------------------------------
    cfg.MODEL.MGRE.LOCATION = CfgNode()
    # Channels of its 3 x 3 convolution.
    cfg.MODEL.MGRE.LOCATION.CONV_CHANNELS = 64
    # Cells (height, width) its max pooling leaves.
    cfg.MODEL.MGRE.LOCATION.POOL_SIZE = (8, 4)
    # Units of its hidden fully connected layer.
    cfg.MODEL.MGRE.LOCATION.HIDDEN_DIM = 128
    # Weight of the location loss, Eq. (3), in the stage losses; 0 trains without key points. Above 1, because Eq. (2) is
    # in cells of the map, whose squared differences are far larger than ours in fractions of the image.
    cfg.MODEL.MGRE.LOCATION.LOSS_WEIGHT = 10.0
    # Factor on the ReID gradient that reaches the boxes: 1 is the paper's joint optimisation, 0 cuts it.
    cfg.MODEL.MGRE.LOCATION.REID_GRADIENT = 1.0

    # -- Backbones of timm (MODEL.MGRE.BACKBONE or MODEL.BACKBONE.NAME "build_timm_backbone") --------
    cfg.MODEL.TIMM = CfgNode()
    # Model name as in timm.list_models(); MODEL.BACKBONE.PRETRAIN loads its published weights.
    cfg.MODEL.TIMM.NAME = "resnet152"

    # -- Data ------------------------------------------------------------------------------------
    # COCO key point JSON: a file name in the data set's folder, or a path.
    cfg.DATASETS.KEYPOINTS = "keypoints.json"
    # Key points of a lower score are not trusted.
    cfg.DATASETS.KEYPOINT_MIN_SCORE = 0.3
    # Train although more than half of the training images have no key points.
    cfg.DATASETS.ALLOW_MISSING_KEYPOINTS = False

    # Images that cannot be read. "stop": not one step is trained where a header is at fault. "skip": it is. While
    # training, what turns out unreadable is skipped, and counted, with both: the identity's next image takes its place,
    # and evaluations leave it out of the test set. --eval-only leaves it out with "skip", and stops with "stop".
    cfg.DATASETS.UNREADABLE_IMAGES = "stop"

    # Data set "CustomReID": a folder of one's own.
    cfg.DATASETS.CUSTOM = CfgNode()
    # The folder, in the Market-1501 layout or with the CSV below.
    cfg.DATASETS.CUSTOM.ROOT = ""
    # CSV with the columns path, identity, camera, split, relative to ROOT; empty: Market-1501 layout.
    cfg.DATASETS.CUSTOM.CSV = ""

    # Data set "SyntheticPedestrians": drawn into the data folder on first use.
    cfg.DATASETS.SYNTHETIC = CfgNode()
    cfg.DATASETS.SYNTHETIC.SEED = 0
    cfg.DATASETS.SYNTHETIC.NUM_TRAIN_IDS = 100
    cfg.DATASETS.SYNTHETIC.NUM_TEST_IDS = 60
    cfg.DATASETS.SYNTHETIC.NUM_CAMERAS = 4
    # Images of an identity in each camera.
    cfg.DATASETS.SYNTHETIC.IMAGES_PER_CAMERA = 3
    # Pixels (height, width).
    cfg.DATASETS.SYNTHETIC.SIZE = (128, 64)

    # Validation set "<name>Val" of any data set <name> (Fig. 6), split off its training set: DATASETS.TESTS takes these
    # identities, DATASETS.NAMES what remains.
    cfg.DATASETS.VALIDATION = CfgNode()
    cfg.DATASETS.VALIDATION.NUM_IDS = 100
    # Seed of the choice of the identities and queries.
    cfg.DATASETS.VALIDATION.SEED = 0

    # A part of each data set, for machines on which the whole takes too long: how many identities of the training set
    # and of the query stay, 0 for all. Distractors go with the other test identities, so figures are not comparable.
    cfg.DATASETS.PART = CfgNode()
    cfg.DATASETS.PART.NUM_TRAIN_IDS = 0
    cfg.DATASETS.PART.NUM_TEST_IDS = 0
    # Seed of the choice of the identities.
    cfg.DATASETS.PART.SEED = 0

    # -- Training --------------------------------------------------------------------------------
    # Epochs of warm-up, whole or not: they give SOLVER.WARMUP_ITERS, which counts steps; 0 takes that as it is.
    cfg.SOLVER.WARMUP_EPOCHS = 0.0
    # How many of the newest periodic checkpoints stay, model_best and model_final besides; 0: all.
    cfg.SOLVER.CHECKPOINTS_KEPT = 0

    # -- Evaluation ------------------------------------------------------------------------------
    # Mean IoU of each region's predicted box with the key points' box, where test images have key points.
    cfg.TEST.REGION_IOU = CfgNode({"ENABLED": True})

    # Occluded test images (Table 6), of any model: a box of an image is erased, filled with INPUT.REA.VALUE.
    cfg.TEST.OCCLUSION = CfgNode({"ENABLED": False})
    # Probability of an image, query or gallery, to be occluded.
    cfg.TEST.OCCLUSION.PROB = 0.5
    # Which images, and where, follows from it and the image's file name alone.
    cfg.TEST.OCCLUSION.SEED = 0

    # Seed of Python, NumPy and torch; -1 takes a random one.
    cfg.SEED = -1


def load_config(config_file: str = "", overrides: Sequence[str] = ()) -> CfgNode:
    """The toolbox's and MGRe's defaults, then a config file, then ``KEY VALUE`` pairs; checked and frozen.

    Raises:
        ConfigError: a file, key, name or value is wrong.
        SetupError: the config asks for a device that is not there.
    """
    cfg = get_cfg()
    add_mgre_config(cfg)
    if config_file:
        _merge_file(cfg, config_file)
    _merge_overrides(cfg, list(overrides))
    for node in (cfg.MODEL.BACKBONE, cfg.MODEL.HEADS):
        if node.NORM == "SyncBN":  # what detectron2 and the papers call the toolbox's "syncBN"
            node.NORM = "syncBN"
    try:
        check_config(cfg)
    except (TypeError, ValueError, AttributeError, LookupError) as error:  # a member of a list may be of any type
        raise ConfigError(f"a value in the config is of another type than it should be: {error}") from error
    cfg.freeze()
    return cfg


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


def _is_larger_than(size: int, value: Any) -> bool:
    """Whether a nesting of lists and dicts has more than ``size`` values; what is at two places counts twice."""
    rest, seen = [value], 0
    while rest and seen <= size:
        node = rest.pop()
        seen += 1
        if isinstance(node, dict | list | tuple | set):
            rest.extend(node.values() if isinstance(node, dict) else node)
    return seen > size


def leaves(node: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, each with its keys joined by dots."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _merge_file(cfg: CfgNode, config_file: str) -> None:
    if not os.path.isfile(config_file):
        raise ConfigError(f"config file '{config_file}' does not exist (working directory {os.getcwd()}); see configs/")
    try:
        loaded = CfgNode.load_yaml_with_base(config_file)
    except FileNotFoundError as error:
        raise ConfigError(f"config file '{config_file}': its _BASE_ '{error.filename}' does not exist") from error
    except (yaml.YAMLError, OSError, RecursionError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ConfigError(
            f"config file '{config_file}' is not a YAML mapping of keys: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"config file '{config_file}' is not a YAML mapping of keys: {str(loaded)[:60]!r}")
    if _is_larger_than(MAX_VALUES, loaded):
        raise ConfigError(f"config file '{config_file}' has more than {MAX_VALUES} values, its aliases written out")
    _merge(cfg, dict(leaves(loaded)), f"config file '{config_file}'")


def _merge_overrides(cfg: CfgNode, overrides: list[str]) -> None:
    if len(overrides) % 2:
        raise ConfigError(f"overrides come in pairs KEY VALUE; got {len(overrides)} words: {' '.join(overrides)}")
    _merge(cfg, dict(zip(overrides[0::2], overrides[1::2], strict=True)), "the command line")


def _merge(cfg: CfgNode, values: dict[str, Any], source: str) -> None:
    known = dict(leaves(cfg))
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"unknown config key {key} in {source}{nearest(key, known)}")
        if isinstance(known[key], float) and str(value).lstrip("+-").isdigit():
            value = float(value)  # yacs takes no whole number for a number
        try:
            cfg.merge_from_list([key, value])
        except ValueError as error:
            allowed = _describe_type(known[key], value)
            raise ConfigError(f"{key} is {value!r} in {source}; allowed: {allowed}") from error


def _describe_type(default: Any, value: Any) -> str:
    """The type of a key with this default, in words, with an example of how to write it."""
    if isinstance(default, bool):
        return "True or False"
    if isinstance(default, int | float):
        return f"a {'whole ' if isinstance(default, int) else ''}number, like {default}"
    if isinstance(default, str):
        return f"""text; what looks like something else takes quotes in quotes, "'{value}'\""""
    names = not default or isinstance(default[0], str)
    return f'a tuple in quotes, like "{(value,) if names else tuple(default)}"'
