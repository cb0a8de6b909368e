"""The toolbox's checkpoints."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from fastreid.engine import defaults
from fastreid.utils import checkpoint
from fastreid.utils.file_io import PathManager

from mgre.compat.patching import adapt
from mgre.engine.safe_checkpointer import SafeCheckpointer
from mgre.system.files import write_atomically


@contextmanager
def _open_atomically(path: str, mode: str) -> Iterator[IO[str]]:
    with write_atomically(path) as unfinished, open(unfinished, mode) as file:
        yield file


class _PathManager(PathManager):
    @staticmethod
    def open(path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
        if "w" in mode and "://" not in path:
            return _open_atomically(path, mode)
        return PathManager.open(path, mode, buffering, **kwargs)


def save_atomically() -> None:
    """Checkpoints, and the note ``last_checkpoint``, are written by :func:`mgre.system.files.write_atomically`.

    The toolbox writes these files in place, so an interrupted save leaves a broken file and loses the former one.
    """
    adapt(checkpoint, "PathManager", lambda original: _PathManager)


def load_safely() -> None:
    """DefaultTrainer loads checkpoints by :class:`mgre.engine.safe_checkpointer.SafeCheckpointer`."""
    adapt(defaults, "Checkpointer", lambda original: SafeCheckpointer)


ADAPTATIONS = (save_atomically, load_safely)
