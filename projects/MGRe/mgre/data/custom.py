"""Data set ``CustomReID``: a folder of one's own. See docs/custom-data.md."""

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastreid.config import CfgNode, configurable
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset

from mgre.data.torch_dataset import Item
from mgre.errors import ConfigError, DataError

SPLIT_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
CSV_COLUMNS = ("path", "identity", "camera", "split")

# Market-1501's reserved identities: badly cropped images, which the evaluation ignores, and background.
JUNK, BACKGROUND = -1, 0

_NAME = re.compile(r"(-?\d+)_c(\d+)")


@DATASET_REGISTRY.register()
class CustomReID(ImageDataset):
    """A folder of one's own, in the Market-1501 layout or described by a CSV.

    As in the toolbox's readers, training identities and cameras are strings, and those of test images integers.

    Args:
        folder: the data set's folder, to which the key point file's names are relative.
        csv_file: CSV with the columns path, identity, camera and split; relative to ``folder``. Empty: folders
            bounding_box_train, query and bounding_box_test with names ``<identity>_c<camera>...`` (.jpg, .jpeg, .png).

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
        splits = read_csv(self.folder, csv_file) if csv_file else read_folders(self.folder)
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
    return {split: list(_read_folder(os.path.join(folder, name))) for split, name in SPLIT_FOLDERS.items()}


def _read_folder(folder: str) -> Iterator[Item]:
    for name in sorted(os.listdir(folder)):
        if not name.lower().endswith(IMAGE_SUFFIXES):
            continue
        match = _NAME.match(name)
        identity, camera = map(int, match.groups()) if match else (0, 0)
        if camera < 1:
            raise DataError(
                f"Image '{os.path.join(folder, name)}' is not named <identity>_c<camera>..., cameras from 1, "
                "like 0001_c1_000001.jpg; rename it, or describe the images in DATASETS.CUSTOM.CSV"
            )
        if identity != JUNK:
            yield os.path.join(folder, name), identity, camera - 1


@dataclass(frozen=True)
class _Row:
    path: str
    identity: str
    camera: str
    split: str


def read_csv(folder: str, csv_file: str) -> dict[str, list[Item]]:
    """Items (path, identity, camera) by split of a CSV whose paths are relative to ``folder``, without junk images.

    Identities and cameras are text in the CSV and remain text for training images. For test images, the identities of
    query and gallery are numbered together, from 1 in alphabetical order ("0", background, is 0), and the cameras of
    all images from 0.

    Raises:
        DataError: the file is missing, or one of its lines is wrong; the message names the line.
    """
    rows = [row for row in _read_rows(folder, os.path.join(folder, csv_file)) if row.identity != str(JUNK)]
    test_identities = {row.identity for row in rows if row.split != "train"} - {str(BACKGROUND)}
    identities = {identity: number for number, identity in enumerate(sorted(test_identities), start=1)}
    identities[str(BACKGROUND)] = BACKGROUND
    cameras = {camera: number for number, camera in enumerate(sorted({row.camera for row in rows}))}
    splits: dict[str, list[Item]] = {split: [] for split in SPLIT_FOLDERS}
    for row in rows:
        identity = row.identity if row.split == "train" else identities[row.identity]
        camera = row.camera if row.split == "train" else cameras[row.camera]
        splits[row.split].append((os.path.join(folder, row.path), identity, camera))
    return splits


def _read_rows(folder: str, csv_path: str) -> Iterator[_Row]:
    line_of: dict[str, int] = {}
    try:
        with open(csv_path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in CSV_COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"'{csv_path}' line 1: no column {', '.join(missing)}; "
                    f"the header must name {', '.join(CSV_COLUMNS)}"
                )
            for cells in reader:
                where = f"'{csv_path}' line {reader.line_num}"
                row = _parse_row(cells, folder, where)
                if row.path in line_of:
                    raise DataError(f"{where}: '{row.path}' is in line {line_of[row.path]} already; remove one of them")
                line_of[row.path] = reader.line_num
                yield row
    except FileNotFoundError as error:
        raise DataError(
            f"DATASETS.CUSTOM.CSV: '{csv_path}' does not exist; its path is relative to DATASETS.CUSTOM.ROOT"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{csv_path}' cannot be read as CSV in UTF-8 ({error}); write it again") from error


def _parse_row(cells: dict[str, str | None], folder: str, where: str) -> _Row:
    values = {column: (cells[column] or "").strip() for column in CSV_COLUMNS}
    empty = [column for column, value in values.items() if not value]
    if empty:
        raise DataError(f"{where}: {', '.join(empty)} is empty; give each image {', '.join(CSV_COLUMNS)}")
    if values["split"] not in SPLIT_FOLDERS:
        raise DataError(f"{where}: split is '{values['split']}'; it must be one of {', '.join(SPLIT_FOLDERS)}")
    path = os.path.normpath(values["path"])
    if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
        raise DataError(
            f"{where}: '{values['path']}' is outside '{folder}'; paths are relative to DATASETS.CUSTOM.ROOT"
        )
    if not os.path.isfile(os.path.join(folder, path)):
        raise DataError(f"{where}: image '{path}' does not exist in '{folder}'; mend the path or remove the line")
    return _Row(path, values["identity"], values["camera"], values["split"])
