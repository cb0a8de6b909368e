"""docs/first-steps.ipynb: its cells run from top to bottom, on a small model."""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mgre.data.synthetic.files import SyntheticSpec, ensure_drawn
from PIL import Image

NOTEBOOK = Path("docs/first-steps.ipynb").absolute()


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; the value of its last line, which a notebook shows."""
    *statements, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        statements, last = [*statements, last], None
    exec(compile(ast.Module(statements, []), "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_every_cell_runs(drawn, monkeypatch):
    ensure_drawn(str(drawn / "datasets"), SyntheticSpec(1, 4, 2, 2, size=(64, 32)), progress=False)
    (drawn / "docs").mkdir(exist_ok=True)
    monkeypatch.chdir(drawn / "docs")  # where a notebook starts
    names: dict[str, Any] = {}
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    shown = [run_cell("".join(cell["source"]), names) for cell in cells]
    assert shown[0][:2] == ("MGRe", (64, 32)) and set(shown[1]) == {"stage1", "stage2", "stage3", "stage4"}
    assert shown[2] == (len(names["paths"]), names["model"].dim) and len(names["paths"]) > 3
    assert np.diag(shown[3]) == pytest.approx(1)
    assert sum(shown[4].values()) == pytest.approx(names["cosines"][0, 1], abs=0.01)  # rounded shares
    assert isinstance(shown[5], Image.Image) and shown[5].width > 700
    # The nearest of the others, by the table of cosines.
    order = np.argsort(-names["cosines"][0, 1:])[:3]
    assert [name for _, name, _ in shown[6]] == [Path(names["paths"][i + 1]).name for i in order]


def test_the_notebook_has_no_results_of_a_machine():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
