import copy
import functools
import json
import os

import mgre  # noqa: F401  (before fastreid: a spawned process imports this file first)
import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.data import build
from fastreid.engine import DefaultTrainer, launch
from fastreid.utils import comm

pytestmark = pytest.mark.slow


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
    """Two training and two test identities where the toolbox looks for Market-1501."""
    make_market_folder(tmp_path / "data" / "Market-1501-v15.09.15")
    monkeypatch.setattr(build, "_root", str(tmp_path / "data"))
    return str(tmp_path / "data")


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_trains_evaluates_and_resumes_on_the_cpu(tmp_path, market_root, mixed_precision):
    cfg = training_config(str(tmp_path))  # which the toolbox's default_setup makes
    cfg.SOLVER.AMP.ENABLED = mixed_precision
    cfg.SOLVER.MAX_EPOCH = cfg.TEST.EVAL_PERIOD = 4  # of one step; the toolbox's printer needs three
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
    assert [m["iteration"] for m in metrics if "total_loss" in m] == [0, 1, 2, 3]
    assert metrics[-1]["mAP"] == pytest.approx(results["mAP"])

    cfg.SOLVER.MAX_EPOCH = 8
    resumed = DefaultTrainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_epoch == 4
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value)
    assert 0 < resumed.train()["mAP"] <= 100


# -- Several processes ----------------------------------------------------------------------------


def train_distributed(output_dir: str, market_root: str) -> None:
    # The fork server has the environment of the test that has started it.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    build._root = market_root
    cfg = training_config(output_dir)
    cfg.SOLVER.MAX_EPOCH = 4
    trainer = DefaultTrainer(cfg)
    trainer.train()
    state = {n: p.detach() for n, p in trainer.model.module.named_parameters()}
    torch.save({"state": state, "world_size": comm.get_world_size()}, f"{output_dir}/rank{comm.get_rank()}.pt")


def test_two_processes_train_one_model_on_the_cpu(tmp_path, market_root, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    # Forked from a server that has imported everything, instead of importing it each.
    start = functools.partial(torch.multiprocessing.start_processes, start_method="forkserver")
    monkeypatch.setattr(torch.multiprocessing, "spawn", start)
    launch(train_distributed, 2, dist_url="auto", args=(str(tmp_path), market_root))
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert first["world_size"] == second["world_size"] == 2
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    assert (tmp_path / "model_final.pth").exists()
