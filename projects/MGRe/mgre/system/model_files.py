"""Files of a model's weights and record, without the state of a training: .safetensors, or a small .pth."""

import os
from typing import TYPE_CHECKING

from mgre.errors import ConfigError, SetupError, WeightsError
from mgre.record import ModelRecord
from mgre.system.files import write_atomically
from mgre.system.safetensors_header import is_safetensors, read_metadata

if TYPE_CHECKING:
    import torch

SUFFIXES = (".safetensors", ".pth")
# The name of the record in a checkpoint, and in the metadata of a safetensors file.
_ENTRY, _NAME = "record", "mgre.record"


def read_record(path: str) -> ModelRecord | None:
    """The record in a model's file; None where it has none. Of a safetensors file only the header is read.

    Raises:
        WeightsError: the file is missing or damaged, or the record is.
    """
    if not os.path.isfile(path):
        raise WeightsError(f"model '{path}' is {'a folder' if os.path.isdir(path) else 'not there'}: name its file")
    if is_safetensors(path):
        text = read_metadata(path).get(_NAME)
    else:
        # Only here: it imports torch.
        from mgre.system.weight_files import read_weights

        text = read_weights(path).get(_ENTRY)
    return ModelRecord.from_json(text, path) if isinstance(text, str) else None


def require_model_suffix(path: str) -> None:
    """
    Raises:
        ConfigError: the file would be of another kind.
    """
    if not path.endswith(SUFFIXES):
        raise ConfigError(f"model '{path}' ends in neither of {', '.join(SUFFIXES)}: name such a file")


def write_model(path: str, state: "dict[str, torch.Tensor]", record: ModelRecord) -> None:
    """Write a model atomically, in the format that the suffix tells.

    Args:
        path: see :data:`SUFFIXES`.
        state: the weights by name.
        record: of the model.

    Raises:
        SetupError: the file cannot be written.
    """
    import safetensors.torch
    import torch

    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    try:
        with write_atomically(path) as unfinished:
            if path.endswith(SUFFIXES[0]):
                safetensors.torch.save_file(state, unfinished, metadata={_NAME: record.to_json(), "format": "pt"})
            else:
                torch.save({"model": state, _ENTRY: record.to_json()}, unfinished)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # torch's is a RuntimeError on a full disk
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise SetupError(
            f"model '{path}' cannot be written ({reason}): make room there, or name another file"
        ) from error
