"""What keeps the toolbox from being imported."""

import collections
import collections.abc
import importlib
import importlib.util
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from mgre.errors import SetupError


def require_packages() -> None:
    """Say how to install the toolbox and faiss, which no other package may pull in.

    The toolbox pins torch==1.13.1, and faiss comes as one package for CPUs and another for GPUs. Whatever else fails
    while they are imported shows as it is.

    Raises:
        SetupError: one of them is not installed.
    """
    if importlib.util.find_spec("fastreid") is None:
        raise SetupError("the toolbox is not installed: pip install --no-deps fastreid==1.4.0")
    if importlib.util.find_spec("faiss") is None:
        package = "faiss-gpu" if shutil.which("nvidia-smi") else "faiss-cpu"
        raise SetupError(f"faiss is not installed: pip install {package}")


def import_toolbox() -> None:
    """Import the modules of the toolbox that cannot be imported without help.

    Its data and evaluation packages take names from where Python 3.10 and torch 2 no longer have them, and its ranking
    warns that it will be slow without Cython, which :mod:`mgre.compat.evaluation` makes untrue. A process that is
    spawned imports everything anew, so it has to import this package too, as it does to unpickle one of its functions.
    """
    with former_names(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cython (rank|roc) evaluation")
        for module in ("fastreid.engine", "fastreid.evaluation.rank", "fastreid.evaluation.roc"):
            importlib.import_module(module)


@contextmanager
def former_names() -> Iterator[None]:
    """``collections.Mapping`` (gone in Python 3.10) and ``torch._six`` (gone in torch 2), as long as this lasts."""
    add_mapping = not hasattr(collections, "Mapping")
    add_six = importlib.util.find_spec("torch._six") is None
    if add_mapping:
        collections.Mapping = collections.abc.Mapping
    if add_six:
        six = ModuleType("torch._six")
        six.string_classes = (str, bytes)
        sys.modules["torch._six"] = six
    try:
        yield
    finally:
        if add_mapping:
            del collections.Mapping
        if add_six:
            del sys.modules["torch._six"]
