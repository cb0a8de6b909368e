"""tools/train_net.py as a user calls it, in processes of its own: train, resume, evaluate, re-rank."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BASE = "configs/MGRe/Base-MGRe.yml"


def train_net(config: str | Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "tools/train_net.py", "--config-file", str(config), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return finished


def table(output: str) -> dict[str, float]:
    """The last row of the toolbox's last results table."""
    rows = re.findall(r"^\| (.*) \|", re.sub(r"\x1b\[\d+m", "", output), flags=re.MULTILINE)
    header = next(row for row in reversed(rows) if row.startswith("Dataset"))
    row = next(row for row in reversed(rows) if row.startswith("CustomReID"))
    names, values = ([cell.strip() for cell in line.split("|")] for line in (header, row))
    return {name: float(value) for name, value in zip(names[1:], values[1:], strict=True)}


def test_train_resume_evaluate_and_rerank(small_run, tmp_path):
    out = tmp_path / "out"
    one = train_net(BASE, *small_run)
    first = torch.load(out / "model_final.pth", weights_only=True)
    assert first["epoch"] == 0

    # One more epoch: --resume goes on where the first run stopped.
    resumed = train_net(BASE, "--resume", *small_run, "SOLVER.MAX_EPOCH", "2")
    assert "Starting training from epoch 1" in resumed.stdout
    second = torch.load(out / "model_final.pth", weights_only=True)
    assert second["epoch"] == 1
    assert second["optimizer"]["state"][0]["step"] == 4  # the optimizer's state went on too
    iterations = [json.loads(line)["iteration"] for line in (out / "metrics.json").read_text().splitlines()]
    assert max(iterations) == 3

    # The same weights give the same figures again; re-ranking gives others.
    weights = ["MODEL.WEIGHTS", str(out / "model_final.pth")]
    evaluated = train_net(BASE, "--eval-only", *small_run, *weights)
    assert table(evaluated.stdout) == table(resumed.stdout)
    assert table(one.stdout).keys() == table(resumed.stdout).keys()
    reranked = train_net(
        BASE, "--eval-only", *small_run, *weights, "TEST.RERANK.ENABLED", "True", "TEST.RERANK.K1", "5"
    )
    assert "Test with rerank setting" in reranked.stdout
    assert 0 < table(reranked.stdout)["mAP"] <= 100

    # Nothing is left to train: it evaluates and says so.
    again = train_net(BASE, "--resume", *small_run, "SOLVER.MAX_EPOCH", "2")
    assert "All 2 epochs are done" in again.stdout
    assert table(again.stdout) == table(resumed.stdout)


PLAIN = """
MODEL:
  META_ARCHITECTURE: {architecture}
  BACKBONE: {{NAME: build_resnet_backbone, FEAT_DIM: {dim}}}
  HEADS: {{NAME: EmbeddingHead, WITH_BNNECK: True, POOL_LAYER: GeneralizedMeanPoolingP, CLS_LAYER: Linear}}
  LOSSES:
    NAME: ("CrossEntropyLoss", "TripletLoss",)
INPUT:
  FLIP: {{ENABLED: True}}
  PADDING: {{ENABLED: True}}
  AUTOAUG: {{ENABLED: True, PROB: 0.5}}
  REA: {{ENABLED: True}}
DATALOADER: {{SAMPLER_TRAIN: NaiveIdentitySampler}}
"""


@pytest.mark.parametrize(("architecture", "depth", "dim"), [("Baseline", "18x", 512), ("MGN", "50x", 2048)])
def test_a_plain_toolbox_config_runs_too(architecture, depth, dim, small_run, tmp_path):
    config = tmp_path / "plain.yml"
    config.write_text(PLAIN.format(architecture=architecture, dim=dim))
    options = [*small_run, "MODEL.BACKBONE.DEPTH", depth]
    if architecture == "MGN":
        options += ["MODEL.HEADS.EMBEDDING_DIM", "16", "INPUT.SIZE_TRAIN", "(96, 32)", "INPUT.SIZE_TEST", "(96, 32)"]
    finished = train_net(config, *options)
    assert 0 < table(finished.stdout)["mAP"] <= 100
    assert "IoU" not in finished.stdout


def test_two_processes_train_and_evaluate_on_the_cpu(small_run, tmp_path):
    finished = train_net(BASE, "--num-gpus", "2", *small_run)
    assert table(finished.stdout)["mAP"] > 0
    # The same weights give the same figures in one process and in two: every image counts once.
    evaluate = (BASE, "--eval-only", *small_run, "MODEL.WEIGHTS", str(tmp_path / "out" / "model_final.pth"))
    alone, together = train_net(*evaluate), train_net(*evaluate[:2], "--num-gpus", "2", *evaluate[2:])
    assert table(alone.stdout) == table(together.stdout)
    regions = [re.search(r"Regions on CustomReID: (.*)", run.stdout).group(1) for run in (alone, together)]
    assert regions[0] == regions[1] and "IoU/mean" in regions[0]


def test_mixed_precision_trains_on_the_cpu(small_run, tmp_path):
    assert table(train_net(BASE, *small_run, "SOLVER.AMP.ENABLED", "True").stdout)["mAP"] > 0


def test_an_error_in_another_process_is_one_line_too(small_run, tmp_path):
    for image in (tmp_path / "own" / "bounding_box_train").glob("*.jpg"):
        image.write_bytes(b"")
    command = [sys.executable, "tools/train_net.py", "--config-file", BASE, "--num-gpus", "2", *small_run]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 1
    assert re.fullmatch(r"error: .*bounding_box_train.*", finished.stderr.strip().splitlines()[-1])
