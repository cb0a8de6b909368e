"""The toolbox's checkpointer, with errors that name a remedy, and without code from a file."""

import os
from typing import Any

from fastreid.utils.checkpoint import Checkpointer

from mgre.errors import WeightsError
from mgre.system.weight_files import read_state_dict, read_weights


class SafeCheckpointer(Checkpointer):
    """A checkpoint that is missing, damaged or of another architecture is a WeightsError.

    The toolbox's names no remedy for a missing or damaged file. It takes only its own wrapping of the weights, and
    goes on with random weights where none fit. Whether a file may run code depends on torch's version there.
    """

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        if path and "://" not in path and not os.path.isfile(path):
            raise WeightsError(f"checkpoint '{path}' does not exist: check MODEL.WEIGHTS or the output folder")
        return super().load(path, checkpointables)

    def _load_file(self, path: str) -> dict[str, Any]:
        content = read_weights(path)
        return content if "model" in content else {"model": read_state_dict(path)}

    def _load_model(self, content: dict[str, Any]) -> Any:
        incompatible = super()._load_model(content)
        total = len(self.model.state_dict())
        missing = len(incompatible.missing_keys)
        if missing > total / 2:
            raise WeightsError(
                f"the checkpoint is of another architecture: {missing} of the model's {total} tensors "
                "are missing in it or have another shape; use the config it was trained with"
            )
        return incompatible
