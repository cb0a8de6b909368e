"""From parsed options to the command that they are for."""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable

# What the commands import that train, evaluate or read checkpoints, and how it is installed.
STACK = {
    "torch": "pip install torch torchvision, or see https://pytorch.org for a build for your GPU",
    "fastreid": "pip install --no-deps fastreid==1.4.0 (without --no-deps it would bring torch 1.13)",
}

# Set, the import of mgre leaves the toolbox and torch out.
_INFERENCE_ONLY = "MGRE_INFERENCE_ONLY"
# Commands whose model may be an exported file, and the kinds of files that need neither.
_TAKE_EXPORTED = ("card", "compare", "extract", "index")
_WITHOUT_STACK = (".onnx", ".xml")


def start(command: str, args: argparse.Namespace) -> int:
    """Call ``run(args)`` of the module mgre.commands.``command``; the exit status.

    The module is imported only here, after the options have been parsed: that imports torch, which takes seconds.
    """

    def work() -> object:
        return importlib.import_module(f"mgre.commands.{command}").run(args)

    # Without a model, an index takes features that are there already.
    model = getattr(args, "model", "")
    needs_stack = command not in _TAKE_EXPORTED or bool(model and not model.endswith(_WITHOUT_STACK))
    if not needs_stack and not getattr(args, "rerank", False):
        _import_without_toolbox()
        return _run(work)
    return call(work)


def call(function: Callable[[], object]) -> int:
    """Call a function that imports the training stack; the exit status. A missing package is one line on stderr."""
    for package, remedy in STACK.items():
        if importlib.util.find_spec(package) is None:
            print(f"error: {package} is not installed: {remedy}", file=sys.stderr)
            return 1
    return _run(function)


def _run(function: Callable[[], object]) -> int:
    from mgre.commands.main import main as run_command

    return run_command(function)


def _import_without_toolbox() -> None:
    os.environ[_INFERENCE_ONLY] = "1"
    try:
        importlib.import_module("mgre")
    finally:
        del os.environ[_INFERENCE_ONLY]  # processes that the command starts may need the toolbox
