"""What keeps the toolbox from being imported."""

import collections
import collections.abc
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mgre.errors import SetupError


def require_packages() -> None:
    """Say how to install the toolbox, which no other package may pull in, because it pins torch==1.13.1.

    Whatever else fails while it is imported shows as it is.

    Raises:
        SetupError: it is not installed.
    """
    if importlib.util.find_spec("fastreid") is None:
        raise SetupError("the toolbox is not installed: pip install --no-deps fastreid==1.4.0")


def import_toolbox() -> None:
    """Import the modules of the toolbox that cannot be imported without help.

    Its data and evaluation packages take names from where Python 3.10 and torch 2 no longer have them, and its ranking
    warns that it will be slow without Cython, which :mod:`mgre.compat.evaluation` makes untrue. A process that is
    spawned imports everything anew, so it has to import this package too, as it does to unpickle one of its functions.
    """
    importlib.import_module("torchvision")  # before the stand-ins: torch looks for some of these packages itself
    modules = ("fastreid.engine", "fastreid.evaluation.rank", "fastreid.evaluation.roc")
    with former_names(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cython (rank|roc) evaluation")
        try:
            with late_packages():
                for module in modules:
                    importlib.import_module(module)
        except ModuleNotFoundError as error:
            # A changed toolbox may import a submodule of these packages, which a stand-in does not have.
            if error.name is None or not error.name.startswith(("faiss.", "sklearn.", "torch.utils.tensorboard.")):
                raise
            for module in modules:
                importlib.import_module(module)


@contextmanager
def former_names() -> Iterator[None]:
    """``collections.Mapping`` (gone in Python 3.10) and ``torch._six`` (gone in torch 2), as long as this lasts."""
    python: Any = collections
    add_mapping = not hasattr(collections, "Mapping")
    add_six = importlib.util.find_spec("torch._six") is None
    if add_mapping:
        python.Mapping = collections.abc.Mapping
    if add_six:
        six: Any = ModuleType("torch._six")
        six.string_classes = (str, bytes)
        sys.modules["torch._six"] = six
    try:
        yield
    finally:
        if add_mapping:
            del python.Mapping
        if add_six:
            del sys.modules["torch._six"]


class LateModule(ModuleType):
    """Stands in for a module, and imports it when it is asked for a name that it has not been given.

    Args:
        name: of the module.
        names: what it is given.
    """

    def __init__(self, name: str, **names: Any) -> None:
        super().__init__(name)
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # ``from package import name`` asks for it first
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # else the import would find the stand-in
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _make_summary_writer(*args: Any, **kwargs: Any) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(*args, **kwargs)


@contextmanager
def late_packages() -> Iterator[None]:
    """Stand-ins for faiss, scikit-learn and TensorBoard, as long as this lasts.

    The toolbox imports these packages with its modules, but most runs do not use them: faiss and scikit-learn's metrics
    serve its re-ranking and its ROC curve, and SummaryWriter is the annotation of an argument that nothing passes.
    With scipy, which scikit-learn imports, they take a quarter of the time of torch and torchvision.

    A module that is imported meanwhile keeps the stand-in, which imports the package at first use. Whoever imports the
    package later gets the package itself, because ``sys.modules`` has no stand-in any more. The modules of the standard
    library's ``LazyLoader`` would have to stay there, and ``from sklearn import metrics`` would import them at once. A
    package that has been imported before needs no stand-in. Without scikit-learn the import fails at once. faiss may be
    missing: torch finds the neighbours, and faiss only where TEST.RERANK.SEARCH says so.
    """
    stand_ins = {
        "faiss": LateModule("faiss", METRIC_L2=1),  # the default of an argument
        "sklearn": LateModule("sklearn", metrics=LateModule("sklearn.metrics")),
        "torch.utils.tensorboard": LateModule("torch.utils.tensorboard", SummaryWriter=_make_summary_writer),
    }
    for name, stand_in in stand_ins.items():
        if name in sys.modules:
            continue
        # ``importlib.util.find_spec`` takes a module without a spec for broken.
        stand_in.__spec__ = importlib.util.find_spec(name) or (ModuleSpec(name, None) if name == "faiss" else None)
        if stand_in.__spec__ is not None:
            sys.modules[name] = stand_in
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
