"""Data set ``CustomReID``: a folder of one's own. See docs/custom-data.md."""

import os
import re
from collections.abc import Iterator
from typing import Any

from fastreid.config import CfgNode, configurable
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset

from mgre.data.csv_list import BACKGROUND, JUNK, read_csv
from mgre.data.torch_dataset import Item
from mgre.errors import ConfigError, DataError
from mgre.reading.image_files import list_image_files

SPLIT_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

_NAME = re.compile(r"(-?\d+)_c(\d+)")
_WHOLE_NUMBER = re.compile(r"-?\d+")


@DATASET_REGISTRY.register()
class CustomReID(ImageDataset):
    """A folder of one's own, in the Market-1501 layout or described by a CSV.

    As in the toolbox's readers, training identities and cameras are strings, and those of test images integers.

    Attributes:
        training_labels: by test identity, the label that its images would have in the training set.

    Args:
        folder: the data set's folder, to which the key point file's names are relative.
        csv_file: CSV with the columns path, identity, camera and split; relative to ``folder``. Empty: folders
            bounding_box_train, query and bounding_box_test with names ``<identity>_c<camera>...``, in them directly or
            in a folder for each identity.

    Raises:
        ConfigError: no folder is given.
        DataError: the folder, one of its parts or the CSV is missing or malformed.
    """

    _junk_pids = [JUNK, BACKGROUND]
    dataset_name = "custom"

    @configurable
    def __init__(self, *, folder: str, csv_file: str = "", **kwargs: Any) -> None:
        if not folder:
            raise ConfigError("DATASETS.CUSTOM.ROOT is empty; set it to the folder of your CustomReID data set")
        self.folder = os.path.expanduser(folder)
        if not os.path.isdir(self.folder):
            raise DataError(
                f"DATASETS.CUSTOM.ROOT is '{folder}', which is not a folder; set it to your data set's folder"
            )
        if csv_file:
            splits, texts = read_csv(self.folder, csv_file)
        else:
            splits = read_folders(self.folder)
            texts = {identity: str(identity) for _, identity, _ in (*splits["query"], *splits["gallery"])}
        self.training_labels = {identity: f"{self.dataset_name}_{text}" for identity, text in texts.items()}
        super().__init__(
            [(path, *(f"{self.dataset_name}_{label}" for label in labels)) for path, *labels in splits["train"]],
            splits["query"],
            splits["gallery"],
            **kwargs,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, *, root: str = "", **kwargs: Any) -> dict[str, Any]:
        """``root``, the folder of all other data sets, is not used."""
        return {"folder": cfg.DATASETS.CUSTOM.ROOT, "csv_file": cfg.DATASETS.CUSTOM.CSV, **kwargs}


def read_folders(folder: str) -> dict[str, list[Item]]:
    """Items (path, identity, camera from 0) by split of a folder in the Market-1501 layout, without junk images.

    Raises:
        DataError: one of the three folders is missing, or the name of an image has another form.
    """
    missing = [name for name in SPLIT_FOLDERS.values() if not os.path.isdir(os.path.join(folder, name))]
    if missing:
        raise DataError(
            f"Folder '{folder}' has no {' and no '.join(missing)}; the Market-1501 layout is "
            f"{', '.join(SPLIT_FOLDERS.values())} with images like 0001_c1_000001.jpg (or set DATASETS.CUSTOM.CSV)"
        )
    return {split: list(read_labelled_folder(os.path.join(folder, name))) for split, name in SPLIT_FOLDERS.items()}


def read_labelled_folder(folder: str) -> Iterator[Item]:
    """Items (path, identity, camera from 0) of the images in a folder, or in the folders in it if it has none itself;
    without junk images.

    Raises:
        DataError: the name of an image is not of the form ``<identity>_c<camera>...``.
    """
    for path in list_image_files(folder, or_in_its_folders=True):
        match = _NAME.match(os.path.basename(path))
        identity, camera = map(int, match.groups()) if match else (0, 0)
        if camera < 1:
            raise DataError(
                f"Image '{path}' is not named <identity>_c<camera>..., cameras from 1, "
                "like 0001_c1_000001.jpg; rename it, or describe the images in a CSV: DATASETS.CUSTOM.CSV, "
                "or --images of mgre calibrate"
            )
        between = os.path.basename(os.path.dirname(path))
        if os.path.dirname(path) != folder and _WHOLE_NUMBER.fullmatch(between) and int(between) != identity:
            raise DataError(
                f"Image '{path}' is in the folder of identity {int(between)}, and its name says {identity}; move or "
                "rename it"
            )
        if identity != JUNK:
            yield path, identity, camera - 1
