"""Data sets and loaders from the config, through the toolbox's registry and loaders."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import itemgetter

from fastreid.config import CfgNode
from fastreid.data import build_reid_test_loader, build_reid_train_loader
from fastreid.data.datasets import CUHK03, DATASET_REGISTRY, MSMT17, DukeMTMC, Market1501
from fastreid.data.datasets.bases import ImageDataset
from fastreid.data.transforms import build_transforms
from fastreid.utils import comm
from fastreid.utils.logger import log_first_n
from torch.utils.data import DataLoader

from mgre.data.checks import leave_out_unreadable
from mgre.data.dataset import Item, KeypointDataset, ReIDDataset
from mgre.data.keypoints import ImageKeypoints, file_name_of, find_keypoint_file, load_keypoints, match_keypoints
from mgre.data.occlusion import Occlusion
from mgre.data.part import DatasetPart
from mgre.data.published import PUBLISHED_SETS, count_differences
from mgre.data.sampling import draw_by_epoch
from mgre.data.transforms import build_keypoint_transforms
from mgre.data.validation import ValidationSplit, base_of_validation
from mgre.errors import ConfigError, DataError, MGReError, SetupError, nearest

logger = logging.getLogger(__name__)

# What the toolbox's readers raise when a folder or a file name is not as they expect.
READER_ERRORS = (RuntimeError, AssertionError, AttributeError, ValueError, LookupError, OSError)


def uses_keypoints(cfg: CfgNode) -> bool:
    """Whether training needs key points: for a location loss, or as the source of the regions' boxes."""
    return takes_boxes_from_keypoints(cfg) or (_has_location_modules(cfg) and cfg.MODEL.MGRE.LOCATION.LOSS_WEIGHT > 0)


def takes_boxes_from_keypoints(cfg: CfgNode) -> bool:
    """Whether the model takes its boxes from key points, in training and at test."""
    return _has_regions(cfg) and cfg.MODEL.MGRE.BOXES == "keypoints"


def build_dataset(cfg: CfgNode, name: str, *, combineall: bool = False) -> ImageDataset:
    """Read the registered data set ``name`` from the data folder (``FASTREID_DATASETS``, else ``datasets``).

    ``<name>Val`` is its training set, of which DATASETS.VALIDATION.NUM_IDS identities are split off as the test set.
    DATASETS.PART keeps some of the identities.

    Several processes must all call it: the first one of each machine goes ahead, since some readers write files.

    Args:
        cfg: given to data sets that have a ``from_config``.
        name: as in ``DATASETS.NAMES`` and ``DATASETS.TESTS``.
        combineall: train on the test images too.

    Raises:
        ConfigError: no data set has that name; or it is a validation set, and the test images are to be trained on.
        DataError: its folder is missing or has another layout, or it has too few identities for a validation set.
        SetupError: reading it takes a package that is not installed.
    """
    if base := base_of_validation(name):
        return _split_off_validation(cfg, name, base, combineall)
    known = DATASET_REGISTRY._obj_map
    if name not in known:
        raise ConfigError(
            f"Data set '{name}' is not registered{nearest(name, known)}; known ones: {', '.join(sorted(known))}"
        )
    root = os.environ.get("FASTREID_DATASETS", "datasets")
    with _first_process_of_machine_first():
        dataset = _read_dataset(cfg, name, root, combineall)
    differences = count_differences(dataset, name, combineall=combineall)
    if differences:
        # Once, although the test sets are read again at each evaluation.
        log_first_n(
            logging.WARNING,
            f"{name} in '{dataset_folder(dataset)}' is not the published set: {', '.join(differences)}",
            name=__name__,
            key="message",
        )
    part = cfg.DATASETS.PART
    if not (part.NUM_TRAIN_IDS or part.NUM_TEST_IDS):
        return dataset
    return DatasetPart(
        dataset,
        name=name,
        folder=dataset_folder(dataset),
        num_train_ids=part.NUM_TRAIN_IDS,
        num_test_ids=part.NUM_TEST_IDS,
        seed=part.SEED,
    )


def dataset_folder(dataset: ImageDataset) -> str:
    """The folder to which the ``file_name`` of key point files is relative."""
    if hasattr(dataset, "folder"):
        return dataset.folder
    if isinstance(dataset, Market1501):
        return dataset.data_dir
    if isinstance(dataset, DukeMTMC | CUHK03):
        return dataset.dataset_dir
    if isinstance(dataset, MSMT17):
        return os.path.dirname(dataset.train_dir)
    folders = {os.path.dirname(item[0]) for split in ("train", "query", "gallery") for item in getattr(dataset, split)}
    return os.path.commonpath(folders) if folders else ""


def list_images(cfg: CfgNode, *, train_only: bool = False) -> dict[str, list[str]]:
    """The paths of all images the config trains or tests on, by the folder to which key point files refer.

    Args:
        train_only: leave out those it only tests on.

    Raises:
        ConfigError, DataError, SetupError: see :func:`build_dataset`.
    """
    splits = {} if train_only else {name: ["query", "gallery"] for name in cfg.DATASETS.TESTS}
    for name in cfg.DATASETS.NAMES:
        splits.setdefault(name, []).append("train")
    paths: dict[str, set[str]] = {}
    for name, members in splits.items():
        dataset = build_dataset(cfg, name, combineall=cfg.DATASETS.COMBINEALL and name in cfg.DATASETS.NAMES)
        items = (item for split in members for item in getattr(dataset, split))
        paths.setdefault(dataset_folder(dataset), set()).update(item[0] for item in items)
    return {folder: sorted(members) for folder, members in paths.items()}


def build_train_loader(cfg: CfgNode) -> DataLoader:
    """The toolbox's training loader over all of ``DATASETS.NAMES``; with key points where the location loss is on.

    Batches are dicts: ``images`` (B, 3, H, W) float32 from 0 to 255, ``targets`` (B,), ``camids`` (B,), ``img_paths``
    and, with the location loss, ``keypoints`` (B, 17, 3): normalised x and y, trusted.

    Raises:
        ConfigError, DataError, SetupError: see :func:`build_dataset`; and a split is empty, key points are missing or
            malformed, or an augmentation cannot carry them.
    """
    _check_validation_is_unseen(cfg)
    with_keypoints = uses_keypoints(cfg)
    # First, because it refuses a config at once, and a large data set takes its time.
    transform = (
        build_keypoint_transforms(cfg, is_train=True) if with_keypoints else build_transforms(cfg, is_train=True)
    )
    datasets = {}
    for name in cfg.DATASETS.NAMES:
        datasets[name] = build_dataset(cfg, name, combineall=cfg.DATASETS.COMBINEALL)
        if comm.is_main_process():
            datasets[name].show_train()
    items_of = {name: _split(dataset, name, "train") for name, dataset in datasets.items()}
    items = [item for members in items_of.values() for item in members]
    if with_keypoints:
        train_set = KeypointDataset(
            items,
            transform,
            keypoints=_train_keypoints(cfg, datasets, items_of),
            min_score=cfg.DATASETS.KEYPOINT_MIN_SCORE,
        )
    else:
        train_set = ReIDDataset(items, transform)
    train_set.skip_unreadable = True  # what is to stop a training is looked for before it
    return draw_by_epoch(build_reid_train_loader(cfg, train_set=train_set, transforms=transform))


def build_test_loader(cfg: CfgNode, dataset_name: str) -> tuple[DataLoader, int]:
    """The toolbox's test loader over query and gallery images, and the number of query images.

    Batches are those of :func:`build_train_loader`; ``keypoints`` are in them where region IoU is to be measured and
    the data set has a key point file. With TEST.OCCLUSION some of the images are occluded, for any model.

    Raises:
        ConfigError, DataError, SetupError: see :func:`build_dataset`; and a split is empty, or a key point file is
            malformed.
    """
    dataset = build_dataset(cfg, dataset_name)
    if comm.is_main_process():
        dataset.show_test()
    query, gallery = (_split(dataset, dataset_name, split) for split in ("query", "gallery"))
    if cfg.DATASETS.UNREADABLE_IMAGES == "skip":
        with _first_process_of_machine_first():  # it notes for the others what it has read
            query, gallery = (leave_out_unreadable(items, cfg.OUTPUT_DIR) for items in (query, gallery))
    items = query + gallery
    keypoints = _test_keypoints(cfg, dataset, items)
    if keypoints:
        test_set = KeypointDataset(
            items,
            build_keypoint_transforms(cfg, is_train=False),
            keypoints=keypoints,
            min_score=cfg.DATASETS.KEYPOINT_MIN_SCORE,
            relabel=False,
        )
    else:
        test_set = ReIDDataset(items, build_transforms(cfg, is_train=False), relabel=False)
    if cfg.TEST.OCCLUSION.ENABLED:
        test_set.occlusion = _build_occlusion(cfg, dataset, dataset_name)
    # Argument by argument: given the config, the toolbox leaves out the number of workers.
    return build_reid_test_loader(
        test_set,
        test_batch_size=cfg.TEST.IMS_PER_BATCH,
        num_query=len(query),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def _has_regions(cfg: CfgNode) -> bool:
    return cfg.MODEL.META_ARCHITECTURE == "MGRe" and len(cfg.MODEL.MGRE.STAGES) > 0


def _has_location_modules(cfg: CfgNode) -> bool:
    return _has_regions(cfg) and cfg.MODEL.MGRE.BOXES == "location"


@contextmanager
def _first_process_of_machine_first() -> Iterator[None]:
    first = comm.get_local_rank() == 0
    if not first:
        comm.synchronize()
    try:
        yield
    finally:
        if first:
            comm.synchronize()


def _read_dataset(cfg: CfgNode, name: str, root: str, combineall: bool) -> ImageDataset:
    """Construct the data set and read its splits, which some readers put off."""
    reader = DATASET_REGISTRY.get(name)
    construct = partial(reader, cfg) if hasattr(reader, "from_config") else reader
    try:
        with warnings.catch_warnings():
            # Market1501 gives this also where it goes on to fail, and our error says more.
            warnings.filterwarnings("ignore", "The current data structure is deprecated")
            dataset = construct(root=root, combineall=combineall)
        for split in ("train", "query", "gallery"):
            getattr(dataset, split)
    except MGReError:
        raise
    except ImportError as error:
        raise SetupError(f"Data set {name} needs the package {error.name}: pip install {error.name}") from error
    except READER_ERRORS as error:
        layout = PUBLISHED_SETS[name].layout if name in PUBLISHED_SETS else f"see {reader.__module__}"
        given = "FASTREID_DATASETS" if "FASTREID_DATASETS" in os.environ else "./datasets: FASTREID_DATASETS is not set"
        # The toolbox's reason comes last: its reader may have gone on to another folder, where older layouts were.
        raise DataError(
            f"Data set {name} cannot be read from '{os.path.abspath(root)}' ({given}), where it looked for {layout}; "
            f"put it there, or set FASTREID_DATASETS to the folder that has it (the toolbox's reader: {_reason(error)})"
        ) from error
    return dataset


def _split_off_validation(cfg: CfgNode, name: str, base: str, combineall: bool) -> ValidationSplit:
    if combineall:
        raise ConfigError(
            f"DATASETS.COMBINEALL is True, which would train on the identities that {name} splits off: set it to "
            f"False, or train on {base}"
        )
    whole = build_dataset(cfg, base)
    options = cfg.DATASETS.VALIDATION
    return ValidationSplit(
        whole.train, name=name, folder=dataset_folder(whole), num_ids=options.NUM_IDS, seed=options.SEED
    )


def _check_validation_is_unseen(cfg: CfgNode) -> None:
    for name in cfg.DATASETS.TESTS:
        base = base_of_validation(name)
        if base in cfg.DATASETS.NAMES:
            raise ConfigError(
                f"DATASETS.NAMES has {base}, which has all identities of {name} in DATASETS.TESTS: train on {name}, "
                f"or test on {base}"
            )


def _reason(error: Exception) -> str:
    """The toolbox's error in words; a file name its pattern does not match leaves it with None."""
    if isinstance(error, AttributeError):
        return "the name of an image does not have the form identity_camera"
    text = " ".join(str(error).split())
    return text or "an identity or a camera in the name of an image is out of the set's range"


def _split(dataset: ImageDataset, name: str, split: str) -> list[Item]:
    """The items of a split, sorted by path: readers list folders in any order, which need not be the same on two
    machines that share the work."""
    items = sorted(getattr(dataset, split), key=itemgetter(0))
    if not items:
        raise DataError(
            f"Data set {name} has no {split} images in '{dataset_folder(dataset) or 'its folder'}'; "
            f"complete it, or take it out of DATASETS.{'NAMES' if split == 'train' else 'TESTS'}"
        )
    return items


def _train_keypoints(
    cfg: CfgNode, datasets: dict[str, ImageDataset], items_of: dict[str, Sequence[Item]]
) -> dict[str, ImageKeypoints]:
    """The key points of all training images, by path."""
    file_name, min_score = cfg.DATASETS.KEYPOINTS, cfg.DATASETS.KEYPOINT_MIN_SCORE
    allow_missing = cfg.DATASETS.ALLOW_MISSING_KEYPOINTS
    keypoints: dict[str, ImageKeypoints] = {}
    looked_for = []
    for name, dataset in datasets.items():
        folder = dataset_folder(dataset)
        path = find_keypoint_file(file_name, folder)
        if path is None:
            looked_for.append(f"'{os.path.join(folder, file_name)}' ({name})")
            continue
        content = load_keypoints(path, min_score=min_score)
        image_paths = [item[0] for item in items_of[name]]
        found = match_keypoints(content, image_paths, folder)
        if not found:
            examples = next(iter(content), ""), file_name_of(image_paths[0], folder)
            raise DataError(
                f"Key point file '{path}' is of another data set: it has no training image of {name} "
                f"(its first file_name is '{examples[0]}', the data set's first image is '{examples[1]}'); "
                "set DATASETS.KEYPOINTS to the right file, with file names relative to the data set's folder"
            )
        keypoints.update(found)
    if looked_for and not (keypoints and allow_missing):
        raise DataError(
            f"No key point file: {', '.join(looked_for)} does not exist; set DATASETS.KEYPOINTS to the file, "
            "or train without them: MODEL.MGRE.LOCATION.LOSS_WEIGHT 0, and no MODEL.MGRE.BOXES keypoints"
        )
    _check_coverage(cfg, keypoints, sum(len(items) for items in items_of.values()), "training")
    return keypoints


def _test_keypoints(cfg: CfgNode, dataset: ImageDataset, items: Sequence[Item]) -> dict[str, ImageKeypoints]:
    """The key points of test images, by path; empty where they are not wanted or there are none.

    Raises:
        DataError: the boxes come from them, and there are none.
    """
    needed = takes_boxes_from_keypoints(cfg)
    if not needed and not (_has_location_modules(cfg) and cfg.TEST.REGION_IOU.ENABLED):
        return {}
    folder = dataset_folder(dataset)
    path = find_keypoint_file(cfg.DATASETS.KEYPOINTS, folder)
    if path is None:
        if needed:
            raise DataError(
                f"MODEL.MGRE.BOXES keypoints needs key points of the test images, but "
                f"'{os.path.join(folder, cfg.DATASETS.KEYPOINTS)}' does not exist: find them with "
                "tools/extract_keypoints.py, or set DATASETS.KEYPOINTS to the file"
            )
        return {}
    content = load_keypoints(path, min_score=cfg.DATASETS.KEYPOINT_MIN_SCORE)
    keypoints = match_keypoints(content, [item[0] for item in items], folder)
    if needed:
        _check_coverage(cfg, keypoints, len(items), "test")
    return keypoints


def _check_coverage(cfg: CfgNode, keypoints: dict[str, ImageKeypoints], num_images: int, split: str) -> None:
    """Log how many of ``num_images`` have no trusted key points; raise a DataError if they are most of them."""
    min_score = cfg.DATASETS.KEYPOINT_MIN_SCORE
    num_missing = num_images - sum(bool(found.trusted(min_score).any()) for found in keypoints.values())
    logger.info(f"{num_missing} of {num_images} {split} images have no trusted key points")
    if 2 * num_missing > num_images and not cfg.DATASETS.ALLOW_MISSING_KEYPOINTS:
        raise DataError(
            f"{num_missing} of {num_images} {split} images have no key point with a score of at least {min_score} "
            f"(DATASETS.KEYPOINT_MIN_SCORE); complete the key point file (DATASETS.KEYPOINTS is "
            f"'{cfg.DATASETS.KEYPOINTS}'), or set DATASETS.ALLOW_MISSING_KEYPOINTS True"
        )


def _build_occlusion(cfg: CfgNode, dataset: ImageDataset, name: str) -> Occlusion:
    options = cfg.TEST.OCCLUSION
    logger.info("Test images of %s are occluded with probability %g, seed %d", name, options.PROB, options.SEED)
    return Occlusion(folder=dataset_folder(dataset), prob=options.PROB, seed=options.SEED, value=cfg.INPUT.REA.VALUE)
