"""What decides whether a computation can be repeated: random generators' states, and the choice of GPU kernels."""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

from mgre.errors import ConfigError, SetupError
from mgre.system.foreign_messages import operation_without_deterministic_kernel, wants_cublas_workspace

# The workspaces with which NVIDIA's cuBLAS gives the same bits in each run. torch reads the variable once, at the first
# product on a GPU.
CUBLAS_VARIABLE, CUBLAS_WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")

# With a GPU the toolbox's loader draws random numbers in a thread of its own, hence the lock. A fork waits for the
# lock, because a child process would inherit a lock that nobody releases.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def raw_random_states() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators, as they give them: quick enough for every step."""
    with _lock:
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        }


def random_states(raw: dict[str, Any] | None = None) -> dict[str, Any]:
    """The states of the generators of this process, and of the present CUDA device where CUDA is in use.

    Plain containers and tensors, which ``torch.load(weights_only=True)`` reads.

    Args:
        raw: states that :func:`raw_random_states` gave earlier; None takes the present ones.
    """
    raw = raw_random_states() if raw is None else raw
    version, python, python_gauss = raw["python"]
    name, numpy, position, has_gauss, numpy_gauss = raw["numpy"]
    return raw | {
        "python": (version, torch.tensor(python), python_gauss),
        "numpy": (name, torch.from_numpy(numpy.astype(np.int64)), position, has_gauss, numpy_gauss),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore the states that :func:`random_states` returned."""
    version, python, gauss = states["python"]
    random.setstate((version, tuple(python.tolist()), gauss))
    name, numpy, *rest = states["numpy"]
    np.random.set_state((name, numpy.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states["cuda"])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block Python, numpy and torch (on the CPU) draw from ``seed``; after it, their states are as before.

    :func:`random_states` in another thread waits for the end of the block.

    Args:
        seed: 0 to 2**32 - 1.
    """
    # Not torch.manual_seed, which would also seed the generators of CUDA.
    with _lock:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Within the block the same numbers go in, the same bits come out, on one GPU too; after it, all is as before.

    torch takes deterministic kernels where it has them, at a cost in time, and cuDNN neither searches for the fastest
    algorithm nor takes one that adds in a changing order. What torch.compile compiles within the block follows too.

    Args:
        enabled: False: the block changes nothing.

    Raises:
        ConfigError: within the block, an operation has no deterministic kernel.
        SetupError: the environment asks cuBLAS for another workspace than a deterministic one, or the process has used
            cuBLAS before without one.
    """
    if not enabled:
        yield
        return
    workspace = os.environ.get(CUBLAS_VARIABLE)
    if workspace not in (None, *CUBLAS_WORKSPACES):
        raise SetupError(
            f"{CUBLAS_VARIABLE} is '{workspace}' in the environment, with which DETERMINISTIC True cannot hold; "
            f"allowed: not set, {' or '.join(CUBLAS_WORKSPACES)}"
        )
    cudnn, empty = torch.backends.cudnn, cast(Any, torch.utils.deterministic)  # its setting has no declaration
    before = cudnn.benchmark, cudnn.deterministic
    fill = empty.fill_uninitialized_memory
    algorithms = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ[CUBLAS_VARIABLE] = workspace or CUBLAS_WORKSPACES[0]
    cudnn.benchmark, cudnn.deterministic = False, True
    torch.use_deterministic_algorithms(True)
    # torch would write each new tensor twice, to show code that reads what nobody wrote. That costs time, and no bit
    # of a result.
    empty.fill_uninitialized_memory = False
    try:
        yield
    except RuntimeError as error:
        if operation := operation_without_deterministic_kernel(error):
            raise ConfigError(
                f"DETERMINISTIC is True, but {operation} has no deterministic kernel for CUDA: choose another layer or "
                "loss, set DETERMINISTIC False, or train on the CPU"
            ) from error
        if wants_cublas_workspace(error):
            raise SetupError(
                "DETERMINISTIC True comes too late in a process that has computed products on a GPU before: set "
                f"{CUBLAS_VARIABLE}={CUBLAS_WORKSPACES[0]} in the environment, or train in a process of its own"
            ) from error
        raise
    finally:
        cudnn.benchmark, cudnn.deterministic = before
        empty.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(algorithms, warn_only=only_warns)
        if workspace is None:
            del os.environ[CUBLAS_VARIABLE]
