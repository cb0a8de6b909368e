"""Data sets, key points and loaders; importing it registers the data sets."""

from mgre.data.coco_file import load_keypoints
from mgre.data.cuhk03 import CUHK03Detected, CUHK03Labeled
from mgre.data.custom import CustomReID
from mgre.data.datasets import build_dataset, dataset_folder, list_images
from mgre.data.keypoint_lookup import uses_keypoints
from mgre.data.keypoints import COCO_KEYPOINTS, FLIP_PAIRS, ImageKeypoints
from mgre.data.loaders import build_test_loader, build_train_loader
from mgre.data.synthetic import SyntheticPedestrians
from mgre.data.torch_dataset import KeypointDataset, ReIDDataset
from mgre.data.transforms import build_keypoint_transforms
from mgre.reading.images import ImageError

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
