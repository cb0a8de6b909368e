"""How the adaptations put a function or class of their own in the place of the toolbox's."""

import builtins
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_MARK = "__mgre_adaptation__"
# What was replaced, by its full name: the table of mgre.compat.table has an entry for each.
ORIGINALS: dict[str, Any] = {}


def adapt(owner: ModuleType | type, name: str, make: Callable[[Any], Any]) -> None:
    """Replace ``owner.name`` by ``make(owner.name)``, unless ``owner.name`` is an adaptation already.

    If the module ``owner`` defines the object, the object is replaced in every module of the toolbox that has imported
    it. If ``owner`` has only imported the object, it is replaced in ``owner`` alone. So is one of Python's builtins.
    """
    try:
        original = inspect.getattr_static(owner, name)
    except AttributeError:
        original = getattr(builtins, name)
    if _MARK in getattr(original, "__dict__", ()):  # Python's builtins have none
        return
    replacement = make(original)
    path = owner.__name__ if isinstance(owner, ModuleType) else f"{owner.__module__}.{owner.__qualname__}"
    ORIGINALS[f"{path}.{name}"] = original
    setattr(replacement, _MARK, True)
    setattr(owner, name, replacement)
    if isinstance(owner, ModuleType) and getattr(original, "__module__", None) == owner.__name__:
        for module in _modules_of(owner.__name__.partition(".")[0]):
            for alias, value in list(vars(module).items()):
                if value is original:
                    setattr(module, alias, replacement)


def _modules_of(package: str) -> list[ModuleType]:
    prefix = f"{package}."
    return [m for n, m in list(sys.modules.items()) if (n == package or n.startswith(prefix)) and m is not None]


class Overlay(ModuleType):
    """A view of a module in which a few names have other values; the module itself is not changed."""

    def __init__(self, module: ModuleType, **names: Any) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(names)
        self.__dict__[_MARK] = True
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
