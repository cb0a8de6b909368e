import copy
import json
import os
import types

import mgre  # noqa: F401  (before fastreid: a spawned process imports this file first)
import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.data import build
from fastreid.engine import DefaultTrainer, hooks, launch
from fastreid.engine.train_loop import AMPTrainer, HookBase, TrainerBase
from fastreid.utils import comm
from fastreid.utils.events import EventStorage, JSONWriter
from mgre.errors import SetupError
from torch import nn


def training_config(output_dir: str) -> CfgNode:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = output_dir
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_osnet_backbone"
    cfg.MODEL.BACKBONE.DEPTH = "x0_25"
    cfg.MODEL.BACKBONE.FEAT_DIM = 128
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [32, 16]
    cfg.DATASETS.NAMES = cfg.DATASETS.TESTS = ("Market1501",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.NUM_INSTANCE = 2
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.SOLVER.MAX_EPOCH = 2
    cfg.TEST.EVAL_PERIOD = 2
    return cfg


@pytest.fixture
def market_root(monkeypatch, tmp_path, make_market_folder) -> str:
    """Two training and two test identities where the toolbox looks for Market-1501, here and in spawned processes."""
    make_market_folder(tmp_path / "data" / "Market-1501-v15.09.15")
    monkeypatch.setattr(build, "_root", str(tmp_path / "data"))
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    return str(tmp_path / "data")


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_trains_evaluates_and_resumes_on_the_cpu(tmp_path, market_root, mixed_precision):
    cfg = training_config(str(tmp_path / "new" / "folder"))
    cfg.SOLVER.AMP.ENABLED = mixed_precision
    trainer = DefaultTrainer(cfg)
    conv_types = set()
    trainer.model.backbone.conv1.conv.register_forward_hook(
        lambda m, i, output: conv_types.add(output.dtype) if m.training else None
    )
    start = copy.deepcopy(trainer.model.state_dict())
    results = trainer.train()
    assert conv_types == {torch.bfloat16 if mixed_precision else torch.float32}
    for first_or_last in ("backbone.conv1.conv.weight", "heads.weight"):
        assert not torch.equal(trainer.model.get_parameter(first_or_last), start[first_or_last])
    assert 0 < results["mAP"] <= 100
    with open(os.path.join(cfg.OUTPUT_DIR, "metrics.json")) as file:
        metrics = [json.loads(line) for line in file]
    assert [m["iteration"] for m in metrics if "total_loss" in m] == [0, 1]

    cfg.SOLVER.MAX_EPOCH = 3
    resumed = DefaultTrainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_epoch == 2
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value)
    assert 0 < resumed.train()["mAP"] <= 100


def test_output_dir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SetupError, match="OUTPUT_DIR"):
        DefaultTrainer.auto_scale_hyperparams(training_config(str(tmp_path / "file" / "output")), 3)


# -- Mixed precision ------------------------------------------------------------------------------


class LinearLoss(nn.Module):
    """A model of the trainer's kind: a batch to a dict of losses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 2)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.linear(batch).float().square().mean()}


def test_mixed_precision_step_on_the_cpu():
    batch = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    model, reference = LinearLoss(), LinearLoss()
    trainer = AMPTrainer(model, [batch], torch.optim.SGD(model.parameters(), lr=1.0), None)
    optimizer = torch.optim.SGD(reference.parameters(), lr=1.0)
    with EventStorage():
        trainer.run_step()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = reference(batch)["loss"]
    loss.backward()
    optimizer.step()
    assert torch.equal(model.linear.weight, reference.linear.weight)
    # What the toolbox's learning rate hook reads before and after each step.
    assert trainer.grad_scaler.get_scale() == 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_mixed_precision_step_on_the_gpu():
    batch = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).cuda()
    model, reference = LinearLoss().cuda(), LinearLoss().cuda()
    types_seen = []
    model.linear.register_forward_hook(lambda m, i, output: types_seen.append(output.dtype))
    trainer = AMPTrainer(model, [batch], torch.optim.SGD(model.parameters(), lr=1.0), None)
    with EventStorage():
        trainer.run_step()
    assert types_seen == [torch.float16]
    assert trainer.grad_scaler.get_scale() > 1
    reference(batch)["loss"].backward()
    expected = reference.linear.weight - reference.linear.weight.grad
    torch.testing.assert_close(model.linear.weight, expected, rtol=1e-2, atol=1e-2)


# -- Several processes ----------------------------------------------------------------------------


def train_distributed(output_dir: str) -> None:
    cfg = training_config(output_dir)
    cfg.SOLVER.MAX_EPOCH = 1
    trainer = DefaultTrainer(cfg)
    trainer.train()
    state = {n: p.detach() for n, p in trainer.model.module.named_parameters()}
    torch.save({"state": state, "world_size": comm.get_world_size()}, f"{output_dir}/rank{comm.get_rank()}.pt")


def test_two_processes_train_one_model_on_the_cpu(tmp_path, market_root, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launch(train_distributed, 2, dist_url="auto", args=(str(tmp_path),))
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert first["world_size"] == second["world_size"] == 2
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    assert (tmp_path / "model_final.pth").exists()


# -- Errors while training ------------------------------------------------------------------------


class FailingTrainer(TrainerBase):
    max_epoch = 1

    def __init__(self, fail_in: str, evaluate) -> None:
        super().__init__()
        self.fail_in = fail_in
        self.register_hooks([FailingHook(), hooks.EvalHook(2, evaluate)])

    def run_step(self) -> None:
        if self.fail_in == "step":
            raise ValueError("the real error")


class FailingHook(HookBase):
    def before_train(self) -> None:
        if self.trainer.fail_in == "start":
            raise ValueError("the real error")

    def after_train(self) -> None:
        if self.trainer.fail_in:
            raise AttributeError("a hook that was not ready")


@pytest.mark.parametrize("fail_in", ["start", "step"])
def test_the_real_error_surfaces_and_nothing_is_evaluated(fail_in):
    evaluations = []
    with pytest.raises(ValueError, match="the real error"):
        FailingTrainer(fail_in, lambda: evaluations.append(1)).train(0, 1, 2)
    assert not evaluations


def test_a_finished_training_is_evaluated():
    evaluations = []
    FailingTrainer("", lambda: evaluations.append(1)).train(0, 1, 2)
    assert evaluations == [1]


def test_errors_of_hooks_surface_after_a_finished_training():
    trainer = FailingTrainer("", lambda: None)
    trainer.register_hooks([hooks.CallbackHook(after_train=lambda t: types.SimpleNamespace().missing)])
    with pytest.raises(AttributeError, match="missing"):
        trainer.train(0, 1, 2)


def test_the_evaluation_after_the_last_step_reaches_the_json_log(tmp_path):
    writer = JSONWriter(str(tmp_path / "metrics.json"))
    hook = hooks.PeriodicWriter([writer], period=2)
    hook.trainer = types.SimpleNamespace(max_iter=3, iters_per_epoch=3)
    with EventStorage(0) as storage:
        for step in range(3):
            storage.iter = hook.trainer.iter = step
            storage.put_scalar("loss", step)
            hook.after_step()
        storage.put_scalar("mAP", 50.0, smoothing_hint=False)  # what EvalHook does after the epoch's last step
        hook.after_epoch()
        hook.after_train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2]  # the period's step, and the epoch's end
    assert lines[-1]["mAP"] == 50.0
