"""The wheel, in a folder of its own and outside the repository: package, configs and commands."""

import ast
import os
import re
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_the_wheel_trains_evaluates_and_plans_the_papers_tables_in_any_folder(installed, run_each, tiny_run, tmp_path):
    command, packages = installed
    empty = tmp_path / "empty"
    empty.mkdir()
    weights = tmp_path / "out" / "model_final.pth"
    train = ("train", "--config-file", "mgre://quickstart.yml")
    commands = [
        (*train, *tiny_run),
        (*train, "--eval-only", *tiny_run, "MODEL.WEIGHTS", str(weights)),
        ("reproduce", "table5", "--config-file", "mgre://custom.yml", "--dry-run"),
    ]
    package, (_, evaluation, plan) = run_each(
        [(str(command), *words) for words in commands], empty, os.environ | {"PYTHONPATH": packages}
    )
    assert package.startswith(packages) and weights.exists() and "mAP" in evaluation
    lines = [line for line in plan.splitlines() if "-m mgre_cli train" in line]
    assert len(lines) == 3 and all("mgre://custom.yml" in line for line in lines)


def test_the_wheel_has_every_config_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    shipped = {path.relative_to("configs").as_posix() for path in Path("configs").glob("**/*.yml")}
    assert {name.removeprefix("mgre/shipped_configs/") for name in names if name.endswith(".yml")} == shipped
    assert "mgre = mgre_cli.main:main" in entry_points
    assert {"mgre/py.typed", "mgre/reporting/report.html"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_import_is_a_requirement():
    """Each package that a module of ours imports at its top is named in setup.py, or is the toolbox."""
    setup = Path("setup.py").read_text()
    required = {name.lower() for name in re.findall(r'"([A-Za-z][\w-]*)>=', setup)}
    packages = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "sklearn": "scikit-learn", "PIL": "pillow"}
    own = {"mgre", "mgre_cli", "fastreid", *sys.stdlib_module_names}
    for path in Path("projects/MGRe").glob("mgre*/**/*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in (name.split(".")[0] for name in names):
                assert module in own or packages.get(module, module) in required, f"{path} imports {module}"


def test_installing_is_said_alike_everywhere():
    """The README's extras are those of setup.py, its toolbox is that of Makefile and Dockerfiles, and its lines for
    containers stand at the top of these."""
    readme, setup, makefile = (Path(name).read_text() for name in ("README.md", "setup.py", "Makefile"))
    extras = [name for group in re.findall(r"'\.\[(.+?)\]'", readme) for name in group.split(",")]
    assert {"cpu", "gpu"} <= {*extras} <= {*re.findall(r'^        "([\w-]+)": ', setup, flags=re.MULTILINE)}
    toolbox = re.search(r"--no-deps (fastreid==\S+ '\S+')", readme)[1]
    assert toolbox in makefile
    for path in Path("docker").iterdir():
        text = path.read_text()
        assert toolbox in text
        assert text.splitlines()[0].partition(": ")[2] in readme.splitlines()
