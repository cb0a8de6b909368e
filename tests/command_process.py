"""A command in a process of its own that need not import torch: a child of multiprocessing's fork server.

A new Python spends five seconds or more of a core on the imports. The server has done them once for all tests of a
pytest process, and each of its children starts in that state. It has run nothing else, so it has no thread, no lock and
no log of a test, which a child of the pytest process itself might inherit.
"""

import functools
import importlib
import multiprocessing
import os
import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path

# What the commands import.
PRELOADED = ["mgre.engine.run", "mgre.commands.main", "mgre_cli.train"]


def run_script(
    words: list[str], folder: Path, *, cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a Python script with arguments; the result is that of ``subprocess.run`` with the output as text.

    Args:
        words: the script's path and its arguments.
        folder: for the files that take what the script prints.
        env: the environment. Python and the libraries have read theirs, such as PYTHONPATH, when the server started.
    """
    streams = folder / "stdout", folder / "stderr"
    # Absolute, because the server's working directory is that of the test which has started it.
    arguments = (words, os.path.abspath(cwd), dict(env), *map(os.path.abspath, streams))
    process = multiprocessing.get_context("forkserver").Process(target=_become, args=arguments)
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise subprocess.TimeoutExpired(words, timeout, *(path.read_bytes() for path in streams))
    return subprocess.CompletedProcess(words, process.exitcode, *(path.read_text() for path in streams))


def _become(words: list[str], cwd: str, env: dict[str, str], *streams: str) -> None:
    """In the new process: run the script as ``python script`` does."""
    for number, path in enumerate(streams, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = words
    importlib.import_module("tests.toy_backbone")  # registers the backbone of the fixture ``toy_run``
    processes_start_quickly()
    # As a new Python has it: the script's folder, and not that of the tests.
    root = str(Path(__file__).parents[1])
    sys.path[:] = [entry for entry in sys.path if entry and os.path.abspath(entry) != root]
    sys.path.insert(0, os.path.dirname(os.path.abspath(words[0])))
    module = types.ModuleType("__main__")
    module.__file__ = words[0]
    # The script's own child processes name its classes by __mp_main__. multiprocessing has made that alias of __main__
    # when it was imported, which is long ago here.
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    exec(compile(Path(words[0]).read_bytes(), words[0], "exec", dont_inherit=True), module.__dict__)


def processes_start_quickly() -> None:
    """Fork the processes that are started with ``spawn``, instead of letting each import everything again."""
    import torch.multiprocessing

    torch.multiprocessing.spawn = functools.partial(torch.multiprocessing.start_processes, start_method="fork")
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get_context("fork" if method == "spawn" else method)
