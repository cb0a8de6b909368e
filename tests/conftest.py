"""The settings of the tests' processes; the fixtures for all tests are in tests/fixtures.py."""

import gc
import multiprocessing
import os
import signal

import pytest

from tests import command_process

# Tests of DETERMINISTIC need it. torch reads it once in a process, at the first product on a GPU.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# One process per core: more threads than cores only wait for each other, which takes the time of those that work.
# torch reads it at its import.
os.environ["OMP_NUM_THREADS"] = "1"
# glibc gives each large array back to the system when it is freed, and the system clears the pages of the next one.
# That took an eighth of the tests' time. These make a process keep its pages. It reads them at its start, so they are
# for those that this one starts, xdist's among them.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 30))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(4 << 30))
# The fork server of this process, for run_script and for tests that start processes with multiprocessing.
multiprocessing.set_forkserver_preload(command_process.PRELOADED)
# A shell without job control lets what it starts in the background ignore Ctrl-C, and so would each process of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Have the fixtures, but not in xdist's controller: it runs no test, and their imports take seconds."""
    is_controller = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if not is_controller:
        config.pluginmanager.import_plugin("tests.fixtures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests with a time limit of their own first. They are the longest, and the process that does not run the
    last one would have nothing to do meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def pytest_collection_finish() -> None:
    """Leave what the imports have made out of every collection of garbage: a walk through it takes 0.2 s each time."""
    gc.collect()
    gc.freeze()
