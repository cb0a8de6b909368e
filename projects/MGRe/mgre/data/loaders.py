"""Loaders for training and test, from the config, through the toolbox's."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from fastreid.config import CfgNode
from fastreid.data import build_reid_test_loader, build_reid_train_loader
from fastreid.data.datasets.bases import ImageDataset
from fastreid.utils import comm
from torch.utils.data import DataLoader

from mgre.data.batches import Collate
from mgre.data.datasets import build_dataset, dataset_folder, split_items
from mgre.data.epoch_sampler import draw_by_epoch
from mgre.data.keypoint_lookup import find_test_keypoints, find_train_keypoints, uses_keypoints
from mgre.data.occlusion import Occlusion
from mgre.data.torch_dataset import KeypointDataset, ReIDDataset
from mgre.data.transforms import build_image_transforms, build_keypoint_transforms
from mgre.data.validation_split import base_of_validation
from mgre.errors import ConfigError

logger = logging.getLogger(__name__)


def build_train_loader(cfg: CfgNode) -> DataLoader[Any]:
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
    build_transforms = build_keypoint_transforms if with_keypoints else build_image_transforms
    transform = build_transforms(cfg, is_train=True)
    datasets = {}
    for name in cfg.DATASETS.NAMES:
        datasets[name] = build_dataset(cfg, name, combineall=cfg.DATASETS.COMBINEALL)
        if comm.is_main_process():
            datasets[name].show_train()
    items_of = {name: split_items(dataset, name, "train") for name, dataset in datasets.items()}
    items = [item for members in items_of.values() for item in members]
    if with_keypoints:
        train_set = KeypointDataset(
            items,
            transform,
            keypoints=find_train_keypoints(cfg, datasets, items_of),
            min_score=cfg.DATASETS.KEYPOINT_MIN_SCORE,
        )
    else:
        train_set = ReIDDataset(items, transform)
    train_set.skip_unreadable = True  # what is to stop a training is looked for before it
    loader = draw_by_epoch(build_reid_train_loader(cfg, train_set=train_set, transforms=transform))
    loader.collate_fn = Collate(cfg.INPUT.REA.VALUE)
    return loader


def build_test_loader(cfg: CfgNode, dataset_name: str) -> tuple[DataLoader[Any], int]:
    """The toolbox's test loader over query and gallery images, and the number of query images.

    Batches are those of :func:`build_train_loader`; ``keypoints`` are in them where region IoU is to be measured and
    the data set has a key point file. With TEST.OCCLUSION some of the images are occluded, for any model.

    With DATASETS.UNREADABLE_IMAGES skip the images that cannot be read are missing in the batches, and a batch without
    any image is an empty dict. After a pass over the loader
    :func:`mgre.data.unreadable.count_readable_queries` says which images are missing, and how many queries are left.

    Raises:
        ConfigError, DataError, SetupError: see :func:`build_dataset`; and a split is empty, or a key point file is
            malformed.
    """
    dataset = build_dataset(cfg, dataset_name)
    if comm.is_main_process():
        dataset.show_test()
    query, gallery = (split_items(dataset, dataset_name, split) for split in ("query", "gallery"))
    items = query + gallery
    keypoints = find_test_keypoints(cfg, dataset, items)
    if keypoints:
        test_set = KeypointDataset(
            items,
            build_keypoint_transforms(cfg, is_train=False),
            keypoints=keypoints,
            min_score=cfg.DATASETS.KEYPOINT_MIN_SCORE,
            relabel=False,
        )
    else:
        test_set = ReIDDataset(items, build_image_transforms(cfg, is_train=False), relabel=False)
    if cfg.TEST.OCCLUSION.ENABLED:
        test_set.occlusion = _build_occlusion(cfg, dataset, dataset_name)
    test_set.leave_out_unreadable = cfg.DATASETS.UNREADABLE_IMAGES == "skip"
    # Argument by argument: given the config, the toolbox leaves out the number of workers.
    loader, num_query = build_reid_test_loader(
        test_set,
        test_batch_size=cfg.TEST.IMS_PER_BATCH,
        num_query=len(query),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    loader.collate_fn = Collate(cfg.INPUT.REA.VALUE)
    # The loader draws a seed for its workers when they start, which is not at each evaluation. From a generator of its
    # own, an evaluation does not change the process's generator, whether or not it starts workers.
    loader.generator = torch.Generator()
    return loader, num_query


def end_workers(loaders: Iterable[Any]) -> None:
    """End the processes that load for these loaders, as far as they are the toolbox's; see :mod:`mgre.compat.loading`.

    The next ``iter`` of a loader starts new ones.
    """
    for loader in loaders:
        end = getattr(loader, "end_workers", None)
        if end is None:
            continue
        try:
            end()
        except RuntimeError:  # torch raises it in whatever runs when a worker was killed, which is no harm here
            logger.debug("A worker was killed before it was ended", exc_info=True)


def _check_validation_is_unseen(cfg: CfgNode) -> None:
    for name in cfg.DATASETS.TESTS:
        base = base_of_validation(name)
        if base in cfg.DATASETS.NAMES:
            raise ConfigError(
                f"DATASETS.NAMES has {base}, which has all identities of {name} in DATASETS.TESTS: train on {name}, "
                f"or test on {base}"
            )


def _build_occlusion(cfg: CfgNode, dataset: ImageDataset, name: str) -> Occlusion:
    options = cfg.TEST.OCCLUSION
    logger.info("Test images of %s are occluded with probability %g, seed %d", name, options.PROB, options.SEED)
    return Occlusion(folder=dataset_folder(dataset), prob=options.PROB, seed=options.SEED, value=cfg.INPUT.REA.VALUE)
