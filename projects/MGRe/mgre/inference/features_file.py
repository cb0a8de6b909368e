"""Features files, .npz or Parquet: a row for each image.

An .npz has these arrays, of which N is the number of images:

    features        (N, D) float32, as in the evaluation: not normalised
    paths           (N,) text
    fingerprint, record, complete   text: of the model; the record is JSON; "yes", or "no" where images were skipped
    xyxy            (N, 4) float64, the box in the picture or frame in pixels, where boxes were given
    frames          (N,) int64, of videos
    ids, cameras, times     (N,) text, of the columns id, camera, time of a CSV, where it has them
    metadata        (N,) text, JSON objects of all its other columns
    boxes/<region>  (N, 4) float32, (x_min, y_min, x_max, y_max), normalised by the crop's width and height
    terms/<stage>   (N, R_i + 1, D_i) float32, a vector for each of the stage's regions and last its constant

Parquet has the columns path, feature, x_min, y_min, x_max, y_max, frame, id, camera, time, metadata, and the lists
boxes/<region> and terms/<stage>, the latter with one vector after the other; fingerprint, record and complete are
metadata of the file, under the names mgre.fingerprint and so on.
"""

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgre.errors import ConfigError, SetupError
from mgre.inference.crops import BOX, Crop
from mgre.inference.model import Model
from mgre.inference.parts import Parts
from mgre.system.files import write_atomically

SUFFIXES = (".npz", ".parquet")
# The columns of a CSV that have an array of their own, by its name.
_OWN_COLUMNS = {"ids": "id", "cameras": "camera", "times": "time"}


@dataclass(frozen=True)
class FeatureTable:
    """What a features file is written of.

    Attributes:
        model: of the features.
        crops: the images, in the order of the rows.
        keys: of the images in the ``parts``.
        parts: the features, and boxes and terms if there are any.
        num_asked: images that were asked for.
    """

    model: Model
    crops: Sequence[Crop]
    keys: Sequence[str]
    parts: Parts
    num_asked: int

    def facts(self) -> dict[str, str]:
        """Texts that are true of the whole file."""
        complete = "yes" if len(self.crops) == self.num_asked else "no"
        return {
            "fingerprint": self.model.fingerprint,
            "record": self.model.record.to_json(),
            "complete": complete,
        }

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays beside the features."""
        crops = self.crops
        columns = {"paths": np.array([crop.path for crop in crops])}
        if crops[0].box is not None:
            columns["xyxy"] = np.array([crop.box for crop in crops])
        if crops[0].frame is not None:
            columns["frames"] = np.array([crop.frame for crop in crops], dtype=np.int64)
        facts = crops[0].facts
        for name, column in _OWN_COLUMNS.items():
            if column in facts:
                columns[name] = np.array([crop.facts[column] for crop in crops])
        others = [column for column in facts if column not in _OWN_COLUMNS.values()]
        if others:
            texts = [json.dumps({column: crop.facts[column] for column in others}) for crop in crops]
            columns["metadata"] = np.array(texts)
        return columns


def require_known_suffix(path: str) -> None:
    """
    Raises:
        ConfigError: the file would be of another kind.
        SetupError: what writes this kind is not installed.
    """
    if not path.lower().endswith(SUFFIXES):
        raise ConfigError(f"--output '{path}' ends in neither of {', '.join(SUFFIXES)}: name such a file")
    if os.path.isdir(path):
        raise ConfigError(f"--output '{path}' is a folder: name a file")
    if path.lower().endswith(SUFFIXES[1]):
        _import_pyarrow()


def write_features(path: str, table: FeatureTable) -> None:
    """Write a features file atomically, of the kind that its suffix tells.

    Raises:
        OSError: it cannot be written.
    """
    write = _write_npz if path.lower().endswith(SUFFIXES[0]) else _write_parquet
    with write_atomically(path) as unfinished:
        write(unfinished, table)


def say_what_is_there(path: str, model: Model) -> str:
    """In words, for a message: whether an .npz is of this model; the empty string where that cannot be told."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            own = str(archive["fingerprint"][()]) == model.fingerprint
    except Exception:  # of any kind: the file may be anything
        return ""
    return ", of this model" if own else ", and of another model"


def _write_npz(path: str, table: FeatureTable) -> None:
    arrays = table.columns() | {name: np.array(text) for name, text in table.facts().items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        # Part by part: all features together may be larger than the memory.
        for name in table.parts.names():
            shape = (len(table.keys), *table.parts.shape(name))
            header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for rows in table.parts.rows(name, table.keys):
                    file.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())


def _write_parquet(path: str, table: FeatureTable) -> None:
    pyarrow, parquet = _import_pyarrow()
    columns = {name: pyarrow.array(values) for name, values in _parquet_columns(table.columns()).items()}
    names = {name: "feature" if name == "features" else name for name in table.parts.names()}
    sizes = {name: int(np.prod(table.parts.shape(name))) for name in names}
    lists = {names[name]: pyarrow.list_(pyarrow.float32(), size) for name, size in sizes.items()}
    schema = pyarrow.schema(
        [(name, array.type) for name, array in columns.items()] + list(lists.items()),
        metadata={f"mgre.{name}": text for name, text in table.facts().items()},
    )
    start = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for chunks in zip(*(table.parts.rows(name, table.keys) for name in names), strict=True):
            stop = start + len(chunks[0])
            flat = [
                pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.ravel(rows).astype(np.float32)), sizes[name])
                for name, rows in zip(names, chunks, strict=True)
            ]
            arrays = [*(array[start:stop] for array in columns.values()), *flat]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            start = stop


def _parquet_columns(columns: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    singular = {"paths": "path", "frames": "frame", "metadata": "metadata", **_OWN_COLUMNS}
    for name, values in columns.items():
        if name == "xyxy":
            found |= dict(zip(BOX, values.T.tolist(), strict=True))
        elif name == "frames":
            found[singular[name]] = values.tolist()
        else:  # a file name may have bytes that are no text
            texts = values.tolist()
            found[singular[name]] = [text.encode("utf-8", "backslashreplace").decode() for text in texts]
    return found


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise SetupError("pyarrow is needed for .parquet: pip install pyarrow, or name an .npz") from error
    return pyarrow, parquet
