"""The house rules of docs/architecture.md that a look at the files can decide."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

SOURCE = Path("projects/MGRe")
FILES = sorted(SOURCE.glob("mgre*/**/*.py"))
# From the top down: a folder imports those after it.
FLOORS = (
    *(
        "commands",
        "export",
        "gallery",
        "inference",
        "reproduction",
        "engine",
        "reporting",
        "evaluation",
        "pose",
        "config",
    ),
    *("data", "modeling", "geometry", "regions", "reading", "system", "record", "errors", "version", "colors", "tiles"),
)
# Longer files are data tables, or have two subjects.
MOST_LINES = 350


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """The modules of the package that this file imports when it is imported itself."""
    known = {module_of(other) for other in FILES}
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
    return found & known


def floor_of(module: str) -> str:
    return [*module.split("."), ""][1]


def test_no_import_circle():
    list(graphlib.TopologicalSorter({module_of(path): imports_of(path) for path in FILES}).static_order())


def test_a_circle_would_be_seen():
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_imports_downwards_and_has_one_subject(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES
    own = floor_of(module_of(path))
    if own in FLOORS:
        for other in map(floor_of, imports_of(path)):
            assert other not in FLOORS or FLOORS.index(own) <= FLOORS.index(other), f"{own} imports {other}"


def test_every_folder_is_on_the_page():
    page = Path("docs/architecture.md").read_text()
    folders = {path.name for path in (SOURCE / "mgre").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(re.findall(r"`(\w+)/`", page))


def test_every_name_on_the_page_is_in_the_code():
    """``module.name`` or ``Class.name`` on the page, so that it is found by searching for its last part."""
    page = Path("docs/architecture.md").read_text()
    source = "\n".join(path.read_text() for path in FILES)
    names = {name.rsplit(".", 1)[-1] for name in re.findall(r"`((?:[a-z_]+\.)*[A-Za-z_]+\.[A-Za-z_]+)`", page)}
    names = {name for name in names if not name.isupper()} - {"py", "json", "md", "pth"}
    modules = {part for path in FILES for part in module_of(path).split(".")}
    missing = [name for name in names if name not in modules and not re.search(rf"(?:def|class) {name}\b", source)]
    assert names and not missing


def test_every_folder_of_tests_is_a_package():
    """They mirror the package's layout, so two may have a file of one name, which pytest takes from packages only."""
    folders = {path.parent for path in Path("tests").rglob("test_*.py")}
    assert len(folders) > 10
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]
