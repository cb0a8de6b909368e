"""The list of a :class:`mgre.data.custom.CustomReID` as a CSV."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mgre.data.torch_dataset import Item
from mgre.errors import DataError
from mgre.reading.csv_table import read_table

COLUMNS = ("path", "identity", "camera", "split")
SPLITS = ("train", "query", "gallery")
# Market-1501's reserved identities: badly cropped images, which the evaluation ignores, and background.
JUNK, BACKGROUND = -1, 0

# pandas writes the whole numbers of a column with a gap as 7.0, and a spreadsheet may write 7,0.
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)[.,]0*")
# What pandas and spreadsheets write for a gap.
_GAPS = {"nan", "NaN", "None", "null", "NULL", "<NA>", "N/A", "#N/A", "NA"}


@dataclass(frozen=True)
class _Row:
    path: str
    identity: str
    camera: str
    split: str


def read_csv(folder: str, csv_file: str) -> tuple[dict[str, list[Item]], dict[int, str]]:
    """Items (path, identity, camera) by split of a CSV whose paths are relative to ``folder``, without junk images;
    and the text of each test identity by its number.

    Identities and cameras are text in the CSV and remain text for training images. For test images, the identities of
    query and gallery are numbered together, from 1 in alphabetical order ("0", background, is 0), and the cameras of
    all images from 0.

    The dialects are those of :mod:`mgre.reading.csv_table`; folders may be separated by backslashes, and the whole
    number 7 may be written 7.0.

    Raises:
        DataError: the file is missing, or one of its lines is wrong; the message names the line.
    """
    rows = [row for row in _read_rows(folder, os.path.join(folder, csv_file)) if row.identity != str(JUNK)]
    test_identities = {row.identity for row in rows if row.split != "train"} - {str(BACKGROUND)}
    numbers = {identity: number for number, identity in enumerate(sorted(test_identities), start=1)}
    numbers[str(BACKGROUND)] = BACKGROUND
    cameras = {camera: number for number, camera in enumerate(sorted({row.camera for row in rows}))}
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for row in rows:
        identity = row.identity if row.split == "train" else numbers[row.identity]
        camera = row.camera if row.split == "train" else cameras[row.camera]
        splits[row.split].append((os.path.join(folder, row.path), identity, camera))
    return splits, {number: identity for identity, number in numbers.items()}


def read_labels(csv_path: str) -> list[tuple[str, str, str]]:
    """(path, identity, camera) of the images in a CSV that needs no column split, without junk and background.

    Paths in the CSV are relative to its folder, and identities and cameras are text.

    Raises:
        DataError: see :func:`read_csv`.
    """
    folder = os.path.dirname(csv_path) or os.curdir
    left_out = {str(JUNK), str(BACKGROUND)}
    rows = _read_rows(folder, csv_path, columns=COLUMNS[:3])
    return [(os.path.join(folder, row.path), row.identity, row.camera) for row in rows if row.identity not in left_out]


def _read_rows(folder: str, csv_path: str, columns: Sequence[str] = COLUMNS) -> Iterator[_Row]:
    """
    Args:
        columns: those that are needed; others are passed over.
    """
    if not os.path.exists(csv_path):
        raise DataError(
            f"DATASETS.CUSTOM.CSV: '{csv_path}' does not exist; its path is relative to DATASETS.CUSTOM.ROOT"
        )
    line_of: dict[str, int] = {}
    for line in read_table(csv_path, columns):
        row = _parse_row(line.cells, folder, line.where)
        if row.path in line_of:
            raise DataError(f"{line.where}: '{row.path}' is in line {line_of[row.path]} already; remove one of them")
        line_of[row.path] = line.line
        yield row


def _parse_row(values: dict[str, str], folder: str, where: str) -> _Row:
    empty = [column for column, value in values.items() if not value]
    if empty:
        raise DataError(f"{where}: {', '.join(empty)} is empty; give each image {', '.join(values)}")
    for column in ("identity", "camera"):
        if values[column] in _GAPS:
            raise DataError(f"{where}: {column} is '{values[column]}', which stands for a gap; give it another name")
    split = values.get("split", "").lower()
    if "split" in values and split not in SPLITS:
        raise DataError(f"{where}: split is '{values['split']}'; it must be one of {', '.join(SPLITS)}")
    path = _find_image(values["path"], folder, where)
    return _Row(path, _without_fraction(values["identity"]), _without_fraction(values["camera"]), split)


def _without_fraction(text: str) -> str:
    """``-1.0`` and ``-1,0`` are ``-1``; other text is itself."""
    match = _WHOLE_NUMBER.fullmatch(text)
    return match.group(1) if match else text


def _find_image(written: str, folder: str, where: str) -> str:
    """The path of an image relative to ``folder``; backslashes separate folders where no file has them in its name."""
    slashes = written.replace("\\", "/")
    for text in dict.fromkeys((written, slashes)):
        path = os.path.normpath(text)
        if os.path.isabs(path) or re.match(r"[A-Za-z]:/", slashes) or path.split(os.sep)[0] == os.pardir:
            raise DataError(f"{where}: '{written}' is outside '{folder}'; paths are relative to that folder")
        if os.path.isfile(os.path.join(folder, path)):
            return path
    path = os.path.normpath(slashes)
    similar = _file_of_similar_name(os.path.join(folder, path))
    raise DataError(
        f"{where}: image '{path}' does not exist in '{folder}'{f' (there is {similar!r})' if similar else ''}; "
        "mend the path or remove the line"
    )


def _file_of_similar_name(path: str) -> str:
    """The name of a file that differs from ``path`` by capital letters or by the suffix; else the empty string."""
    wanted = os.path.splitext(os.path.basename(path).lower())[0]
    try:
        names = sorted(os.listdir(os.path.dirname(path)))
    except (OSError, ValueError):
        return ""
    return next((name for name in names if os.path.splitext(name.lower())[0] == wanted), "")
