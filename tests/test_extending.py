"""docs/extending.md: its files and commands, as they stand there, from a folder outside the repository."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

pytestmark = pytest.mark.slow

TOOL = Path("tools/train_net.py").resolve()
PAGE = Path("docs/extending.md").read_text()
# The page's whole files, by name, and its commands.
FILES = dict(re.findall(r"`([\w.]+\.(?:py|yml))`[^\n]*:\n\n```\w+\n(.*?)```", PAGE, flags=re.DOTALL))
COMMANDS = [
    shlex.split(line) for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()
]
# More threads than cores only wait for each other.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def own_folder(tiny_run: list[str], tmp_path: Path, write_image: Callable, write_keypoints: Callable,
               draw_standing: Callable) -> Path:  # fmt: skip
    """A folder outside the repository with the page's files, a ``your.yml`` for a tiny data set, and ``Visits``."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(content)
    config: dict = {"_BASE_": "mgre://custom.yml"}
    options = dict(zip(tiny_run[::2], tiny_run[1::2], strict=True))
    for key, value in options.items():
        *sections, name = key.split(".")
        node = config
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    (folder / "your.yml").write_text(yaml.safe_dump(config))

    visits = folder / "datasets" / "visits"
    people = {"train": range(1, 9), "query": (21, 22, 23), "gallery": (21, 22, 23)}
    for split, identities in people.items():
        for identity in identities:
            for camera in (1, 2):
                write_image(visits / split / str(identity) / f"{camera}_{split}{identity}.jpg")
    rng = np.random.default_rng(0)
    images = sorted(path.relative_to(visits).as_posix() for path in visits.glob("*/*/*.jpg"))
    write_keypoints(visits / "keypoints.json", {name: draw_standing(rng, (32, 16)) for name in images})
    return folder


def test_the_page_has_an_example_of_each_part():
    assert set(FILES) == {
        *("small_net.py", "stripes.yml", "center_loss.py", "visits.py", "random_shift.py", "your_parts.yml")
    }
    assert len(COMMANDS) == 6 and all(words[0] == "tools/train_net.py" for words in COMMANDS)


@pytest.mark.parametrize("is_installed", [False, True], ids=["tools", "installed"])
def test_each_part_trains_two_steps_and_evaluates(own_folder, request, run_each, is_installed):
    tool, environment = [str(TOOL)], ENVIRONMENT
    if is_installed:
        path, packages = request.getfixturevalue("installed")
        tool, environment = [str(path), "train"], ENVIRONMENT | {"PYTHONPATH": packages}
    *single, _ = COMMANDS
    commands = [[*tool, *words[1:], "OUTPUT_DIR", f"out{i}"] for i, words in enumerate(single)]
    package, consoles = run_each(commands, own_folder, environment)
    if is_installed:
        assert package.startswith(environment["PYTHONPATH"])
    for i, console in enumerate(consoles):
        results = json.loads((own_folder / f"out{i}" / "results.json").read_text()), console
        assert 0 < results[0]["mAP"] <= 100
        assert re.search(r"Step 1 of 2: ", console)

    names = [set(torch.load(own_folder / f"out{i}" / "model_final.pth", weights_only=True)["model"]) for i in range(5)]
    assert {n for n in names[0] if n.startswith("backbone.staged.stages.3.")}
    assert not {n for n in names[1] if n.startswith(("location.", "heads.embeddings.stage1"))}
    assert {n for n in names[2] if "centers" in n} == {f"stage_losses.stage{i}.CenterLoss.centers" for i in range(1, 5)}
    logged = [json.loads(line) for line in (own_folder / "out2" / "metrics.json").read_text().splitlines()]
    assert any(f"loss_CenterLoss_stage{i}" in line for line in logged for i in (1, 4))
    assert "datasets/visits" in (own_folder / "out3" / "log.txt").read_text() or "Visits" in consoles[3]


def test_all_parts_in_two_processes_with_workers(own_folder):
    words = [*COMMANDS[-1][1:], "--num-gpus", "2", "DATALOADER.NUM_WORKERS", "1", "OUTPUT_DIR", "out"]
    finished = subprocess.run(
        [sys.executable, str(TOOL), *words],
        cwd=own_folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
    assert 0 < json.loads((own_folder / "out" / "results.json").read_text())["mAP"] <= 100
