"""Errors and warnings of other libraries that only their wording tells apart, because they have no class of their own.

Each wording stands here once. tests/system/test_foreign_messages.py lets the library itself produce the wording, so a
release with another one is noticed.
"""

import pickle
import re

import torch

# Phrases in gloo's RuntimeErrors after another process has ended. The last one is in the paths of gloo's source files.
_GLOO_LOST_CONNECTION = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo/transport")
# torch's allocator for the CPU, and onnxruntime's for both kinds of device.
_OUT_OF_MEMORY = re.compile(r"out of memory|allocate memory|bad_?alloc|bad allocation", re.IGNORECASE)
_NO_DETERMINISTIC_KERNEL = re.compile(r"(\S+) does not have a deterministic implementation")
_REGISTERED_TWICE = re.compile(r"An object named '(.+)' was already registered in '(.+)' registry")
_WORKER_PIDS = re.compile(r"\(pid\D*([\d, ]+)")

# Warnings, as patterns for warnings.filterwarnings.
SPARSE_TENSORS_ARE_BETA = "Sparse"
MARKET1501_LAYOUT_IS_OLD = "The current data structure is deprecated"


def dead_worker_pids(error: RuntimeError) -> list[int] | None:
    """The process ids in the error of a ``DataLoader`` whose worker has died; None for another error."""
    if "DataLoader worker" not in str(error):
        return None
    pids = _WORKER_PIDS.search(str(error))
    return [int(pid) for pid in re.findall(r"\d+", pids.group(1))] if pids else []


def is_missing_file(error: Exception) -> bool:
    """Whether a reader of the toolbox has not found a file or folder of its data set."""
    return isinstance(error, FileNotFoundError) or "not found" in str(error)


def is_lost_connection(error: BaseException) -> bool:
    """Whether a collective operation failed because another process has ended."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _GLOO_LOST_CONNECTION)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, numpy, torch or onnxruntime got no memory, on the CPU or on a GPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def operation_without_deterministic_kernel(error: RuntimeError) -> str | None:
    """The operation that torch's deterministic mode refused; None for another error."""
    refused = _NO_DETERMINISTIC_KERNEL.search(str(error))
    return refused.group(1) if refused else None


def wants_cublas_workspace(error: RuntimeError) -> bool:
    """Whether torch's deterministic mode misses the variable that it read at the process's first product on a GPU."""
    return "CUBLAS_WORKSPACE_CONFIG" in str(error)


def name_registered_twice(error: BaseException) -> tuple[str, str] | None:
    """The name and the registry, where a registry of the toolbox or of fvcore has the name already; else None."""
    found = _REGISTERED_TWICE.search(str(error)) if isinstance(error, AssertionError) else None
    return (found.group(1), found.group(2)) if found else None


def is_unsafe_global(error: pickle.UnpicklingError) -> bool:
    """Whether ``torch.load(weights_only=True)`` refused a function or class that the file names.

    Only for files of the format before torch 1.6: in a zip archive ``torch.serialization`` finds the names itself.
    """
    return "GLOBAL" in str(error)
