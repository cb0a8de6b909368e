"""CUHK03 in the new protocol (Zhong et al., CVPR 2017: 767 training and 700 test identities), by box source."""

import json
import os
from typing import Any

from fastreid.data.datasets import CUHK03, DATASET_REGISTRY

from mgre.errors import DataError, SetupError
from mgre.system.file_kinds import foreign_kind


class CUHK03NewProtocol(CUHK03):
    """The toolbox's reader with other constructor arguments, for which the toolbox has no config keys.

    Args:
        root: the data folder; the data set is in its folder ``cuhk03``.
        labeled: whether the boxes are drawn by hand; else a detector found them.

    Raises:
        SetupError: the images are still in the MATLAB files, and a package that reads them is missing.
        DataError: a MATLAB file or a split file that was made from it is damaged.
    """

    def __init__(self, *, root: str, labeled: bool, **kwargs: Any) -> None:
        try:
            super().__init__(root, cuhk03_labeled=labeled, cuhk03_classic_split=False, **kwargs)
        except json.JSONDecodeError as error:
            split = self.split_new_lab_json_path if labeled else self.split_new_det_json_path
            raise DataError(f"'{split}' is damaged ({error}); remove it, and the next start makes it again") from error
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


def check_matlab_files(dataset: CUHK03) -> None:
    """Open the three MATLAB files, before the images are taken out of them.

    Raises:
        DataError: one of them is another file, cut short or damaged.
    """
    import h5py
    from scipy import io

    readers = {
        dataset.raw_mat_path: lambda path: h5py.File(path, "r").close(),
        dataset.split_new_det_mat_path: io.loadmat,
        dataset.split_new_lab_mat_path: io.loadmat,
    }
    for path, read in readers.items():
        kind = foreign_kind(path)
        try:
            if not kind:
                read(path)
        except Exception as error:  # scipy raises many kinds of errors, and each means that this file is at fault
            kind = f"cut short or damaged ({os.path.getsize(path)} bytes; {' '.join(str(error).split())})"
        if kind:
            raise DataError(f"'{path}' is {kind}; download it again (no image has been extracted)")


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
