"""Two processes on the CPU, joined by gloo, against one."""

import argparse
import functools
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import mgre  # noqa: F401  (before fastreid: another process imports this file first)
import pytest
import torch
import torch.distributed as dist
from fastreid.engine import default_argument_parser
from fastreid.modeling import build_model
from fastreid.utils import comm
from fastreid.utils.events import EventStorage
from mgre.commands.main import main
from mgre.config import load_config
from mgre.engine import run as engine
from mgre.engine.evaluation_report import evaluate_and_keep
from mgre.engine.processes import TORCHRUN_VARIABLES
from mgre.errors import DataError
from mgre.reporting.rank_lists import rank_lists
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests import toy_backbone  # noqa: F401  (registers itself in the other processes, too)

pytestmark = pytest.mark.slow

BASE = "configs/MGRe/Base-MGRe.yml"


@pytest.fixture(autouse=True)
def processes_start_quickly(monkeypatch):
    """Forked from a server that has imported everything, instead of importing it each."""
    start = functools.partial(torch.multiprocessing.start_processes, start_method="forkserver")
    monkeypatch.setattr(torch.multiprocessing, "spawn", start)


def launch(function, *options: str, num_processes: int = 2, flags: tuple[str, ...] = ()) -> int:
    """``launch`` as tools/train_net.py calls it; the exit status."""
    flags = ("--config-file", BASE, "--num-gpus", str(num_processes), "--dist-url", "auto", *flags)
    args = default_argument_parser().parse_args([*flags, *options])
    return main(lambda: engine.launch(function, args))


# -- Losses and gradients -------------------------------------------------------------------------


def batch_of(size: int, *, without_keypoints: range = range(0)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    trusted = torch.ones(size, 17, 1)
    trusted[list(without_keypoints)] = 0
    return {
        "images": torch.rand(size, 3, 64, 32, generator=generator) * 255,
        "targets": torch.arange(size) // 2 % 3,
        "keypoints": torch.cat((torch.rand(size, 17, 2, generator=generator), trusted), dim=2),
    }


def losses_and_gradients(cfg, batch: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = build_model(cfg)
    for module in model.train().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # in training each process would normalise by its own images
    wrapped = DistributedDataParallel(model, broadcast_buffers=False) if comm.get_world_size() > 1 else model
    with EventStorage(0):
        losses = wrapped(batch)
    sum(losses.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"losses": {name: loss.detach() for name, loss in losses.items()}, "gradients": gradients}


def share_of_a_step(args: argparse.Namespace) -> None:
    cfg = load_config(args.config_file, args.opts)
    batch = torch.load(Path(cfg.OUTPUT_DIR, "batch.pth"))
    size = len(batch["targets"]) // comm.get_world_size()
    share = {name: value[comm.get_rank() * size :][:size] for name, value in batch.items()}
    torch.save(losses_and_gradients(cfg, share), Path(cfg.OUTPUT_DIR, f"rank{comm.get_rank()}.pth"))


BASELINE = (
    *("MODEL.META_ARCHITECTURE", "Baseline", "MODEL.BACKBONE.NAME", "build_osnet_backbone"),
    *("MODEL.HEADS.NAME", "EmbeddingHead", "MODEL.BACKBONE.FEAT_DIM", "128"),
)


@pytest.mark.parametrize(
    ("without_keypoints", "model", "num_losses"),
    [
        (range(0), (), 4 * 4 + 3),
        (range(1, 4), (), 4 * 4 + 3),
        (range(4, 8), (), 4 * 4 + 3),
        (range(8), (), 4 * 4 + 3),
        (range(0), BASELINE, 4),
    ],
)
def test_two_processes_have_the_loss_and_gradients_of_one(tmp_path, toy_run, without_keypoints, model, num_losses):
    options = [
        *toy_run,
        *("MODEL.HEADS.NUM_CLASSES", "3", "OUTPUT_DIR", str(tmp_path), "MODEL.MGRE.LOCATION.REID_GRADIENT", "1.0"),
        *("MODEL.LOSSES.NAME", "('CrossEntropyLoss', 'TripletLoss', 'CircleLoss', 'Cosface')"),
        *model,
    ]
    batch = batch_of(8, without_keypoints=without_keypoints)
    torch.save(batch, tmp_path / "batch.pth")
    assert launch(share_of_a_step, *options) == 0
    first, second = (torch.load(tmp_path / f"rank{rank}.pth") for rank in range(2))
    alone = losses_and_gradients(load_config(BASE, options), batch)
    assert len(alone["losses"]) == num_losses
    for name, loss in alone["losses"].items():
        mean = (first["losses"][name] + second["losses"][name]) / 2  # the figure that the toolbox logs
        torch.testing.assert_close(mean, loss, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    assert first["gradients"].keys() == alone["gradients"].keys()
    largest = max(gradient.abs().max() for gradient in alone["gradients"].values())
    for name, gradient in alone["gradients"].items():
        assert torch.equal(first["gradients"][name], second["gradients"][name])
        different = (first["gradients"][name] - gradient).abs().max()
        assert different <= 1e-5 * largest, f"{name}: {different}"


# -- Evaluation -----------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> None:
    cfg = engine.setup(args)
    torch.manual_seed(0)
    model = engine.Trainer.build_model(cfg)
    for buffer in model.buffers():  # as after a training, in which each process sees other images
        if buffer.is_floating_point():
            buffer += comm.get_rank()
    results, kept = evaluate_and_keep(cfg, model)
    assert len(kept) == comm.is_main_process()
    if kept:
        lists = rank_lists(kept[0], range(len(kept[0].query_paths)), 3)
        content = {"metrics": dict(results), "lists": [(one.path, sorted(one.paths)) for one in lists]}
        torch.save(content, Path(cfg.OUTPUT_DIR, f"results{comm.get_world_size()}.pth"))


@pytest.mark.parametrize("option", ["stop", "skip"])
def test_two_processes_have_the_metrics_of_one(toy_run, tmp_path, take_down_logs, option):
    own = tmp_path / "own"
    min((own / "bounding_box_test").glob("*.jpg")).unlink()  # 11 images, 6 and 5
    if option == "skip":  # in the share of each of the two processes
        for split in ("query", "bounding_box_test"):
            max((own / split).glob("0022*.jpg")).write_bytes(b"")
    options = (*toy_run, "TEST.RERANK.ENABLED", "True", "DATASETS.UNREADABLE_IMAGES", option)
    for num_processes in (1, 2):
        take_down_logs()
        assert launch(evaluate, *options, num_processes=num_processes) == 0
    warned = (tmp_path / "out" / "log.txt").read_text().count("1 of 5 test images cannot be read and are left out")
    assert warned == (2 if option == "skip" else 0)  # once a run
    contents = [torch.load(tmp_path / "out" / f"results{n}.pth", weights_only=False) for n in (1, 2)]
    assert contents[0]["lists"] == contents[1]["lists"]
    assert len(contents[0]["lists"]) == (5 if option == "skip" else 6)
    alone, together = (content["metrics"] for content in contents)
    assert "IoU/mean" in alone
    assert together == pytest.approx(alone, rel=1e-6)
    for name in ("mAP", "mINP", "Rank-1", "Rank-5", "metric"):
        assert together[name] == alone[name], name


# -- Processes that end ---------------------------------------------------------------------------


def fail_in_one(args: argparse.Namespace) -> None:
    if comm.get_rank() == 1:
        if "SEED" in args.opts:
            os.kill(os.getpid(), signal.SIGKILL)
        raise DataError("image 'x.jpg' cannot be read")
    dist.barrier()


def test_a_process_that_fails_ends_the_others_with_its_error(capfd):
    assert launch(fail_in_one, "MODEL.DEVICE", "cpu") == 1
    assert capfd.readouterr().err.strip().splitlines()[-1] == "error: image 'x.jpg' cannot be read"


def test_a_process_that_is_killed_ends_the_others(capfd):
    assert launch(fail_in_one, "MODEL.DEVICE", "cpu", "SEED", "1") == 128 + 9
    assert "process 1 terminated with signal SIGKILL" in capfd.readouterr().err.strip().splitlines()[-1]


def train(args: argparse.Namespace) -> None:
    """``engine.run``, with the backbone that this module imports."""
    engine.run(args)


def train_and_signal(args: argparse.Namespace) -> None:
    """Train; the process whose number is in the file "launcher" gets SIGTERM in the third step."""
    launcher = int(Path(load_config(args.config_file, args.opts).OUTPUT_DIR, "launcher").read_text())
    trainer_class, run_step = engine.Trainer, engine.Trainer.run_step

    def run_step_and_signal(trainer) -> None:
        run_step(trainer)
        if trainer.iter == 2 and comm.get_rank() == 1:
            os.kill(launcher, signal.SIGTERM)
            time.sleep(1)  # until it has been passed on to both

    trainer_class.run_step = run_step_and_signal
    engine.run(args)


def test_a_signal_to_the_launching_process_stops_all_and_they_resume(toy_run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "launcher").write_text(str(os.getpid()))
    options = (*toy_run, "SOLVER.MAX_EPOCH", "3", "TEST.EVAL_PERIOD", "3")
    assert launch(train_and_signal, *options) == 128 + 15
    stopped = torch.load(tmp_path / "out" / "model_interrupted.pth", weights_only=True)
    assert stopped["iteration"] in (3, 4) and len(stopped["random_states"]) == 2
    assert launch(train, *options, flags=("--resume",)) == 0
    final = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    assert (final["iteration"], final["optimizer"]["state"][0]["step"]) == (6, 6)


# -- torchrun -------------------------------------------------------------------------------------


def as_torchrun_does(rank: int, port: int, options: list[str]) -> None:
    values = (rank, 2, rank, 2, "127.0.0.1", port)
    os.environ.update({name: str(value) for name, value in zip(TORCHRUN_VARIABLES, values, strict=True)})
    raise SystemExit(launch(engine.run, *options, num_processes=1))


def test_processes_of_torchrun_join(toy_run, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    ranks = [context.Process(target=as_torchrun_does, args=(rank, port, toy_run)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0, 0]
    final = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    assert len(final["random_states"]) == 2


def test_torchrun_and_the_flags_exclude_each_other(monkeypatch, capsys):
    for name in TORCHRUN_VARIABLES:
        monkeypatch.setenv(name, "2")
    assert launch(engine.run, "MODEL.DEVICE", "cpu") == 1
    assert "--num-gpus" in capsys.readouterr().err
