import collections
import importlib.util
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import fastreid
import pytest
from mgre import compat
from mgre.compat import imports
from mgre.compat.patching import Overlay, adapt
from mgre.errors import SetupError

FIND_SPEC = importlib.util.find_spec


def run_python(code: str, first_on_path: Path) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(first_on_path), *filter(None, sys.path)])}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("missing", "driver", "command"),
    [
        ("fastreid", None, "pip install --no-deps fastreid==1.4.0"),
        ("faiss", None, "pip install faiss-cpu"),
        ("faiss", "/usr/bin/nvidia-smi", "pip install faiss-gpu"),
    ],
)
def test_missing_package_names_its_command(monkeypatch, missing, driver, command):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else FIND_SPEC(name))
    monkeypatch.setattr(shutil, "which", lambda name: driver)
    with pytest.raises(SetupError) as error:
        compat.apply()
    assert str(error.value).endswith(command)
    assert "\n" not in str(error.value)


def test_other_import_errors_show(tmp_path):
    (tmp_path / "fastreid").mkdir()
    (tmp_path / "fastreid" / "__init__.py").write_text("raise ImportError('libbroken.so')")
    result = run_python("import mgre", tmp_path)
    assert result.returncode != 0
    assert result.stderr.strip().endswith("ImportError: libbroken.so")


def test_guarded_clone_imports_in_a_fresh_process(tmp_path):
    """A git clone on PYTHONPATH, whose HEAD asks for torch._six only where torch has it."""
    shutil.copytree(
        Path(fastreid.__file__).parent, tmp_path / "fastreid", ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )
    build = tmp_path / "fastreid" / "data" / "build.py"
    guarded = "if torch.__version__ < '2':\n    from torch._six import string_classes\nelse:\n    string_classes = str"
    source = build.read_text()
    assert "from torch._six import string_classes" in source
    build.write_text(source.replace("from torch._six import string_classes", guarded))
    code = (
        "import collections, sys, warnings\n"
        "warnings.filterwarnings('error', message='Cython')\n"
        "import mgre, fastreid, fastreid.engine, fastreid.evaluation.rank\n"
        "from fastreid.data.build import fast_batch_collator\n"
        "print(fastreid.__file__, hasattr(collections, 'Mapping'), 'torch._six' in sys.modules)\n"
        "print(fast_batch_collator([{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]))\n"
    )
    result = run_python(code, tmp_path)
    assert result.returncode == 0, result.stderr
    where, collated = result.stdout.strip().splitlines()
    assert where == f"{tmp_path / 'fastreid' / '__init__.py'} False False"
    assert collated == "{'a': tensor([1, 2]), 'b': ['x', 'y']}"


def test_former_names_last_as_long_as_asked():
    with imports.former_names():
        from collections.abc import Mapping

        from torch._six import string_classes

        assert isinstance({}, Mapping)
        assert isinstance("x", string_classes)
    assert not hasattr(collections, "Mapping")
    assert "torch._six" not in sys.modules


def test_former_names_leaves_those_that_are_there(monkeypatch):
    mapping, six = object(), types.ModuleType("torch._six")
    six.__spec__ = importlib.util.spec_from_loader("torch._six", loader=None)
    monkeypatch.setattr(collections, "Mapping", mapping, raising=False)
    monkeypatch.setitem(sys.modules, "torch._six", six)
    with imports.former_names():
        assert collections.Mapping is mapping
        assert sys.modules["torch._six"] is six
    assert collections.Mapping is mapping
    assert sys.modules["torch._six"] is six


def test_apply_twice_changes_nothing():
    def snapshot():
        modules = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "fastreid"}
        state = {}
        for module_name, module in modules.items():
            for name, value in vars(module).items():
                state[module_name, name] = id(value)
                if isinstance(value, type) and value.__module__.startswith(("fastreid", "mgre")):
                    state |= {(module_name, name, k): id(v) for k, v in vars(value).items() if callable(v)}
        return state

    before = snapshot()
    compat.apply()
    assert snapshot() == before


@pytest.fixture
def made_up_modules(monkeypatch):
    """A module that defines ``function``, and one that has imported it as ``alias``."""
    owner, user = types.ModuleType("madeup.owner"), types.ModuleType("madeup.user")
    exec("def function():\n    return 1", vars(owner))
    user.alias = owner.function
    monkeypatch.setitem(sys.modules, "madeup.owner", owner)
    monkeypatch.setitem(sys.modules, "madeup.user", user)
    return owner, user


def test_adapt_replaces_every_name_once(made_up_modules):
    owner, user = made_up_modules
    for _ in range(2):
        adapt(owner, "function", lambda f: lambda: f() + 1)
    assert owner.function is user.alias
    assert owner.function() == 2


def test_adapt_replaces_an_imported_name_there_alone(made_up_modules):
    owner, user = made_up_modules
    adapt(user, "alias", lambda f: lambda: f() + 1)
    assert user.alias() == 2
    assert owner.function() == 1


def test_overlay_leaves_the_module_alone():
    overlay = Overlay(collections, Mapping=dict)
    assert overlay.Mapping is dict
    assert overlay.OrderedDict is collections.OrderedDict
    assert not hasattr(collections, "Mapping")
