"""The record in a model's file, and files of weights and record alone: .safetensors, or a small .pth."""

import os
from typing import TYPE_CHECKING, Any

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
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    is_torch = not path.endswith(SUFFIXES[0])
    _write(path, {"model": state} if is_torch else state, record, is_torch=is_torch)


def write_record(path: str, record: ModelRecord, target: str) -> None:
    """Write the model's file ``path`` with another record to ``target``, which may be the same file.

    All else in the file stays, and so does its format. Whatever stops the writing, ``target`` has its old or its new
    content.

    Raises:
        WeightsError: the file is missing or damaged.
        SetupError: ``target`` cannot be written.
    """
    # Only here: it imports torch.
    from mgre.system.weight_files import read_weights

    _write(target, read_weights(path), record, is_torch=not is_safetensors(path))


def _write(path: str, content: dict[str, Any], record: ModelRecord, *, is_torch: bool) -> None:
    import safetensors.torch
    import torch

    text = record.to_json()
    try:
        with write_atomically(path) as unfinished:
            if is_torch:
                torch.save(content | {_ENTRY: text}, unfinished)
            else:
                safetensors.torch.save_file(content, unfinished, metadata={_NAME: text, "format": "pt"})
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # torch's is a RuntimeError on a full disk
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise SetupError(
            f"model '{path}' cannot be written ({reason}): make room there, or name another file"
        ) from error
