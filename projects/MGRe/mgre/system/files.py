"""Files that are never half there."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from mgre.errors import SetupError


@contextmanager
def write_atomically(path: str) -> Iterator[str]:
    """Write a file: give the path of one beside it, which takes the name ``path`` when the block ends without an error.

    The folder is made. A file that is there is replaced, or stays as it is where the block or a step fails.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    folder, name = os.path.split(path)
    unfinished = os.path.join(folder, f".{name}-{uuid.uuid4().hex[:8]}.tmp")
    os.makedirs(folder or ".", exist_ok=True)
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())  # else a crash of the machine can leave an empty file of the final name
        os.replace(unfinished, path)
    finally:
        if os.path.exists(unfinished):
            os.remove(unfinished)


def make_output_dir(folder: str) -> None:
    """Make OUTPUT_DIR.

    Raises:
        SetupError: it cannot be made, or no file can be written in it.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError, TypeError) as error:  # the latter two for what is no path
        reason = getattr(error, "strerror", error)
        raise SetupError(f"OUTPUT_DIR '{folder}' cannot be written ({reason}): choose another folder") from error
