"""Reads weight files of any kind: only tensors, numbers and plain containers, never code."""

import argparse
import json
import logging
import os
import pickle
import shlex
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch

from mgre.errors import DamagedFileError, WeightsError, first_names, printable
from mgre.system.file_kinds import foreign_kind
from mgre.system.foreign_messages import is_unsafe_global
from mgre.system.safetensors_header import is_safetensors

logger = logging.getLogger(__name__)

_Keys = tuple[str, ...]

# Keys under which training codes wrap a state dict. Of several in a file, the first of this list is taken. A teacher is
# the average of its student over the training and the better of the two (DINO and its followers).
WRAPPERS = (
    *("model", "state_dict", "model_state_dict", "model_state", "module", "net", "network"),
    *("teacher", "encoder", "backbone", "student", "model_ema", "state_dict_ema", "ema"),
)
# Classes beside tensors that files of well-known codes hold: the command line (DINO) and a metric (torchreid). They
# hold values and run no code.
_PLAIN_CLASSES: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(kind)) for kind in (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)},
    # The function that rebuilds a number, under its names in numpy 2 and 1.
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
]


def read_state_dict(path: str) -> dict[str, torch.Tensor]:
    """The tensors of a weight file by name, taken out of the wrappers of its training code.

    Raises:
        DamagedFileError: see :func:`read_weights`.
        WeightsError: see :func:`read_weights` and :func:`unwrap`.
    """
    return unwrap(read_weights(path), path)


def read_weights(path: str) -> dict[str, Any]:
    """The content of a file of ``torch.save`` or of safetensors, on the CPU. No code of the file is run.

    Raises:
        DamagedFileError: the file is cut short, or its content has changed since it was written.
        WeightsError: the file is missing, is of another kind, or holds objects that could run code.
    """
    if os.path.isdir(path):
        raise WeightsError(f"weight file '{path}' is a folder: name the file in it")
    if not os.path.isfile(path):
        raise WeightsError(f"weight file '{path}' does not exist: check the path")
    _check_kind(path)
    content = _read_safetensors(path) if is_safetensors(path) else _read_torch(path)
    if not isinstance(content, dict):
        raise WeightsError(
            f"weight file '{path}' holds no state dict but a {type(content).__name__}: save module.state_dict() and "
            "load that"
        )
    return content


def unwrap(content: Mapping[str, Any], path: str) -> dict[str, torch.Tensor]:
    """The state dict in the ``content`` of the file ``path``: the tensors under :data:`WRAPPERS`, or at the top.

    Raises:
        WeightsError: there are no tensors, or several state dicts under keys that are no known wrappers.
    """
    known = [key for key in WRAPPERS if key in content and any(_state_dicts(content[key]))]
    if known:
        if len(known) > 1:
            logger.info("%s holds %s: the weights of '%s' are taken", path, first_names(known, 9), known[0])
        return unwrap(content[known[0]], path)
    if state := _tensors(content):
        return state
    found = dict(_state_dicts(content))
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        keys = "".join(f"[{json.dumps(key)}]" for key in next(iter(found)))
        command = _python(f"torch.save(torch.load({json.dumps(path)}){keys}, {json.dumps(_beside(path))})")
        raise WeightsError(
            f"weight file '{path}' holds several state dicts, under {first_names(list(map('.'.join, found)), 9)}: take "
            f"the one out that you mean, for the first by {command}, and load '{_beside(path)}'"
        )
    keys = first_names([printable(str(key)) for key in content], 9) or "none"
    raise WeightsError(
        f"weight file '{path}' holds no state dict (its keys: {keys}): save module.state_dict() and load that"
    )


def _tensors(content: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}


def _state_dicts(content: Any, above: _Keys = ()) -> Iterator[tuple[_Keys, dict[str, torch.Tensor]]]:
    """The dicts of tensors in ``content`` and below, by their keys. The state of an optimizer is none."""
    if not isinstance(content, Mapping) or "param_groups" in content:
        return
    if state := _tensors(content):
        yield above, state
    for key, value in content.items():
        if isinstance(key, str):
            yield from _state_dicts(value, (*above, key))


def _check_kind(path: str) -> None:
    """Raise a WeightsError where a file is something else that downloads bring."""
    kind = foreign_kind(path)
    if "page" in kind:
        raise WeightsError(
            f"weight file '{path}' is {kind}, which the server sent instead of the weights: open the link in a "
            "browser, confirm or log in there, and copy the file that it downloads"
        )
    if "Git LFS" in kind:
        raise WeightsError(f"weight file '{path}' is {kind}")


def _read_safetensors(path: str) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # the library raises an error of its own, and those of the file system
        raise _damaged(path) from error


def _read_torch(path: str) -> Any:
    is_archive = _check_archive(path)
    try:
        with torch.serialization.safe_globals(_PLAIN_CLASSES):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # An archive with the right check sums is not damaged, so torch has refused an object in it.
        if is_archive or is_unsafe_global(error):
            raise _unsafe(path, is_archive) from error
        raise _damaged(path) from error
    except Exception as error:  # torch raises many kinds of errors for a file that was cut or changed
        raise _damaged(path) from error


def _check_archive(path: str) -> bool:
    """Compare the check sums of a zip archive, which ``torch.load`` ignores; False if the file is no zip archive.

    Since torch 1.6 weight files are zip archives.

    Raises:
        DamagedFileError: a check sum is wrong, or the archive cannot be read.
        WeightsError: the archive is none of ``torch.save``.
    """
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
            names = archive.namelist()
    except Exception as error:  # a damaged header or directory gives many kinds of errors
        raise _damaged(path) from error
    if changed:
        raise _damaged(path)
    ends = {name.rsplit("/", 1)[-1] for name in names}
    if "constants.pkl" in ends:
        save = f'torch.save(torch.jit.load({json.dumps(path)}, "cpu").state_dict(), {json.dumps(_beside(path))})'
        raise WeightsError(
            f"weight file '{path}' is a TorchScript model, which is code: if you trust its source, save its weights by "
            f"{_python(save)}, and load '{_beside(path)}'"
        )
    if "data.pkl" not in ends:
        raise WeightsError(
            f"weight file '{path}' is an archive ({first_names(list(map(printable, names))) or 'empty'}) that "
            "torch.save has not written: unpack it, and name the weight file that is in it"
        )
    return True


def _unsafe(path: str, is_archive: bool) -> WeightsError:
    names = ""
    if is_archive:
        with torch.serialization.safe_globals(_PLAIN_CLASSES):
            found = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        names = f" ({printable(first_names(found))})"
    save = (
        f'w = torch.load({json.dumps(path)}, "cpu", weights_only=False); '
        'w = w.state_dict() if hasattr(w, "state_dict") else {k: v for k, v in w.items() if isinstance(v, dict)}; '
        f"torch.save(w, {json.dumps(_beside(path))})"
    )
    return WeightsError(
        f"weight file '{path}' holds Python objects besides tensors{names}, which could run code: if you trust its "
        f"source, save its state dict alone by {_python(save)}, and load '{_beside(path)}'"
    )


def _damaged(path: str) -> DamagedFileError:
    return DamagedFileError(
        f"weight file '{path}' is damaged or cut short ({os.path.getsize(path)} bytes), or is none: copy or download "
        "it again, or name another checkpoint"
    )


def _python(statement: str) -> str:
    return f"python -c {shlex.quote(f'import torch; {statement}')}"


def _beside(path: str) -> str:
    """The path of a new file for a state dict that the user takes out of the file ``path``."""
    return f"{os.path.splitext(path)[0]}_weights.pth"
