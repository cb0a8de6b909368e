"""Reading of features files, as ``mgre extract`` writes them: .npz archives of plain arrays.

Legend: N images, D numbers of a feature.
"""

import os
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from mgre.errors import DataError

_TEXTS = ("paths", "ids", "cameras", "times", "metadata")


@dataclass(frozen=True)
class Features:
    """Features with what is known of their images; None where nothing is.

    Attributes:
        vectors: (N, D), float32.
        fingerprint, record: of the model, text; the record is JSON.
        paths: (N,), of the images.
        ids, cameras, times, metadata: (N,), text; the metadata are objects of JSON.
    """

    vectors: np.ndarray
    fingerprint: str
    record: str
    paths: list[str] | None = None
    ids: list[str] | None = None
    cameras: list[str] | None = None
    times: list[str] | None = None
    metadata: list[str] | None = None


def read_features(path: str) -> Features:
    """Read a features file; nothing in it is run as code.

    Raises:
        DataError: the file cannot be read, is damaged, or lacks an array.
    """
    try:
        if not zipfile.is_zipfile(path) and os.path.isfile(path):
            raise ValueError("it is no .npz archive")
        # Arrays of objects are refused: they are pickles.
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            missing = [name for name in ("features", "fingerprint", "record") if name not in archive.files]
            if missing:
                raise ValueError(f"it has no {', '.join(missing)}")
            vectors = archive["features"]
            texts = {name: _texts(archive[name], name, len(vectors)) for name in _TEXTS if name in archive.files}
            fingerprint, record = (str(archive[name][()]) for name in ("fingerprint", "record"))
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror or error}): mend the path") from error
    except (ValueError, TypeError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"'{path}' is no features file ({reason}): make one with mgre extract") from error
    return Features(vectors, fingerprint, record, **texts)


def _texts(values: np.ndarray, name: str, count: int) -> list[str]:
    if values.shape != (count,):
        raise ValueError(f"{name} has shape {values.shape}, and there are {count} features")
    return [str(value) for value in values.tolist()]
