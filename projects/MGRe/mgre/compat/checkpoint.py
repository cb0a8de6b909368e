"""The toolbox's checkpoints."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from fastreid.utils import checkpoint
from fastreid.utils.file_io import PathManager

from mgre.compat.patching import adapt
from mgre.errors import WeightsError
from mgre.system.files import write_atomically
from mgre.system.weight_files import read_state_dict, read_weights


@contextmanager
def _open_atomically(path: str, mode: str) -> Iterator[IO]:
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


def check_loaded_files() -> None:
    """A checkpoint that is missing, damaged or of another architecture is a WeightsError.

    The toolbox stops at a missing or damaged file without a remedy. It takes only its own wrapping of the weights, and
    goes on with random weights where none fit. Whether a file may run code depends on torch's version there.
    """

    def check_path(load: Callable) -> Callable:
        @functools.wraps(load)
        def checked(checkpointer: checkpoint.Checkpointer, path: str, checkpointables: list[str] | None = None) -> Any:
            if path and "://" not in path and not os.path.isfile(path):
                raise WeightsError(f"checkpoint '{path}' does not exist: check MODEL.WEIGHTS or the output folder")
            return load(checkpointer, path, checkpointables)

        return checked

    def read_safely(load_file: Callable) -> Callable:
        @functools.wraps(load_file)
        def read(checkpointer: checkpoint.Checkpointer, path: str) -> dict[str, Any]:

            content = read_weights(path)
            return content if "model" in content else {"model": read_state_dict(path)}

        return read

    def check_fit(load_model: Callable) -> Callable:
        @functools.wraps(load_model)
        def checked(checkpointer: checkpoint.Checkpointer, content: dict[str, Any]) -> Any:
            incompatible = load_model(checkpointer, content)
            total = len(checkpointer.model.state_dict())
            missing = len(incompatible.missing_keys)
            if missing > total / 2:
                raise WeightsError(
                    f"the checkpoint is of another architecture: {missing} of the model's {total} tensors "
                    "are missing in it or have another shape; use the config it was trained with"
                )
            return incompatible

        return checked

    adapt(checkpoint.Checkpointer, "load", check_path)
    adapt(checkpoint.Checkpointer, "_load_file", read_safely)
    adapt(checkpoint.Checkpointer, "_load_model", check_fit)


ADAPTATIONS = (save_atomically, check_loaded_files)
