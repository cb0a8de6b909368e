"""Features, index and search beside the evaluation, and docs/recipes/find-again.md from top to bottom."""

import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mgre.commands import evaluated
from mgre_cli.main import main
from PIL import Image

RECIPE = Path("docs/recipes/find-again.md").absolute()
MODEL = "logs/MGRe/quickstart/model_final.pth"


@pytest.fixture
def evaluation(drawn, small_words):
    """Of the drawn people's test set, with re-ranking."""
    args = SimpleNamespace(config_file=None, model=MODEL, allow_imports=False, opts=["TEST.RERANK.ENABLED", "True"])
    return evaluated.evaluate(*evaluated.load_evaluated(args))


@pytest.mark.parametrize("order", ["plain", "re-ranked"])
def test_a_search_has_the_order_of_the_evaluation(evaluation, order, capsys):
    folder = Path(evaluation.query_paths[0]).parents[1]
    rerank = ["--rerank", "--first", str(len(evaluation.gallery_paths))] if order == "re-ranked" else []
    for command in (
        ["extract", str(folder / "query"), "--model", MODEL, "--output", "queries.npz", "--overwrite"],
        ["extract", str(folder / "bounding_box_test"), "--model", MODEL, "--output", "gallery.npz", "--overwrite"],
        ["index", "build", f"people-{order}", "gallery.npz"],
        ["index", "search", f"people-{order}", "queries.npz", "--count", "9999", *rerank, "--output", "found.json"],
    ):
        assert main(command) == 0, capsys.readouterr().err
    found = {answer["query"]: answer["results"] for answer in json.loads(Path("found.json").read_text())}
    distances = np.asarray(evaluation.orders[order].distances)
    assert len(found) == len(evaluation.query_paths) == len(distances)
    for path, row in zip(evaluation.query_paths, distances, strict=True):
        expected = [evaluation.gallery_paths[i] for i in np.argsort(row, kind="stable")]
        assert [result["path"] for result in found[path]] == expected
        np.testing.assert_allclose([result["distance"] for result in found[path]], np.sort(row), rtol=0, atol=1e-6)


def test_the_recipe(evaluation, tmp_path, monkeypatch, capsys):
    drawn = sorted(evaluation.gallery_paths)
    shutil.copy(MODEL, tmp_path / "model.pth")
    monkeypatch.chdir(tmp_path)
    for folder, paths in (("monday", drawn[:4]), ("next-week", drawn[4:7])):
        Path(folder).mkdir()
        for number, path in enumerate(paths):
            Image.open(path).save(Path(folder, f"{number}.png"))
    shutil.copy("monday/0.png", "query.png")
    blocks = re.findall(r"```sh\n(.*?)```", RECIPE.read_text(), re.DOTALL)
    shown = []
    for command in (shlex.split(line) for block in blocks for line in block.splitlines()):
        assert command[0] == "mgre" and main(command[1:]) == 0, capsys.readouterr().err
        shown.append(capsys.readouterr().out)
    assert len(shown) == 6
    # The query is the image of an entry, which is at distance 0.
    assert re.search(r"^1 +monday/0.png +-?0.0000 +gate +2026-11-23 ", shown[2], re.MULTILINE)
    assert Image.open("found/query1.png").width > 5 * 96
    assert shown[3] == "removed 1, 6 remain in people\n" and "monday/0.png" not in shown[4]
