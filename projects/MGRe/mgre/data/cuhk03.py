"""CUHK03 in the new protocol (Zhong et al., CVPR 2017: 767 training and 700 test identities), by box source."""

import os
from typing import Any

from fastreid.data.datasets import CUHK03, DATASET_REGISTRY

from mgre.errors import SetupError


class CUHK03NewProtocol(CUHK03):
    """The toolbox's reader with other constructor arguments, for which the toolbox has no config keys.

    Args:
        root: the data folder; the data set is in its folder ``cuhk03``.
        labeled: whether the boxes are drawn by hand; else a detector found them.

    Raises:
        SetupError: the images are still in the MATLAB files, and a package that reads them is missing.
    """

    def __init__(self, *, root: str, labeled: bool, **kwargs: Any) -> None:
        super().__init__(root, cuhk03_labeled=labeled, cuhk03_classic_split=False, **kwargs)
        # The toolbox's split files keep the paths of the first run, which are wrong after the folder has been moved.
        images_dir = self.imgs_labeled_dir if labeled else self.imgs_detected_dir
        self._train, self._query, self._gallery = (
            [(os.path.join(images_dir, os.path.basename(path)), identity, camera) for path, identity, camera in items]
            for items in (self.train, self.query, self.gallery)
        )

    def preprocess_split(self) -> None:
        try:
            super().preprocess_split()
        except ImportError as error:
            raise SetupError(
                f"CUHK03's MATLAB files need the package {error.name}: pip install h5py imageio"
            ) from error


@DATASET_REGISTRY.register()
class CUHK03Detected(CUHK03NewProtocol):
    """CUHK03, new protocol, detected boxes: 7365 training, 1400 query and 5332 gallery images."""

    def __init__(self, *, root: str = "datasets", **kwargs: Any) -> None:
        super().__init__(root=root, labeled=False, **kwargs)


@DATASET_REGISTRY.register()
class CUHK03Labeled(CUHK03NewProtocol):
    """CUHK03, new protocol, labeled boxes: 7368 training, 1400 query and 5328 gallery images."""

    def __init__(self, *, root: str = "datasets", **kwargs: Any) -> None:
        super().__init__(root=root, labeled=True, **kwargs)
