"""The journal of an unfinished extraction: a file of the finished batches, still valid after a kill."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from mgre.data.keypoints import NUM_KEYPOINTS
from mgre.errors import DataError
from mgre.system.locks import open_locked

# The entry "format" of the first line, by which a journal is recognised. A change of the lines needs a new number.
FORMAT = "mgre key point extraction, 2"

_OVERWRITING = {"overwriting": True}

Record = dict[str, Any]


class Journal:
    """JSON lines: the first line is the header. Each other line holds the records of a batch, or notes that the run may
    overwrite key point files.

    A record is of one image: its ``name``, ``bytes`` and ``mtime_ns``, and either its ``fault`` or its ``size``
    [H, W] and ``points``, 51 numbers. The file is locked while it is open, so two runs never write the same journal.

    Attributes:
        path: the file.
        resumed: whether the file existed and has the same header.
        overwriting: whether the run that began the journal may overwrite key point files.
        batches: the records of each batch, in the order in which the batches were found.

    Args:
        path: the file; it and its folder are made if they do not exist.
        header: the model and the images of the extraction, in JSON's types.
        overwrite: begin anew where the journal has another header.

    Raises:
        DataError: the file is in use by another run, is no journal, or, without ``overwrite``, has another header.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: str, header: Mapping[str, Any], *, overwrite: bool) -> None:
        self.path = path
        self.overwriting = False
        self.batches: list[list[Record]] = []
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        self._file = open_locked(path)
        try:
            self.resumed = self._read({"format": FORMAT, **header}, overwrite)
        except BaseException:
            self.close()
            raise

    def append(self, batch: Sequence[Record]) -> None:
        """Add the records of a batch, and return when they are on the disk."""
        self._write({"images": batch})
        self.batches.append(list(batch))

    def mark_overwriting(self) -> None:
        """Note that the run may overwrite key point files."""
        if not self.overwriting:
            self._write(_OVERWRITING)
            self.overwriting = True

    def remove(self) -> None:
        """Remove the file: the extraction is finished."""
        os.remove(self.path)
        self.close()

    def close(self) -> None:
        # All finished batches are on the disk. On a full disk, close() fails again to write the last append.
        with suppress(OSError):
            self._file.close()

    def _read(self, header: Mapping[str, Any], overwrite: bool) -> bool:
        """Read the file and move to its end; returns whether it goes on from an earlier run."""
        self._file.seek(0)
        first = self._file.readline()
        found = _parse(first)
        if first and not (isinstance(found, dict) and found.get("format") == FORMAT):
            raise DataError(
                f"'{self.path}' would be the journal of this extraction, but is a file of another kind: move it away, "
                "or choose another --output"
            )
        if first and found != header and not overwrite:
            differing = ", ".join(key for key in header if header[key] != found.get(key))
            raise DataError(
                f"'{self.path}' is an unfinished extraction with another {differing}: go on with what it was begun "
                "with, or add --overwrite to begin anew"
            )
        if found != header:
            self._file.truncate(0)
            self._write(header)
            return False
        end = self._file.tell()
        for line in self._file:
            if not line.endswith(b"\n"):  # cut off when the process was killed
                break
            end += len(line)
            content = _parse(line)
            if _is_batch(content):
                self.batches.append(content["images"])
            self.overwriting |= content == _OVERWRITING
        self._file.truncate(end)
        return True

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _is_batch(content: Any) -> bool:
    records = content.get("images") if isinstance(content, dict) else None
    return isinstance(records, list) and all(map(_is_record, records))


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict):
        return False
    if not all(isinstance(record.get(key), kind) for key, kind in (("name", str), ("bytes", int), ("mtime_ns", int))):
        return False
    return isinstance(record.get("fault"), str) or (
        _are_numbers(record.get("size"), 2) and _are_numbers(record.get("points"), 3 * NUM_KEYPOINTS)
    )


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(isinstance(value, int | float) for value in values)
