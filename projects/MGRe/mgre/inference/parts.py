"""The finished parts of an extraction, still valid after a kill: what was cut goes on from them."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

from mgre.errors import DataError
from mgre.system.files import write_atomically
from mgre.system.locks import open_locked

FORMAT = "mgre extract, 1"
_HEADER, _LOCK, _PART = "header.json", "lock", re.compile(r"part-(\d+)\.npz")


class Parts:
    """A folder with a header and, for each part, an .npz of arrays with a row for each image.

    Each file is written atomically. The folder is locked while it is open, so two runs never write the same one.

    Attributes:
        done: where an image's row is, (number of the part, row), by the image's key.

    Args:
        folder: it is made if it does not exist.
        header: the model and the options, of JSON's types.
        overwrite: begin anew where the folder has another header.

    Raises:
        DataError: the folder is in use by another run, is of another kind, or, without ``overwrite``, has another
            header.
        OSError: it cannot be read or written.
    """

    def __init__(self, folder: str, header: Mapping[str, Any], *, overwrite: bool) -> None:
        self.folder = folder
        self.done: dict[str, tuple[int, int]] = {}
        self._numbers: list[int] = []
        self._require_own_kind()
        os.makedirs(folder, exist_ok=True)
        self._lock = open_locked(os.path.join(folder, _LOCK))
        try:
            self._read({"format": FORMAT, **header}, overwrite)
        except BaseException:
            self.close()
            raise
        self._array = lru_cache(maxsize=16)(self._load_array)

    def add(self, keys: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
        """Add a part, and return when it is on the disk.

        Args:
            keys: of its images.
            arrays: with a row for each image, by name.
        """
        named: dict[str, Any] = {"keys": np.array(keys), **arrays}
        number = max(self._numbers, default=-1) + 1
        with write_atomically(self._path(number)) as path, open(path, "wb") as file:
            np.savez(file, **named)
        self._note(number, keys)

    def rows(self, name: str, keys: Sequence[str]) -> Iterator[np.ndarray]:
        """The rows of the array ``name`` of these images in their order, by and by."""
        for number, places in groupby((self.done[key] for key in keys), key=lambda place: place[0]):
            yield self._array(number, name)[[row for _, row in places]]

    def names(self) -> list[str]:
        """Of the arrays."""
        if not self._numbers:
            return []
        with np.load(self._path(self._numbers[0]), allow_pickle=False) as part:
            return [name for name in part.files if name != "keys"]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a row of the array ``name``."""
        return self._array(self._numbers[0], name).shape[1:]

    def remove(self) -> None:
        """Remove the folder: the extraction is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        self._lock.close()

    def _require_own_kind(self) -> None:
        if not os.path.lexists(self.folder):
            return
        names = os.listdir(self.folder) if os.path.isdir(self.folder) else ["a file"]
        # A folder that was killed before its header has at most the lock and the header's unfinished file.
        if _HEADER not in names and [n for n in names if n != _LOCK and not n.startswith(f".{_HEADER}-")]:
            raise DataError(
                f"'{self.folder}' would be the folder of this extraction's finished parts, but is of another kind: "
                "move it away, or choose another --output"
            )

    def _read(self, header: Mapping[str, Any], overwrite: bool) -> None:
        path = os.path.join(self.folder, _HEADER)
        found = _read_json(path)
        if found != header:
            if found is not None and not overwrite:
                differing = ", ".join(key for key in header if header[key] != found.get(key))
                raise DataError(
                    f"'{self.folder}' is an unfinished extraction with another {differing}: go on with what it was "
                    "begun with, or add --overwrite to begin anew"
                )
            for number in self._list_parts():
                os.remove(self._path(number))
            with write_atomically(path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
                json.dump(header, file)
        for number in self._list_parts():
            try:
                with np.load(self._path(number), allow_pickle=False) as part:
                    keys = part["keys"].tolist()
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                os.remove(self._path(number))  # damaged: its images are found again
            else:
                self._note(number, keys)

    def _note(self, number: int, keys: Sequence[str]) -> None:
        self._numbers.append(number)
        self.done |= {key: (number, row) for row, key in enumerate(keys)}

    def _load_array(self, number: int, name: str) -> np.ndarray:
        with np.load(self._path(number), allow_pickle=False) as part:
            return part[name]

    def _list_parts(self) -> list[int]:
        return sorted(int(match[1]) for name in os.listdir(self.folder) if (match := _PART.fullmatch(name)))

    def _path(self, number: int) -> str:
        return os.path.join(self.folder, f"part-{number:06d}.npz")


def _read_json(path: str) -> dict[str, Any] | None:
    with suppress(FileNotFoundError, ValueError), open(path, encoding="utf-8") as file:
        found = json.load(file)
        return found if isinstance(found, dict) else None
    return None
