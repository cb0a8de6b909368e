"""Atomic writing: a file has either its old or its new content, whatever stops the writer."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mgre.errors import SetupError


@contextmanager
def write_atomically(path: str | Path) -> Iterator[str]:
    """Write a file through an unfinished one beside it, and give the path of the unfinished one.

    When the block ends without an error, an atomic rename replaces the file ``path``. Where the block or a later step
    fails, the file ``path`` stays as it was, and the unfinished one is removed. Only a killed process leaves an
    unfinished file, see :func:`unfinished_files`. The new content outlasts a power cut. The folder of ``path`` is made
    where it does not exist. Several processes may write the same file: each has an unfinished file of its own, and the
    last rename counts.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    folder, name = os.path.split(path)
    unfinished = os.path.join(folder, f".{name}-{uuid.uuid4().hex[:8]}.tmp")
    os.makedirs(folder or ".", exist_ok=True)
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())  # a rename that reaches the disk before the content would leave an empty file
        os.replace(unfinished, path)
        sync_folder(folder or ".")
    finally:
        with suppress(FileNotFoundError):
            os.remove(unfinished)


@contextmanager
def explain_unwritable(what: str, remedy: str) -> Iterator[None]:
    """Raise an OSError of the block as a SetupError, in one line with ``what`` was written and what to do.

    Raises:
        SetupError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise SetupError(f"{what} cannot be written ({error.strerror or error}): {remedy}") from error


def make_output_dir(folder: str, name: str = "OUTPUT_DIR") -> None:
    """Make OUTPUT_DIR, or another folder for output.

    Args:
        folder: its path.
        name: what names it, a key or an option, for the message.

    Raises:
        SetupError: it cannot be made, or no file can be written in it.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError, TypeError) as error:  # the latter two for what is no path
        reason = getattr(error, "strerror", error)
        raise SetupError(f"{name} '{folder}' cannot be written ({reason}): choose another folder") from error


def unfinished_files(folder: str, pattern: str = "*") -> list[Path]:
    """The unfinished files in ``folder`` of running and of killed calls of :func:`write_atomically`.

    Args:
        folder: the folder; it need not exist.
        pattern: only files whose final name matches this glob pattern.
    """
    return sorted(Path(folder).glob(f".{pattern}-{8 * '[0-9a-f]'}.tmp"))


def sync_folder(folder: str) -> None:
    """Write the names of the files in ``folder`` to the disk: until then a power cut can undo a rename."""
    with suppress(OSError):  # not every file system can synchronise a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
