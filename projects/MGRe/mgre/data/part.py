"""A part of a data set: some of its identities, for a training on a machine without a GPU."""

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import numpy as np
from fastreid.data.datasets.bases import ImageDataset

from mgre.data.torch_dataset import Item
from mgre.errors import DataError


class DatasetPart(ImageDataset):
    """The images of some training identities and of some test identities of a data set.

    Test identities are chosen among those of the query. The gallery keeps only the images of these identities. Without
    distractors the figures are higher than those of the whole set, so the two must not be compared. The part does not
    depend on the order of the images.

    Args:
        whole: the data set.
        name: for messages.
        folder: the data set's folder.
        num_train_ids: training identities to keep; 0 keeps all.
        num_test_ids: test identities to keep; 0 keeps all, and the distractors.
        seed: of the choice, 0 to 2^32 - 1.
        kwargs: of the toolbox's ``ImageDataset``.

    Raises:
        DataError: the data set has too few identities.
    """

    def __init__(
        self,
        whole: ImageDataset,
        *,
        name: str,
        folder: str,
        num_train_ids: int = 0,
        num_test_ids: int = 0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self.folder = folder
        self.training_labels = getattr(whole, "training_labels", {})
        self._junk_pids = whole._junk_pids
        train, query, gallery = whole.train, whole.query, whole.gallery
        if num_train_ids:
            train = _keep(train, _choose(train, num_train_ids, seed, f"{name} has {{}} training", "NUM_TRAIN_IDS"))
        if num_test_ids:
            chosen = _choose(query, num_test_ids, seed, f"{name} has {{}} query", "NUM_TEST_IDS")
            query, gallery = _keep(query, chosen), _keep(gallery, chosen)
        super().__init__(train, query, gallery, **kwargs)


def _keep(items: Iterable[Item], identities: set[Any]) -> list[Item]:
    return sorted((item for item in items if item[1] in identities), key=itemgetter(0))


def _choose(items: Iterable[Item], number: int, seed: int, found: str, key: str) -> set[Any]:
    identities = sorted({item[1] for item in items})
    if number > len(identities):
        raise DataError(
            f"Data set {found.format(len(identities))} identities; DATASETS.PART.{key} is {number}: lower it, "
            "or set it to 0 for all"
        )
    # RandomState, whose numbers no later NumPy will change, unlike default_rng's.
    return {identities[index] for index in np.random.RandomState(seed).permutation(len(identities))[:number]}
