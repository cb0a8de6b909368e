"""Whether a run needs key points, and the key points of a data set's images."""

import logging
import os
from collections.abc import Mapping, Sequence

import numpy as np
from fastreid.config import CfgNode
from fastreid.data.datasets.bases import ImageDataset

from mgre.data.coco_file import best_people, read_people, trust_inside
from mgre.data.datasets import dataset_folder
from mgre.data.findings import Finding
from mgre.data.keypoint_checks import check_entries, check_places, require_sound
from mgre.data.keypoints import (
    NUM_KEYPOINTS,
    ImageKeypoints,
    file_name_of,
    find_keypoint_file,
    match_keypoints,
    trusted_points,
)
from mgre.data.torch_dataset import Item
from mgre.errors import DataError
from mgre.system.garbage import no_garbage_collection

logger = logging.getLogger(__name__)


def uses_keypoints(cfg: CfgNode) -> bool:
    """Whether training needs key points: for a location loss, or as the source of the regions' boxes."""
    return takes_boxes_from_keypoints(cfg) or (_has_location_modules(cfg) and cfg.MODEL.MGRE.LOCATION.LOSS_WEIGHT > 0)


def takes_boxes_from_keypoints(cfg: CfgNode) -> bool:
    """Whether the model takes its boxes from key points, in training and at test."""
    return _has_regions(cfg) and cfg.MODEL.MGRE.BOXES == "keypoints"


def _has_regions(cfg: CfgNode) -> bool:
    return cfg.MODEL.META_ARCHITECTURE == "MGRe" and len(cfg.MODEL.MGRE.STAGES) > 0


def _has_location_modules(cfg: CfgNode) -> bool:
    return _has_regions(cfg) and cfg.MODEL.MGRE.BOXES == "location"


def find_train_keypoints(
    cfg: CfgNode, datasets: Mapping[str, ImageDataset], items_of: Mapping[str, Sequence[Item]]
) -> dict[str, ImageKeypoints]:
    """The key points of all training images, by path."""
    file_name, allow_missing = cfg.DATASETS.KEYPOINTS, cfg.DATASETS.ALLOW_MISSING_KEYPOINTS
    keypoints: dict[str, ImageKeypoints] = {}
    looked_for = []
    for name, dataset in datasets.items():
        folder = dataset_folder(dataset)
        path = find_keypoint_file(file_name, folder)
        if path is None:
            looked_for.append(f"'{os.path.join(folder, file_name)}' ({name})")
            continue
        content, findings = _read_and_check(cfg, path)
        image_paths = [item[0] for item in items_of[name]]
        found = match_keypoints(content, image_paths, folder)
        if not found:
            examples = next(iter(content), ""), file_name_of(image_paths[0], folder)
            raise DataError(
                f"Key point file '{path}' is of another data set: it has no training image of {name} "
                f"(its first file_name is '{examples[0]}', the data set's first image is '{examples[1]}'); "
                "set DATASETS.KEYPOINTS to the right file, with file names relative to the data set's folder"
            )
        require_sound(findings, path, doubtful=cfg.DATASETS.DOUBTFUL_KEYPOINTS)
        keypoints.update(trust_inside(found, path, cfg.DATASETS.KEYPOINT_MIN_SCORE))
    if looked_for and not (keypoints and allow_missing):
        raise DataError(
            f"No key point file: {', '.join(looked_for)} does not exist; make it with tools/extract_keypoints.py and "
            "the same --config-file and overrides, or set DATASETS.KEYPOINTS to the file, or train without key points: "
            "MODEL.MGRE.LOCATION.LOSS_WEIGHT 0, and no MODEL.MGRE.BOXES keypoints"
        )
    _check_coverage(cfg, keypoints, sum(len(items) for items in items_of.values()), "training")
    return keypoints


def find_test_keypoints(cfg: CfgNode, dataset: ImageDataset, items: Sequence[Item]) -> dict[str, ImageKeypoints]:
    """The key points of test images, by path; empty where the run does not need them or there is no key point file.

    Raises:
        DataError: the model takes its boxes from key points, and the key points of most images are missing.
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
                f"'{os.path.join(folder, cfg.DATASETS.KEYPOINTS)}' does not exist: make it with "
                "tools/extract_keypoints.py and the same --config-file and overrides, or set DATASETS.KEYPOINTS to the "
                "file"
            )
        return {}
    content, findings = _read_and_check(cfg, path)
    keypoints = match_keypoints(content, [item[0] for item in items], folder)
    if keypoints:
        require_sound(findings, path, doubtful=cfg.DATASETS.DOUBTFUL_KEYPOINTS)
        keypoints = trust_inside(keypoints, path, cfg.DATASETS.KEYPOINT_MIN_SCORE)
    if needed:
        _check_coverage(cfg, keypoints, len(items), "test")
    return keypoints


def _read_and_check(cfg: CfgNode, path: str) -> tuple[dict[str, ImageKeypoints], list[Finding]]:
    """The key points of the file ``path`` by ``file_name``, and what speaks against their places."""
    with no_garbage_collection():
        names, people = read_people(path)
        keypoints = best_people(people)
        return keypoints, [*check_entries(names, people), *check_places(keypoints, cfg.DATASETS.KEYPOINT_MIN_SCORE)]


def _check_coverage(cfg: CfgNode, keypoints: dict[str, ImageKeypoints], num_images: int, split: str) -> None:
    """Log how many of ``num_images`` have no trusted key points; raise a DataError if most have none."""
    min_score = cfg.DATASETS.KEYPOINT_MIN_SCORE
    points = np.array([found.points for found in keypoints.values()]).reshape(-1, NUM_KEYPOINTS, 3)
    num_missing = num_images - int(trusted_points(points, min_score).any(axis=1).sum())
    logger.info(f"{num_missing} of {num_images} {split} images have no trusted key points")
    if 2 * num_missing > num_images and not cfg.DATASETS.ALLOW_MISSING_KEYPOINTS:
        raise DataError(
            f"{num_missing} of {num_images} {split} images have no key point with a score of at least {min_score} "
            f"(DATASETS.KEYPOINT_MIN_SCORE); complete the key point file (DATASETS.KEYPOINTS is "
            f"'{cfg.DATASETS.KEYPOINTS}'), or set DATASETS.ALLOW_MISSING_KEYPOINTS True"
        )
