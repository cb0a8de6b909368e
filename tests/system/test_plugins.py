"""What is imported for a config, and what a plugin's mistakes say."""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mgre
import pytest
from fvcore.common.registry import Registry
from mgre.commands.main import main
from mgre.errors import ConfigError, SetupError
from mgre.system.plugins import import_installed_plugins, import_plugins

SEEN = Registry("SEEN")
# What a plugin file does that works.
REGISTERS = "from test_plugins_seen import SEEN\n@SEEN.register()\ndef part(): pass\n"


@pytest.fixture(autouse=True)
def own_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Forget what a test has imported, and the folders it has added to the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(SEEN, "_obj_map", {})
    monkeypatch.setitem(sys.modules, "test_plugins_seen", sys.modules[__name__])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a plugin file; its path."""

    def write(content: str, name: str = "own_part.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return str(path)

    return write


def test_a_file_is_imported_once_by_any_path(write):
    path = write(REGISTERS)
    import_plugins([path, "own_part.py", "./own_part.py"])
    assert set(dict(SEEN)) == {"part"}
    assert sys.modules["own_part"].__file__ == path


def test_a_file_may_import_others_beside_it(write, tmp_path):
    write("WORDS = ['hello']", "parts/own_words.py")
    import_plugins([write("from own_words import WORDS\n" + REGISTERS, "parts/own_part.py")])
    assert sys.modules["own_part"].WORDS == ["hello"]
    assert sys.path[-1] == str(tmp_path / "parts")  # at the end, where it hides nothing


def test_a_module_of_a_package_is_imported_by_name(write, tmp_path, monkeypatch):
    write("", "own_package/__init__.py")
    write(REGISTERS, "own_package/parts.py")
    with pytest.raises(ConfigError, match=r"'own_package.parts', which is no module that can be found here"):
        import_plugins(["own_package.parts"])
    monkeypatch.syspath_prepend(tmp_path)
    import_plugins(["own_package.parts"])
    assert set(dict(SEEN)) == {"part"}


def test_another_process_finds_the_parts_of_a_file(write, tmp_path):
    """A process that is started anew gets objects of a plugin's classes, as a worker of a loader may."""
    import_plugins([write("class Step:\n    def run(self, path): open(path, 'w').close()\n", "parts/own_step.py")])
    step = sys.modules["own_step"].Step()
    process = multiprocessing.get_context("spawn").Process(target=step.run, args=(str(tmp_path / "done"),))
    process.start()
    process.join(60)
    assert process.exitcode == 0 and (tmp_path / "done").exists()


def test_a_module_that_fails_shows_its_traceback_and_then_one_line(write, capsys):
    path = write("def helper():\n    return 1 / 0\nhelper()\n")
    assert main(lambda: import_plugins([path])) == 1
    traceback = capsys.readouterr().err.strip().splitlines()
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[1] == f'  File "{path}", line 3, in <module>'  # its own code first, not ours
    assert "ZeroDivisionError: division by zero" in traceback
    assert traceback[-1] == (
        f"error: IMPORTS has '{path}', which cannot be imported: ZeroDivisionError: division by zero"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def part(:", "cannot be imported: SyntaxError: "),
        ("import no_such_module_anywhere", "cannot be imported: ModuleNotFoundError: .*no_such_module_anywhere"),
        ("import sys\nsys.exit(3)", "cannot be imported: SystemExit: 3"),
        (REGISTERS + REGISTERS, "registers the name 'part', which is taken in the registry SEEN: choose another"),
        ("MGRE_REQUIRES = '>=99'\nraise RuntimeError", "was made for mgre >=99, and this is mgre"),
        ("MGRE_REQUIRES = 'new'\n", "has MGRE_REQUIRES 'new'; allowed: "),
        ("MGRE_REQUIRES = wanted()\n", r"has MGRE_REQUIRES 'wanted\(\)'; allowed: "),
        ("MGRE_REQUIRES = ('\n", "cannot be imported: SyntaxError: "),
    ],
)
def test_what_a_module_may_do_wrong(write, content, message):
    with pytest.raises(ConfigError, match=message) as error:
        import_plugins([write(content)])
    assert "\n" not in str(error.value)
    assert "own_part" not in sys.modules


def test_the_version_that_a_module_asks_for(write):
    import_plugins([write(f"MGRE_REQUIRES = '=={mgre.__version__}'\n{REGISTERS}")])
    assert set(dict(SEEN)) == {"part"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py", r"'nowhere.py', which does not exist \(working directory "),
        ("my-part.py", "cannot be imported by its name: call the file after a module"),
        ("json.py", "has the name of another module .*json.*: rename the file"),
        ("numpy.py", "has the name of another module .*numpy.*: rename the file"),
        ("sys.py", r"has the name of another module \(.*\): rename the file"),
        ("no_such_module_anywhere", "is no module that can be found here"),
        ("json.no_such_part", "is no module that can be found here"),
        ("folder/part", "is no name of a module"),
        ("..part", "is no name of a module"),
    ],
)
def test_names_that_cannot_be_imported(write, name, message):
    if name.endswith(".py") and name != "nowhere.py":
        write(REGISTERS, name)
    with pytest.raises(ConfigError, match=message):
        import_plugins([name])
    assert not dict(SEEN)


@pytest.fixture
def install(write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a package "own-parts" with an entry point for the module own_parts."""

    def install(content: str) -> None:
        write(content, "site/own_parts.py")
        write("Metadata-Version: 2.1\nName: own-parts\nVersion: 1.2\n", "site/own_parts-1.2.dist-info/METADATA")
        write("[mgre.plugins]\nmine = own_parts\n", "site/own_parts-1.2.dist-info/entry_points.txt")
        monkeypatch.syspath_prepend(tmp_path / "site")

    import_installed_plugins.cache_clear()
    yield install
    import_installed_plugins.cache_clear()


def test_installed_plugins_are_imported(install):
    install(REGISTERS)
    import_installed_plugins()
    assert set(dict(SEEN)) == {"part"}


def test_an_installed_plugin_that_fails_is_named(install, capsys):
    install("MGRE_REQUIRES = '<0.0.1'")
    with pytest.raises(SetupError, match=r"plugin 'mine' \(own_parts, of own-parts 1.2\) was made for mgre <0.0.1"):
        import_installed_plugins()
    install("raise OSError('no camera')")
    with pytest.raises(SetupError, match=r"plugin 'mine' .* cannot be imported: OSError: no camera"):
        import_installed_plugins()
    assert "own_parts.py" in capsys.readouterr().err
