"""The config keys that MGRe adds to the toolbox's. This table declares each of them once. Plugins add their own."""

from dataclasses import dataclass
from typing import Any

from fastreid.config import CfgNode, get_cfg
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY

from mgre.config.allowed import Allowed, Choice, Rule, at_least, between, choice, more_than, seed
from mgre.errors import ConfigError


@dataclass(frozen=True)
class Key:
    """A config key.

    Attributes:
        name: with the sections, joined by dots.
        default: the default value. Other values must have its type.
        doc: meaning, unit and symbol in the paper.
        allowed: the allowed values; None: all values of the default's type, or those that a check in
            :mod:`mgre.config.checks` allows together with other keys.
    """

    name: str
    default: Any
    doc: str
    allowed: Allowed | None = None


KEYS = (
    # -- Plugins ---------------------------------------------------------------------------------
    Key(
        "IMPORTS",
        (),
        "Modules, and Python files (.py) by their paths, that register parts of your own (docs/extending.md). They are "
        "imported, in every process, before any name in the config is checked. In a config file it needs "
        "--allow-imports, because an import runs code.",
        Rule(
            "names of modules and paths of .py files, in quotes",
            lambda names: all(isinstance(name, str) and name for name in names),
        ),
    ),
    # -- Model -----------------------------------------------------------------------------------
    Key(
        "MODEL.MGRE.BACKBONE",
        "build_resnet_backbone",
        "Registered backbone whose maps are C1 to C4: with four stages, or with maps() and channels.",
        Choice(BACKBONE_REGISTRY._obj_map),
    ),
    # (The backbone leaves the stages' channels for the heads in the computed key MODEL.MGRE.COMPUTED_CHANNELS.)
    Key(
        "MODEL.MGRE.STAGES",
        (1, 2, 3),
        "Stages i with a location, a sampling and an extraction module. Stage 4 is always there.",
        Rule(
            "different ones of 1, 2, 3, or none: ()",
            lambda stages: len(set(stages)) == len(stages) and set(stages) <= {1, 2, 3},
        ),
    ),
    Key(
        "MODEL.MGRE.REGIONS",
        "table1",
        'A registered region set, or the path of a YAML file with one (docs/extending.md). "table1": Table 1. '
        '"whole_image": the single-grained regions of Table 5.',
    ),
    Key(
        "MODEL.MGRE.SOURCE_BLOCKS",
        (1, 2, 3),
        "Block j from whose map F_j the regions of stages 1, 2, 3 are sampled. (4, 4, 4): Table 5's single-grained "
        "features.",
        Rule(
            "three of 1, 2, 3, 4, for the stages 1, 2, 3",
            lambda blocks: len(blocks) == 3 and set(blocks) <= {1, 2, 3, 4},
        ),
    ),
    Key(
        "MODEL.MGRE.BOXES",
        "location",
        'Source of the regions\' boxes, in training and at test. "location": predicted by the location modules '
        '(Eq. 1-2). "keypoints": the key points of a pose model (Table 7\'s "without joint optimisation"). "prior": '
        "the prior boxes of the region set.",
        choice("location", "keypoints", "prior"),
    ),
    Key(
        "MODEL.MGRE.REGION_FEATURES",
        True,
        "Embed the regions. False: the location modules are trained only for their effect on C1 to C4 (Table 7's "
        '"Baseline + joint optimisation").',
    ),
    Key(
        "MODEL.MGRE.EXTRACTION",
        True,
        "Feature extraction modules, the bottleneck blocks of the regions and of stage 4. The Baseline has none.",
    ),
    Key("MODEL.MGRE.GUIDANCE", True, "Semantic guidance: F_i = C_i + up(conv1x1(C4)) in stages 1 and 2."),
    Key(
        "MODEL.MGRE.EXTRA_BN",
        False,
        "A batch norm (MODEL.BACKBONE.NORM) on C4, before guidance and stage 4 read it. LUPerson's and CION's weights "
        "are fine-tuned with one (docs/weights.md); the paper has none.",
    ),
    Key(
        "MODEL.MGRE.STAGE_WEIGHTS",
        (0.35, 0.5, 0.7, 0.8),
        "lambda_1^F .. lambda_4^F of Eq. (6). The weights of stages that are not built are ignored.",
        Rule(
            "four numbers of 0 or more, the last above 0",
            lambda weights: len(weights) == 4 and min(weights) >= 0 and weights[3] > 0,
        ),
    ),
    Key(
        "MODEL.MGRE.LAMBDA",
        1.0,
        "lambda of Eq. (9): weight of the losses of stages 1 to 3 relative to those of stage 4.",
        at_least(0),
    ),
    # -- Location module (Sec. 3.1, Eq. 1-3) -----------------------------------------------------
    Key("MODEL.MGRE.LOCATION.CONV_CHANNELS", 64, "Channels of the 3 x 3 convolution.", more_than(0)),
    Key(
        "MODEL.MGRE.LOCATION.POOL_SIZE",
        (8, 4),
        "Cells (height, width) of the map after the max pooling.",
        Rule("two numbers (height, width) above 0", lambda size: len(size) == 2 and min(size) > 0),
    ),
    Key("MODEL.MGRE.LOCATION.HIDDEN_DIM", 128, "Units of the hidden fully connected layer.", more_than(0)),
    Key(
        "MODEL.MGRE.LOCATION.LOSS_WEIGHT",
        10.0,
        "Weight of the location loss, Eq. (3), in the losses of a stage. 0 trains without key points. Above 1, because "
        "the paper's boxes, Eq. (2), are in cells of the map, whose squared differences are far larger than those of "
        "our boxes in fractions of the image.",
        at_least(0),
    ),
    Key(
        "MODEL.MGRE.LOCATION.REID_GRADIENT",
        1.0,
        "Factor on the ReID gradient that reaches the boxes. 1 is the paper's joint optimisation, 0 cuts the gradient.",
        between(0, 1),
    ),
    # -- Backbones of timm (MODEL.MGRE.BACKBONE or MODEL.BACKBONE.NAME "build_timm_backbone") --------
    Key(
        "MODEL.TIMM.NAME",
        "resnet152",
        "Model name as in timm.list_models(). MODEL.BACKBONE.PRETRAIN loads the model's published weights.",
    ),
    # -- Execution -------------------------------------------------------------------------------
    Key(
        "MODEL.CHANNELS_LAST",
        True,
        "Maps and weights lie channels-last in memory: the same numbers to rounding, faster on the CPU it was "
        "measured on.",
    ),
    Key(
        "MODEL.COMPILE",
        "off",
        'Mode of torch.compile, "default" or "reduce-overhead" (CUDA graphs), or "off". The first step takes minutes. '
        "Where it fails, a warning says so, and the model runs without.",
        choice("off", "default", "reduce-overhead"),
    ),
    # -- Data ------------------------------------------------------------------------------------
    Key(
        "INPUT.AUGMENTATIONS",
        (),
        "Registered augmentations of training images (docs/extending.md), in this order: after those of the toolbox, "
        "but for INPUT.REA and INPUT.RPT, which come last.",
    ),
    Key(
        "DATASETS.KEYPOINTS", "keypoints.json", "COCO key point JSON: a file name in the data set's folder, or a path."
    ),
    Key("DATASETS.KEYPOINT_MIN_SCORE", 0.3, "Key points of a lower score are not trusted.", between(0, 1)),
    Key(
        "DATASETS.ALLOW_MISSING_KEYPOINTS",
        False,
        "Train although more than half of the training images have no key points.",
    ),
    Key(
        "DATASETS.DOUBTFUL_KEYPOINTS",
        "stop",
        "Treatment of a key point file whose points cannot be those of its images, such as normalised ones, or joints "
        'in another order than COCO\'s. "stop": an error in training, evaluation and import. "warn": a warning, for '
        "images where people do not stand. An evaluation needs no key points, but for MODEL.MGRE.BOXES keypoints: "
        "TEST.REGION_IOU.ENABLED False leaves the file out.",
        choice("stop", "warn"),
    ),
    Key(
        "DATASETS.UNREADABLE_IMAGES",
        "stop",
        'Treatment of unreadable images. "stop": a training does not start if the header of an image is unreadable, '
        'and --eval-only stops at such an image. "skip": both leave these images out. An image that turns out '
        "unreadable during a training is skipped and counted in both cases: in training the next image of its identity "
        "takes its place, and evaluations leave it out of the test set.",
        choice("stop", "skip"),
    ),
    # Data set "CustomReID": a folder of one's own.
    Key("DATASETS.CUSTOM.ROOT", "", "The folder, in the Market-1501 layout or with a CSV."),
    Key(
        "DATASETS.CUSTOM.CSV",
        "",
        "CSV with the columns path, identity, camera, split, relative to ROOT. Empty: Market-1501 layout.",
    ),
    # Data set "SyntheticPedestrians", drawn into the data folder on first use. SyntheticSpec checks these keys.
    Key("DATASETS.SYNTHETIC.SEED", 0, "Seed of the drawing."),
    Key("DATASETS.SYNTHETIC.NUM_TRAIN_IDS", 100, "Identities of the training set."),
    Key("DATASETS.SYNTHETIC.NUM_TEST_IDS", 60, "Identities of query and gallery."),
    Key("DATASETS.SYNTHETIC.NUM_CAMERAS", 4, "Cameras, each of which sees every identity."),
    Key("DATASETS.SYNTHETIC.IMAGES_PER_CAMERA", 3, "Images of an identity in each camera."),
    Key("DATASETS.SYNTHETIC.SIZE", (128, 64), "Pixels (height, width)."),
    # Validation set "<name>Val" of any data set <name> (Fig. 6), split off its training set. In DATASETS.TESTS the name
    # stands for the identities that are split off, in DATASETS.NAMES for the other identities.
    Key("DATASETS.VALIDATION.NUM_IDS", 100, "Identities that are split off.", more_than(0)),
    Key("DATASETS.VALIDATION.SEED", 0, "Seed of the choice of the identities and queries.", seed()),
    # A part of each data set, for machines on which the whole set takes too long. Its figures are not comparable with
    # those of the whole set, because distractors are left out with the other test identities.
    Key(
        "DATASETS.PART.NUM_TRAIN_IDS",
        0,
        "Identities of the training set that are kept; 0: all.",
        at_least(0, "0 (all) or more"),
    ),
    Key(
        "DATASETS.PART.NUM_TEST_IDS",
        0,
        "Identities of the query that are kept; 0: all.",
        at_least(0, "0 (all) or more"),
    ),
    Key("DATASETS.PART.SEED", 0, "Seed of the choice of the identities.", seed()),
    # -- Training --------------------------------------------------------------------------------
    Key(
        "SOLVER.WARMUP_EPOCHS",
        0.0,
        "Epochs of warm-up, also a fraction of one. They set SOLVER.WARMUP_ITERS, which counts steps; with 0, "
        "SOLVER.WARMUP_ITERS keeps its own value.",
    ),
    Key(
        "SOLVER.AMP.DTYPE",
        "auto",
        'Type of mixed precision (SOLVER.AMP.ENABLED): "float16", whose gradients are scaled, or "bfloat16". "auto": '
        "float16 on CUDA, bfloat16 on the CPU.",
        choice("auto", "float16", "bfloat16"),
    ),
    Key(
        "SOLVER.CHECKPOINTS_KEPT",
        0,
        "How many of the newest periodic checkpoints are kept, besides model_best and model_final; 0: all.",
        at_least(0),
    ),
    # -- Evaluation ------------------------------------------------------------------------------
    Key(
        "TEST.REGION_IOU.ENABLED",
        True,
        "Mean IoU of each region's predicted box with the box of the key points, where test images have key points.",
    ),
    Key(
        "TEST.REPORT",
        False,
        "Let --eval-only write report.html into OUTPUT_DIR: figures with intervals, curves, pairs of cameras, the "
        "worst queries. The file has test images in it.",
    ),
    Key(
        "TEST.AMP.ENABLED",
        False,
        "Inference in mixed precision. Features and boxes are float32 all the same.",
    ),
    Key(
        "TEST.AMP.DTYPE",
        "auto",
        'Type of mixed precision at inference: "float16" or "bfloat16". "auto": float16 on CUDA, bfloat16 on the CPU.',
        choice("auto", "float16", "bfloat16"),
    ),
    Key(
        "TEST.RERANK.SEARCH",
        "auto",
        'What finds the neighbours for re-ranking and query expansion, exactly. "auto" and "torch": torch, on the '
        'model\'s device. "faiss": faiss on a GPU (pip install faiss-gpu); where it cannot, torch, after a warning.',
        choice("auto", "torch", "faiss"),
    ),
    # Occluded test images (Table 6), of any model: a box of an image is erased, filled with INPUT.REA.VALUE.
    Key("TEST.OCCLUSION.ENABLED", False, "Occlude images of query and gallery."),
    Key("TEST.OCCLUSION.PROB", 0.5, "Probability of an image to be occluded.", between(0, 1)),
    Key(
        "TEST.OCCLUSION.SEED", 0, "The occluded images and their boxes follow from this seed and the file names alone."
    ),
    Key("SEED", -1, "Seed of Python, NumPy and torch; -1 takes a random one."),
    Key(
        "DETERMINISTIC",
        False,
        "On one GPU, trainings with the same SEED (0 or more) end in the same bits, and so does one that was cut and "
        "resumed. Slower: it takes deterministic kernels, and overrides CUDNN_BENCHMARK. On a CPU that holds without "
        "it.",
    ),
)


_of_plugins: dict[str, Key] = {}


def add_key(key: Key) -> None:
    """Add a plugin's own config key, to be called while the plugin is imported.

    Raises:
        ConfigError: there is a key or a section of this name already.
    """
    node: Any = get_cfg()
    add_mgre_config(node)
    for part in key.name.split("."):
        if not isinstance(node, CfgNode):  # a value stands where the name wants a section
            break
        if part not in node:
            _of_plugins[key.name] = key
            return
        node = node[part]
    raise ConfigError(f"a plugin adds the config key {key.name}, whose name is taken: choose another")


def all_keys() -> tuple[Key, ...]:
    """:data:`KEYS`, and those that plugins have added."""
    return (*KEYS, *_of_plugins.values())


def add_mgre_config(cfg: CfgNode) -> None:
    """Add :func:`all_keys` with their defaults to a config of the toolbox."""
    for key in all_keys():
        *sections, name = key.name.split(".")
        node = cfg
        for section in sections:
            if section not in node:
                node[section] = CfgNode()
            node = node[section]
        node[name] = key.default
