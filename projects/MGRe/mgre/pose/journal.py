"""What of an unfinished extraction is done, in a file that a kill leaves whole."""

import errno
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from mgre.data.keypoints import NUM_KEYPOINTS
from mgre.errors import DataError

# The first line's "format", by which a journal is known. Another form of the lines gets another number.
FORMAT = "mgre key point extraction, 2"

_OVERWRITING = {"overwriting": True}

# File systems without locks: the journal does without too.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)

Record = dict[str, Any]


class Journal:
    """JSON lines: the first one says what it is an extraction of, each other one holds the records of a batch, or
    that the run may overwrite.

    A record is of one image: its ``name``, ``bytes`` and ``mtime_ns``, and either its ``fault`` or its ``size``
    [H, W] and ``points``, 51 numbers. The file is locked while it is open, so that two runs never write the same one.

    Attributes:
        path: the file.
        resumed: whether it was there already, of the same extraction.
        overwriting: whether it is of a run that may overwrite key point files.
        batches: the records of each batch, in the order in which they were found.

    Args:
        path: the file; made, with its folder, if it is not there.
        header: what it is an extraction of, in JSON's types.
        overwrite: begin anew where the journal is one of another header.

    Raises:
        DataError: the file is in use by another run, is no journal, or has another header.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: str, header: Mapping[str, Any], *, overwrite: bool) -> None:
        self.path = path
        self.overwriting = False
        self.batches: list[list[Record]] = []
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        self._file = _open_locked(path)
        try:
            self.resumed = self._read({"format": FORMAT, **header}, overwrite)
        except BaseException:
            self.close()
            raise

    def append(self, batch: Sequence[Record]) -> None:
        """Keep what was found in a batch; it is on disk when this returns."""
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
        # What counts is on disk. Where the disk is full, closing tries once more what an append has failed to write.
        with suppress(OSError):
            self._file.close()

    def _read(self, header: Mapping[str, Any], overwrite: bool) -> bool:
        """Read the file and leave it ready for the next batch; whether it goes on from an earlier run."""
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
            if not line.endswith(b"\n"):  # a kill cut it off
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


def _open_locked(path: str) -> IO[bytes]:
    file = open(path, "a+b")  # noqa: SIM115 (the journal closes it)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A run that was just finishing may have removed it between the two steps.
        in_use = not os.path.exists(path) or not os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except BlockingIOError:
        in_use = True
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            file.close()
            raise
        in_use = False
    if in_use:
        file.close()
        raise DataError(f"'{path}' is in use by another run: wait for its end, or choose another --output")
    return file


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
