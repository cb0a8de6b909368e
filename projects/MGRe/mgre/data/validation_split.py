"""A validation set split off the training set of any registered data set: ``<name>Val`` (Fig. 6)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset

from mgre.data.torch_dataset import Item
from mgre.errors import DataError

SUFFIX = "Val"


def base_of_validation(name: str) -> str | None:
    """The registered data set whose validation set ``name`` is; None if ``name`` is a data set itself or unknown."""
    known = DATASET_REGISTRY._obj_map
    base = name.removesuffix(SUFFIX)
    return base if base != name and base in known and name not in known else None


def validation_of(trained_on: str) -> str:
    """The validation set of a data set that was trained on: itself, if what remains of a validation split was."""
    return trained_on if base_of_validation(trained_on) else trained_on + SUFFIX


class ValidationSplit(ImageDataset):
    """A training set, of which some identities are split off as query and gallery.

    The evaluation is that of Market-1501: in each camera one image of an identity, chosen by the seed, is a query; the
    others are the gallery. A camera with a single image of the identity gives no query: the image stays in the gallery.
    Only identities that two cameras have seen, one of them twice, are split off, because then every query has a match.

    The split does not depend on the order of the images. Identities and cameras of the test images are numbered by
    their order among all identities and cameras of the training set, identities from 1 and cameras from 0.

    Args:
        items: the whole training set, (path, identity, camera).
        name: for messages.
        folder: the data set's folder.
        num_ids: identities to split off.
        seed: of the choice of identities and queries, 0 to 2^32 - 1.
        kwargs: of the toolbox's ``ImageDataset``.

    Raises:
        DataError: the training set has too few identities to split off, or none would remain.
    """

    def __init__(
        self, items: Iterable[Item], *, name: str, folder: str, num_ids: int = 100, seed: int = 0, **kwargs: Any
    ) -> None:
        self.folder = folder
        items = sorted(items, key=itemgetter(0))
        images: dict[Any, dict[Any, list[str]]] = defaultdict(lambda: defaultdict(list))
        for path, identity, camera in items:
            images[identity][camera].append(path)
        # RandomState, whose numbers no later NumPy will change, unlike default_rng's.
        rng = np.random.RandomState(seed)
        chosen = _choose(images, num_ids, rng, name)
        identity_numbers = {identity: number for number, identity in enumerate(sorted(images), start=1)}
        camera_numbers = {camera: number for number, camera in enumerate(sorted({item[2] for item in items}))}
        query: list[Item] = []
        gallery: list[Item] = []
        for identity in chosen:
            for camera, paths in sorted(images[identity].items()):
                picked = rng.randint(len(paths)) if len(paths) > 1 else None
                for index, path in enumerate(paths):
                    item = (path, identity_numbers[identity], camera_numbers[camera])
                    (query if index == picked else gallery).append(item)
        remaining = [item for item in items if item[1] not in set(chosen)]
        super().__init__(remaining, query, gallery, **kwargs)


def _choose(
    images: Mapping[Any, Mapping[Any, Sequence[str]]], num_ids: int, rng: np.random.RandomState, name: str
) -> list[Any]:
    """``num_ids`` of the identities that give a query with a match, sorted.

    Args:
        images: paths by identity and camera.
    """
    eligible = [i for i in sorted(images) if len(images[i]) > 1 and any(len(paths) > 1 for paths in images[i].values())]
    if num_ids > len(eligible) or num_ids >= len(images):
        raise DataError(
            f"Data set {name} cannot split off {num_ids} identities (DATASETS.VALIDATION.NUM_IDS): {len(eligible)} of "
            f"the {len(images)} in the training set were seen by two cameras, one of them twice, and some must remain "
            "to train on; lower it"
        )
    return sorted(eligible[index] for index in rng.permutation(len(eligible))[:num_ids])
