"""A file of rows of float32 numbers, without header: row i begins at byte 4 W i.

Legend: W numbers of a row.
"""

import mmap
import os
from collections.abc import Iterable
from typing import IO

import numpy as np

from mgre.errors import DataError

# Rows are written and copied in parts of so many numbers: 16 MiB.
PART_NUMBERS = 1 << 22


class RowFile:
    """Rows on disk, which readers map into memory.

    Args:
        path: the file.
        width: W.
    """

    def __init__(self, path: str, width: int) -> None:
        self.path, self.width = path, width
        self._row_bytes = 4 * width

    @property
    def num_rows(self) -> int:
        """The number of whole rows in the file; 0 where there is no file."""
        return os.path.getsize(self.path) // self._row_bytes if os.path.exists(self.path) else 0

    def write(self, start: int, blocks: Iterable[np.ndarray]) -> None:
        """Write ``blocks`` (N, W), float32, one after the other from row ``start`` on, and wait for the disk.

        Raises:
            OSError: the disk is full, or the file cannot be written. What stood before ``start`` is as it was.
        """
        with self._open("r+b" if os.path.lexists(self.path) else "x+b") as file:
            file.seek(start * self._row_bytes)
            for block in blocks:
                file.write(np.ascontiguousarray(block, dtype="<f4").data)
            file.flush()
            os.fsync(file.fileno())

    def erase(self, rows: Iterable[int]) -> None:
        """Overwrite these rows with zeros, and wait for the disk.

        Raises:
            OSError: the file cannot be written.
        """
        with self._open("r+b") as file:
            for row in rows:
                file.seek(row * self._row_bytes)
                file.write(bytes(self._row_bytes))
            file.flush()
            os.fsync(file.fileno())

    def cut(self, rows: int) -> None:
        """Leave only the first ``rows`` rows.

        Raises:
            OSError: the file cannot be written.
        """
        if os.path.exists(self.path) and os.path.getsize(self.path) > rows * self._row_bytes:
            with self._open("r+b") as file:
                file.truncate(rows * self._row_bytes)
                os.fsync(file.fileno())

    def require(self, rows: int) -> None:
        """
        Raises:
            DataError: the file is missing or has fewer rows.
        """
        if self.num_rows < rows:
            raise DataError(
                f"'{self.path}' is missing or cut short, {self.num_rows} of {rows} vectors are there: bring the folder "
                "back from a backup, or build the index again"
            )

    def map(self, rows: int) -> np.ndarray:
        """The first ``rows`` rows (rows, W), read-only; they are read when they are used.

        Raises:
            DataError: the file is missing or has fewer rows.
        """
        self.require(rows)
        if not rows:
            return np.empty((0, self.width), dtype=np.float32)
        with open(self.path, "rb") as file:
            content = mmap.mmap(file.fileno(), rows * self._row_bytes, access=mmap.ACCESS_READ)
        return np.frombuffer(content, dtype="<f4").reshape(rows, self.width)

    def _open(self, mode: str) -> IO[bytes]:
        """Open the file for writing, but not through a link: a folder from somebody else may lead to any file."""
        return open(self.path, mode, opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o666))


def parts_of(rows: int, width: int) -> Iterable[slice]:
    """Slices of ``rows`` rows of ``width`` numbers, some 16 MiB each."""
    step = max(1, PART_NUMBERS // max(1, width))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
