"""Plugins: modules and files that register parts of their own while they are imported."""

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterable
from importlib.machinery import ModuleSpec

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from mgre.errors import ConfigError, MGReError, SetupError
from mgre.system.foreign_messages import name_registered_twice
from mgre.version import VERSION

# The entry points of installed plugins: each names a module.
GROUP = "mgre.plugins"
# A module may say by this name for which versions of mgre it was made, such as ">=0.1,<0.3".
REQUIRES = "MGRE_REQUIRES"
FILE_SUFFIX = ".py"


def import_plugins(names: Iterable[str]) -> None:
    """Import modules, by name, and Python files, by path. What is imported already is left alone.

    The folder of a file is added to the end of ``sys.path``, so that processes that are started anew find the file too.

    Raises:
        ConfigError: one of them does not exist, was made for another version of mgre, fails while it is imported, or
            registers a name that is taken.
    """
    for name in names:
        where = f"IMPORTS has '{name}', which"
        _import(_module_of_file(name, where) if name.endswith(FILE_SUFFIX) else name, where, ConfigError)


@functools.cache
def import_installed_plugins() -> None:
    """Import the modules that installed packages name in the entry points "mgre.plugins".

    Raises:
        SetupError: as :func:`import_plugins`.
    """
    for point in sorted(importlib.metadata.entry_points(group=GROUP)):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
        where = f"the installed plugin '{point.name}' ({point.module}, of {package})"
        _import(point.module, where, SetupError)


def _module_of_file(path: str, where: str) -> str:
    """The name under which a Python file can be imported."""
    path = os.path.abspath(os.path.expanduser(path))
    folder, file_name = os.path.split(path)
    name = file_name.removesuffix(FILE_SUFFIX)
    if not os.path.isfile(path):
        raise ConfigError(f"{where} does not exist (working directory {os.getcwd()})")
    if not name.isidentifier():
        raise ConfigError(f"{where} cannot be imported by its name: call the file after a module, such as my_losses.py")
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    found = sys.modules[name].__spec__ if name in sys.modules else importlib.util.find_spec(name)
    origin = found.origin if found and found.origin else "Python itself"
    if not os.path.exists(origin) or not os.path.samefile(origin, path):
        raise ConfigError(f"{where} has the name of another module ({origin}): rename the file")
    return name


def _import(name: str, where: str, kind: type[MGReError]) -> None:
    """Import a module; an error of its own code is printed with its traceback, before it is raised in one line.

    Args:
        name: the module's.
        where: who asks for it, the start of a message.
        kind: of the error.
    """
    if name in sys.modules:
        return
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise kind(
            f"{where} is no name of a module; allowed: a module, such as my_package.losses, or a file, losses.py"
        )
    try:
        spec = importlib.util.find_spec(name)  # imports the packages above the module
        if spec is None:
            raise ModuleNotFoundError(name=name)
        _require_version(spec, where, kind)
        importlib.import_module(name)
    except MGReError:
        raise
    except (Exception, SystemExit) as error:  # whatever the module does
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise kind(
                f"{where} is no module that can be found here: install it, set PYTHONPATH to its folder, or name the "
                "file with its path and .py"
            ) from error
        if taken := name_registered_twice(error):
            raise kind(
                f"{where} registers the name '{taken[0]}', which is taken in the registry {taken[1]}: choose another"
            ) from error
        _print_traceback(error)
        reason = " ".join(str(error).split())
        raise kind(f"{where} cannot be imported: {type(error).__name__}: {reason}") from error


def _require_version(spec: ModuleSpec, where: str, kind: type[MGReError]) -> None:
    """Stop before a module that was made for another version of mgre is imported."""
    wanted = _declared_versions(spec)
    if wanted is None:
        return
    try:
        fits = SpecifierSet(wanted).contains(VERSION, prereleases=True)
    except InvalidSpecifier as error:
        raise kind(f"{where} has {REQUIRES} {wanted!r}; allowed: versions as pip takes them, '>=0.1,<0.3'") from error
    if not fits:
        raise kind(f"{where} was made for mgre {wanted}, and this is mgre {VERSION}: install another version of either")


def _declared_versions(spec: ModuleSpec) -> str | None:
    """The value of ``MGRE_REQUIRES`` in a module's source; None without one. The module is not run for it."""
    read_source = getattr(spec.loader, "get_source", None)
    source: str = (read_source(spec.name) if read_source else None) or ""
    if REQUIRES not in source:
        return None
    try:
        nodes = ast.parse(source).body
    except SyntaxError:  # the import shows it with its place
        return None
    for node in nodes:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [REQUIRES]:
            is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
            return str(ast.literal_eval(node.value)) if is_text else ast.unparse(node.value)
    return None


def _print_traceback(error: BaseException) -> None:
    """The traceback of a module's own code, without the way to it."""
    frames = error.__traceback__
    while frames and (
        frames.tb_frame.f_code.co_filename == __file__ or "importlib" in frames.tb_frame.f_code.co_filename
    ):
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)
