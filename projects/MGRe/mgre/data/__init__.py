"""Data sets, key points and loaders; importing it registers the data sets."""

from mgre.data.build import (
    build_dataset,
    build_test_loader,
    build_train_loader,
    dataset_folder,
    list_images,
    uses_keypoints,
)
from mgre.data.cuhk03 import CUHK03Detected, CUHK03Labeled
from mgre.data.custom import CustomReID
from mgre.data.dataset import ImageError, KeypointDataset, ReIDDataset
from mgre.data.keypoints import COCO_KEYPOINTS, FLIP_PAIRS, ImageKeypoints, load_keypoints
from mgre.data.synthetic import SyntheticPedestrians
from mgre.data.transforms import build_keypoint_transforms

__all__ = [
    "COCO_KEYPOINTS",
    "FLIP_PAIRS",
    "CUHK03Detected",
    "CUHK03Labeled",
    "CustomReID",
    "ImageError",
    "ImageKeypoints",
    "KeypointDataset",
    "ReIDDataset",
    "SyntheticPedestrians",
    "build_dataset",
    "build_keypoint_transforms",
    "build_test_loader",
    "build_train_loader",
    "dataset_folder",
    "list_images",
    "load_keypoints",
    "uses_keypoints",
]
