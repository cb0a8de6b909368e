"""What is looked at when the data sets have been read, before the first step; no image is opened for it."""

import logging
from collections import defaultdict
from collections.abc import Iterable

from fastreid.config import CfgNode
from fastreid.data.datasets.bases import ImageDataset

from mgre.data.datasets import build_dataset, split_items
from mgre.data.torch_dataset import Item
from mgre.errors import DataError, first_names

logger = logging.getLogger(__name__)


def check_datasets(cfg: CfgNode, *, will_train: bool) -> None:
    """Look for what would let an evaluation fail, and warn of what would make its figures too good.

    All processes have to call this function.

    Args:
        will_train: look at the training sets too.

    Raises:
        ConfigError, DataError, SetupError: see :func:`build_dataset`; and a split is empty, or no query of a test set
            has a match.
    """
    for name in cfg.DATASETS.TESTS:
        dataset = build_dataset(cfg, name)
        check_matches(split_items(dataset, name, "query"), split_items(dataset, name, "gallery"), name)
    for name in cfg.DATASETS.NAMES if will_train else ():
        dataset = build_dataset(cfg, name, combineall=cfg.DATASETS.COMBINEALL)
        split_items(dataset, name, "train")
        shared = shared_identities(dataset) if name in cfg.DATASETS.TESTS else []
        if shared:
            logger.warning(
                "Data set %s: identities that the training set and the test set share: %d (%s). The test is of people "
                "the model has learned, and its figures are too good. Leave their images in one of the two, or give "
                "people who only have the same number other numbers",
                name,
                len(shared),
                first_names(shared),
            )


def check_matches(query: Iterable[Item], gallery: Iterable[Item], name: str) -> None:
    """Raise a DataError where an evaluation would have nothing to find.

    Args:
        name: the data set's, for the message.
    """
    cameras_of: dict[object, set[object]] = defaultdict(set)
    for _, identity, camera in gallery:
        cameras_of[identity].add(camera)
    if any(cameras_of.get(identity, set()) - {camera} for _, identity, camera in query):
        return
    identities = {identity for _, identity, _ in query}
    cameras = set.union({camera for _, _, camera in query}, *cameras_of.values())
    if not identities & cameras_of.keys():
        remedy = "query and gallery have no identity in common: check the identities of their images"
    elif len(cameras) == 1:
        remedy = (
            "all test images are of one camera: give the cameras their own numbers, or where there is one camera only, "
            "the visits, as in 'Cameras and the same-camera rule' of docs/custom-data.md"
        )
    else:
        remedy = "check the identities and cameras of the query and gallery images"
    raise DataError(
        f"Data set {name}: no query has a match: no gallery image shows a query's identity from another camera; "
        + remedy
    )


def shared_identities(dataset: ImageDataset) -> list[str]:
    """The labels of the training identities that are test identities too, sorted; junk and background are none.

    Empty for data sets whose labels do not say which training identity is which test identity: those without
    ``training_labels``.
    """
    labels = getattr(dataset, "training_labels", {})
    people = {identity for _, identity, _ in (*dataset.query, *dataset.gallery)} - set(dataset._junk_pids)
    return sorted({labels[i] for i in people if i in labels} & {identity for _, identity, _ in dataset.train})
