"""From parsed options to the command that they are for."""

import argparse
import importlib


def start(command: str, args: argparse.Namespace) -> int:
    """Call ``run(args)`` of the module mgre.commands.``command``; the exit status.

    The module is imported only here, after the options have been parsed: that imports torch, which takes seconds.
    """
    from mgre.commands.main import main as run_command

    run = importlib.import_module(f"mgre.commands.{command}").run
    return run_command(lambda: run(args))
