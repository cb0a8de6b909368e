"""Files and folders that one process at a time may write."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from mgre.errors import DataError

# The errors of file systems without locks, on which files are not locked.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def open_locked(path: str) -> IO[bytes]:
    """Open a file for reading and appending, and lock it until it is closed; it is made where it does not exist.

    Raises:
        DataError: another process has locked it.
        OSError: it cannot be opened.
    """
    file = open(path, "a+b")  # noqa: SIM115 (the caller closes it)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another run that was finishing may have removed the file between open() and flock().
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


@contextmanager
def lock_folder(folder: str) -> Iterator[None]:
    """Within the block no other process is in such a block with this folder; the others wait.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)  # which unlocks it
