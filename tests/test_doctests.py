"""The examples in the docstrings of the package give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

SOURCE = Path("projects/MGRe")
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text()
)


def test_there_are_examples():
    assert {"mgre.errors", "mgre.geometry", "mgre.regions"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))  # prints what differs
    assert result.attempted and not result.failed
