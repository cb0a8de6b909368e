"""The config keys that MGRe adds to the toolbox's."""

from fastreid.config import CfgNode


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
    # Weight of the location loss, Eq. (3), in the stage losses; 0 trains without key points. Above 1, as Eq. (2) is
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

    # Inference in half precision, without scaling; features and boxes are float32 all the same.
    cfg.TEST.AMP = CfgNode({"ENABLED": False})
    # Type of autocast on CUDA: "float16" or "bfloat16". The CPU takes bfloat16 in any case.
    cfg.TEST.AMP.DTYPE = "float16"

    # Occluded test images (Table 6), of any model: a box of an image is erased, filled with INPUT.REA.VALUE.
    cfg.TEST.OCCLUSION = CfgNode({"ENABLED": False})
    # Probability of an image, query or gallery, to be occluded.
    cfg.TEST.OCCLUSION.PROB = 0.5
    # Which images, and where, follows from it and the image's file name alone.
    cfg.TEST.OCCLUSION.SEED = 0

    # Seed of Python, NumPy and torch; -1 takes a random one.
    cfg.SEED = -1
