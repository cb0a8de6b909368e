"""tools/train_net.py as a user calls it, in processes of its own: train, resume, evaluate, re-rank; and its options."""

import functools
import json
import logging
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import mgre.engine.hooks
import pytest
import torch
from fastreid.engine import default_argument_parser
from fastreid.utils.events import EventStorage
from mgre.engine.hooks import ProgressBar

TOOL = "tools/train_net.py"
BASE = "configs/MGRe/Base-MGRe.yml"


Run = Callable[..., subprocess.CompletedProcess]


def start_python(*words: str) -> subprocess.CompletedProcess:
    """Run a script as a user's shell does; ``run_script`` leaves the start out."""
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300)


def succeed(run: Run, config: str | Path, *arguments: str) -> subprocess.CompletedProcess:
    finished = run(TOOL, "--config-file", str(config), *arguments)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return finished


@pytest.fixture
def train_net(run_script) -> Run:
    """Run the tool with a config and further words; it has to succeed."""
    return functools.partial(succeed, run_script)


def table(output: str) -> dict[str, float]:
    """The last row of the toolbox's last results table."""
    rows = re.findall(r"^\| (.*) \|", re.sub(r"\x1b\[\d+m", "", output), flags=re.MULTILINE)
    header = next(row for row in reversed(rows) if row.startswith("Dataset"))
    row = next(row for row in reversed(rows) if row.startswith("CustomReID"))
    names, values = ([cell.strip() for cell in line.split("|")] for line in (header, row))
    return {name: float(value) for name, value in zip(names[1:], values[1:], strict=True)}


@pytest.mark.slow
def test_train_resume_evaluate_and_rerank(train_net, tiny_run, tmp_path):
    out = tmp_path / "out"
    one = succeed(start_python, BASE, *tiny_run)
    first = torch.load(out / "model_final.pth", weights_only=True)
    assert first["epoch"] == 0
    check_console(one.stdout, out)

    # One more epoch: --resume goes on where the first run stopped.
    resumed = train_net(BASE, "--resume", *tiny_run, "SOLVER.MAX_EPOCH", "2")
    assert "Starting training from epoch 1" in resumed.stdout
    second = torch.load(out / "model_final.pth", weights_only=True)
    assert second["epoch"] == 1
    assert second["optimizer"]["state"][0]["step"] == 4  # the optimizer's state went on too
    iterations = [json.loads(line)["iteration"] for line in (out / "metrics.json").read_text().splitlines()]
    assert max(iterations) == 3
    assert len(list(out.glob("events.out.tfevents.*"))) == 2  # TensorBoard's, one file a run

    # The same weights give the same figures again; re-ranking gives others.
    weights = ["MODEL.WEIGHTS", str(out / "model_final.pth")]
    evaluated = train_net(BASE, *tiny_run, "--eval-only", *weights)
    assert "re-ranked" not in evaluated.stdout
    assert table(evaluated.stdout) == table(resumed.stdout)
    assert table(one.stdout).keys() == table(resumed.stdout).keys()
    reranked = train_net(BASE, "--eval-only", *tiny_run, *weights, "TEST.RERANK.ENABLED", "True", "TEST.RERANK.K1", "5")
    assert re.search(r"^\| CustomReID .*\n.*These figures are re-ranked: K1 5, K2 6, LAMBDA 0.3$",
                     re.sub(r"\x1b\[\d+m", "", reranked.stdout), flags=re.MULTILINE)  # fmt: skip
    assert 0 < table(reranked.stdout)["mAP"] <= 100

    # Nothing is left to train: it evaluates and says so.
    again = train_net(BASE, "--resume", *tiny_run, "SOLVER.MAX_EPOCH", "2")
    assert "All 2 epochs are done" in again.stdout
    assert table(again.stdout) == table(resumed.stdout)


def check_console(output: str, out: Path) -> None:
    """Where the log is, what the data is, how long it takes; no dumps, which are in the log."""
    assert len(output.splitlines()) < 60
    for expected in (
        rf"Log file, .*: {re.escape(str(out))}/log.txt$",
        r"Toolbox: fastreid \S+ in .*fastreid \(__version__ ",
        r"^\| train +\| 8 +\| 16 +\| 2 ",
        r"Training: 2 steps \(1 epochs of 2\), 8 images a step, on cpu$",
        r"Step 1 of 2: loss \d+\.\d\d, \S+ s a step, about \d\d:\d\d left$",
    ):
        assert re.search(expected, re.sub(r"\x1b\[\d+m", "", output), flags=re.MULTILINE), expected
    log = (out / "log.txt").read_text()
    for dump in ("Environment info:", "Running with full config:", "Model:\nMGRe(", "Step 1 of 2: loss"):
        assert dump in log
        assert (dump in output) == (dump == "Step 1 of 2: loss")


def test_progress_in_the_log_where_there_is_no_terminal(monkeypatch, caplog):
    """Steps of 25 s: a line after the first step, then the first that is 60 s or more after the last line."""
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(mgre.engine.hooks, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    solver, model = types.SimpleNamespace(IMS_PER_BATCH=8), types.SimpleNamespace(DEVICE="cpu")
    bar = ProgressBar()
    bar.trainer = types.SimpleNamespace(
        start_iter=10, max_iter=100, iter=10, start_epoch=1, max_epoch=10, iters_per_epoch=10, storage=EventStorage(10),
        cfg=types.SimpleNamespace(SOLVER=solver, MODEL=model),
    )  # fmt: skip
    with caplog.at_level(logging.INFO, logger="mgre.engine"):
        bar.before_train()
        for bar.trainer.iter in range(10, 20):
            clock.now += 25
            bar.trainer.storage.put_scalar("total_loss", 30 - bar.trainer.iter)
            bar.after_step()
        bar.after_train()
    assert caplog.messages == [
        "Training: 90 steps (9 epochs of 10), 8 images a step, on cpu",
        "Step 11 of 100: loss 20.00, 25 s a step, about 37:05 left",
        "Step 14 of 100: loss 17.00, 25 s a step, about 35:50 left",
        "Step 17 of 100: loss 14.00, 25 s a step, about 34:35 left",
        "Step 20 of 100: loss 11.00, 25 s a step, about 33:20 left",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["--config-file", "x.yml", "--eval-only", "--num-gpus", "2", "MODEL.DEVICE", "cpu", "SEED", "-1"],
        ["MODEL.DEVICE", "cpu", "SEED", "-1", "--num-gpus=2", "--config-file", "x.yml", "--eval-only"],
        ["--config-file", "x.yml", "MODEL.DEVICE", "cpu", "--eval-only", "SEED", "-1", "--num-gpus", "2"],
    ],
)
def test_options_stand_anywhere(load_tool, words):
    args = load_tool("train_net").parse_args(words)
    assert (args.config_file, args.eval_only, args.resume, args.num_gpus) == ("x.yml", True, False, 2)
    assert args.opts == ["MODEL.DEVICE", "cpu", "SEED", "-1"]


def test_the_options_are_the_toolboxs(load_tool):
    ours, theirs = load_tool("train_net").parse_args(["--config-file", "x.yml"]), default_argument_parser()
    assert vars(ours).keys() == vars(theirs.parse_args([])).keys() | {"allow_imports"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"--config-file is needed: .*mgre://custom-cpu.yml, .*mgre://market.yml"),
        (["--config-file", "x.yml", "SEED", "1", "--evalonly"], "unrecognized arguments: --evalonly"),
        (["--config-file", "x.yml", "--num-machines", "2"], "--num-machines needs --dist-url"),
    ],
)
def test_wrong_options(load_tool, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        load_tool("train_net").parse_args(words)
    assert ended.value.code == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("tool", sorted(path.stem for path in Path("tools").glob("*.py")))
def test_help_does_not_wait_for_torch(tool):
    command = [sys.executable, "-X", "importtime", f"tools/{tool}.py", "--help"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "usage: " in finished.stdout and f"tools/{tool}.py" in finished.stdout
    assert not re.search(r"\| +(torch|numpy|fastreid|mgre)$", finished.stderr, flags=re.MULTILINE)


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


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "depth", "dim"), [("Baseline", "18x", 512), ("MGN", "50x", 2048)])
def test_a_plain_toolbox_config_runs_too(architecture, depth, dim, small_run, train_net, tmp_path):
    config = tmp_path / "plain.yml"
    config.write_text(PLAIN.format(architecture=architecture, dim=dim))
    options = [*small_run, "MODEL.BACKBONE.DEPTH", depth]
    if architecture == "MGN":
        options += ["MODEL.HEADS.EMBEDDING_DIM", "16", "INPUT.SIZE_TRAIN", "(96, 32)", "INPUT.SIZE_TEST", "(96, 32)"]
        # MGN has 70 M weights: SGD keeps less of them in a checkpoint, and one evaluation saves fewer checkpoints.
        options += ["SOLVER.OPT", "SGD", "TEST.EVAL_PERIOD", "2"]
    finished = train_net(config, *options)
    assert 0 < table(finished.stdout)["mAP"] <= 100
    assert "IoU" not in finished.stdout


@pytest.mark.slow
def test_two_processes_train_and_evaluate_on_the_cpu(train_net, tiny_run, tmp_path):
    # Processes that a new Python starts are in tests/test_extending.py.
    finished = train_net(BASE, "--num-gpus", "2", *tiny_run)
    assert table(finished.stdout)["mAP"] > 0
    # The same weights give the same figures in one process and in two: every image counts once.
    evaluate = (BASE, "--eval-only", *tiny_run, "MODEL.WEIGHTS", str(tmp_path / "out" / "model_final.pth"))
    alone, together = train_net(*evaluate), train_net(*evaluate[:2], "--num-gpus", "2", *evaluate[2:])
    assert table(alone.stdout) == table(together.stdout)
    regions = [re.search(r"Regions on CustomReID: (.*)", run.stdout).group(1) for run in (alone, together)]
    assert regions[0] == regions[1] and "IoU/mean" in regions[0]


@pytest.mark.slow
def test_mixed_precision_trains_on_the_cpu(train_net, tiny_run):
    assert table(train_net(BASE, *tiny_run, "SOLVER.AMP.ENABLED", "True").stdout)["mAP"] > 0


@pytest.mark.slow
def test_an_error_in_another_process_is_one_line_too(run_script, tiny_run, tmp_path):
    for image in (tmp_path / "own" / "bounding_box_train").glob("*.jpg"):
        image.write_bytes(b"")
    finished = run_script(TOOL, "--config-file", BASE, "--num-gpus", "2", *tiny_run)
    assert finished.returncode == 1
    assert re.fullmatch(r"error: .*bounding_box_train.*", finished.stderr.strip().splitlines()[-1])
