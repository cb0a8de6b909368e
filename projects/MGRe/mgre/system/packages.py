"""Which of the packages that come in one build with CUDA and one without is installed, and what it sees."""

import importlib
import importlib.metadata
from collections.abc import Callable
from types import ModuleType

# By module: the distributions that hold it, those with CUDA first, and what a loaded one offers.
_BUILDS: dict[str, tuple[tuple[str, ...], Callable[[ModuleType], str]]] = {
    "faiss": (("faiss-gpu", "faiss-cpu"), lambda faiss: f"GPUs: {faiss.get_num_gpus()}"),
    "onnxruntime": (
        ("onnxruntime-gpu", "onnxruntime"),
        lambda onnxruntime: "with CUDA" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "CPU",
    ),
}


def describe_build(module: str) -> str:
    """The installed build of "faiss" or "onnxruntime" in words, such as "faiss-gpu 1.15.1 (GPUs: 1)".

    A build whose libraries are missing, or clash with torch's, "cannot be loaded".
    """
    distributions, offer = _BUILDS[module]
    name = next((f"{name} {version}" for name in distributions if (version := _version(name))), module)
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # of any kind: a missing library is an ImportError or an OSError, a clash anything
        return f"{name} cannot be loaded ({' '.join(str(error).split())})"
    return f"{name} ({offer(loaded)})"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
