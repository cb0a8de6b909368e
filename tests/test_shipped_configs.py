"""Every config in configs/: loaded, built, trained two steps and evaluated, and its learning rates."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from fastreid.engine.hooks import LRScheduler
from fastreid.solver import build_lr_scheduler
from fastreid.utils.events import EventStorage
from mgre.config import load_config
from mgre.engine.checkpointing import TrainingCheckpointer
from mgre.engine.schedule import scale_warmup
from mgre.engine.trainer import Trainer
from mgre.errors import ConfigError

# The toolbox's MGN is made for the channels of ResNet-50, and cuts its maps into three stripes, here of one row.
SIZES = ("INPUT.SIZE_TRAIN", "(48, 32)", "INPUT.SIZE_TEST", "(48, 32)")
# The small run's set has 8 training identities, which make two steps, and 3 of the query.
PART = ("DATASETS.PART.NUM_TRAIN_IDS", "8", "DATASETS.PART.NUM_TEST_IDS", "2")
# Mixed precision is bfloat16 on a CPU, and the last stage of this model has stride 2. Where such a convolution makes a
# map of one column, oneDNN 3.12 reads memory beyond the map on CPUs with AMX. So these images give two columns.
# They are low, as a CPU without bfloat16 takes ten times as long for it.
WIDE = ("INPUT.SIZE_TRAIN", "(32, 64)", "INPUT.SIZE_TEST", "(32, 64)")
EXTRA = {"mgn": ["MODEL.BACKBONE.DEPTH", "50x", *SIZES], "market-part": PART, "market-quick": WIDE}
CONFIGS = sorted(Path("configs").glob("**/*.yml"))
# These set keys of the backbone, or run it in another way, and keep ResNet-18 or 50. The others take over what they say
# of it from one of these, and train with one of four convolutions.
RESNETS = {"Base-MGRe", "quickstart", "quickstart-baseline", "market-quick", "luperson", "cion", "mgn"}
# Training images of the sets the paper uses, published counts (MSMT17: list_train.txt, which the toolbox trains on).
PAPER_SETS = {"market": 12936, "duke": 16522, "cuhk03-detected": 7365, "cuhk03-labeled": 7368, "msmt17": 30248}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_random_weights")
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_trains_two_steps_and_evaluates(config, small_run, tmp_path, monkeypatch):
    # Three files of 150 MB and more for each config, which nobody would read.
    saved = []
    monkeypatch.setattr(TrainingCheckpointer, "save", lambda checkpointer, name, **kwargs: saved.append(name))
    # As shipped but for the backbone: the widths of the heads and location modules are the config's own.
    backbone = [] if config.stem in RESNETS else ["MODEL.MGRE.BACKBONE", "build_toy_backbone"]
    cfg = load_config(str(config), [*small_run, *backbone, *EXTRA.get(config.stem, [])])
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    results = trainer.train()
    assert trainer.iter == 2 and saved[-1] == "model_final"
    assert 0 < results["mAP"] <= 100
    changed = [n for n, p in trainer.model.named_parameters() if p.requires_grad and not torch.equal(p, before[n])]
    assert len(changed) > 0.9 * sum(p.requires_grad for p in trainer.model.parameters())
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").read_text().splitlines()]
    logged = {key for line in lines for key in line}
    if cfg.MODEL.META_ARCHITECTURE != "MGRe":
        assert {"loss_cls", "loss_cls_b1"} & logged
        return
    embedded = [*(cfg.MODEL.MGRE.STAGES if cfg.MODEL.MGRE.REGION_FEATURES else ()), 4]
    assert {f"loss_{kind}_stage{stage}" for kind in ("cls", "triplet") for stage in embedded} <= logged
    if cfg.MODEL.MGRE.STAGES and cfg.MODEL.MGRE.BOXES == "location":
        assert {f"loss_location_stage{stage}" for stage in cfg.MODEL.MGRE.STAGES} | {"IoU/mean"} <= logged
    if 1 in cfg.MODEL.MGRE.STAGES and cfg.MODEL.MGRE.BOXES == "location":
        assert {"train_iou/head", "IoU/head"} <= logged


def test_configs_that_set_a_key_of_the_backbone_are_trained_with_it():
    for config in CONFIGS:
        model = yaml.safe_load(config.read_text()).get("MODEL", {})
        keys = {*model.get("BACKBONE", {})} - {"PRETRAIN"}  # which small_run sets for every config
        if keys or {"TIMM", "META_ARCHITECTURE"} & {*model} or "BACKBONE" in model.get("MGRE", {}):
            assert config.stem in RESNETS, config


def paper_rate(epoch: int) -> float:
    """Sec. 4.2: linear warm-up from a hundredth over the first 10 epochs, times 0.3 at 120, 150, 180 and 210."""
    if epoch < 10:
        return 3.5e-4 * (0.01 + 0.99 * epoch / 10)
    return 3.5e-4 * 0.3 ** sum(epoch >= step for step in (120, 150, 180, 210))


class FakeTrainer:
    """As much of a trainer as the toolbox's learning rate hook sees."""

    grad_scaler = None

    def __init__(self, cfg):
        self.warmup_iters, self.delay_epochs = cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.DELAY_EPOCHS
        self.storage, self.iter, self.epoch = EventStorage(0), 0, 0


@pytest.mark.parametrize("name", PAPER_SETS)
def test_learning_rate_of_every_epoch_is_the_papers(name):
    cfg = load_config(f"configs/MGRe/{name}.yml", ["MODEL.DEVICE", "cpu"])
    steps = PAPER_SETS[name] // cfg.SOLVER.IMS_PER_BATCH
    cfg = scale_warmup(cfg, steps)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    hook = LRScheduler(optimizer, build_lr_scheduler(cfg, optimizer, steps))
    hook.trainer = FakeTrainer(cfg)
    rates = []
    for hook.trainer.epoch in range(cfg.SOLVER.MAX_EPOCH):
        rates.append(optimizer.param_groups[0]["lr"])
        for step in range(steps):
            hook.before_step()
            if hook.trainer.iter <= cfg.SOLVER.WARMUP_ITERS or step == steps - 1:  # in between the hook does nothing
                optimizer.step()
                hook.after_step()
            hook.trainer.iter += 1
        hook.after_epoch()
    assert rates == pytest.approx([paper_rate(epoch) for epoch in range(240)], rel=1e-6)


@pytest.mark.parametrize("name", ["custom", "custom-cpu", "quickstart"])
def test_warm_up_takes_the_same_epochs_of_any_data_set(name):
    cfg = load_config(f"configs/MGRe/{name}.yml", ["MODEL.DEVICE", "cpu"])
    assert [scale_warmup(cfg, steps).SOLVER.WARMUP_ITERS for steps in (9, 37, 202)] == {
        "custom": [90, 370, 2020],
        "custom-cpu": [4, 18, 101],
        "quickstart": [4, 18, 101],
    }[name]
    assert cfg.SOLVER.WARMUP_ITERS == 0  # the config itself stays


def test_a_training_warms_up_over_its_epochs(toy_run, tmp_path):
    options = [*toy_run, "SOLVER.WARMUP_EPOCHS", "2", "SOLVER.MAX_EPOCH", "4", "TEST.EVAL_PERIOD", "4"]
    trainer = Trainer(load_config("configs/MGRe/custom.yml", options))
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").read_text().splitlines()]
    rates = {line["iteration"]: line["lr"] for line in lines if "lr" in line}
    # Epochs of two steps, so the warm-up has four, and the rate is reached with the fifth.
    assert rates == pytest.approx({i: 3.5e-4 * min(1, 0.01 + 0.99 * i / 4) for i in (1, 3, 5, 7)})


def test_a_warm_up_that_leaves_nothing_of_the_training():
    options = ["MODEL.DEVICE", "cpu", "SOLVER.WARMUP_EPOCHS", "0", "SOLVER.WARMUP_ITERS", "500"]
    cfg = load_config("configs/MGRe/custom.yml", [*options, "SOLVER.MAX_EPOCH", "56"])
    with pytest.raises(ConfigError, match=r"ITERS is 500; allowed: at most 495, .*56 epochs of 9 steps") as caught:
        scale_warmup(cfg, 9)
    assert "\n" not in str(caught.value)
    assert scale_warmup(cfg, 10).SOLVER.WARMUP_ITERS == 500


def test_every_set_has_its_config():
    names = {path.stem for path in CONFIGS if path.parent.name == "MGRe"}
    others = {"Base-MGRe", "custom", "custom-cpu", "quickstart", "quickstart-baseline", "reproduce-quick"}
    assert set(PAPER_SETS) | others | {"market-quick", "market-part", "market-scratch"} == names


def test_market_from_scratch_is_the_papers_model_at_the_papers_size():
    cfg, paper = (
        load_config(f"configs/MGRe/{name}.yml", ["MODEL.DEVICE", "cpu"]) for name in ("market-scratch", "market")
    )
    assert (cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.WITH_IBN, cfg.INPUT.SIZE_TRAIN) == ("50x", True, [256, 128])
    assert paper.MODEL.BACKBONE.PRETRAIN and not cfg.MODEL.BACKBONE.PRETRAIN
    assert cfg.MODEL.MGRE.LOCATION == paper.MODEL.MGRE.LOCATION
    # 12,936 images in batches of 128 are 101 steps; the rate rises for one epoch, and falls to nothing in the others.
    steps = PAPER_SETS["market"] // cfg.SOLVER.IMS_PER_BATCH
    assert (steps, scale_warmup(cfg, steps).SOLVER.WARMUP_ITERS) == (101, 101)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_papers_joint_optimisation_is_everywhere(config):
    location = load_config(str(config), ["MODEL.DEVICE", "cpu"]).MODEL.MGRE.LOCATION
    gradient = 0.0 if config.stem == "cut-gradient" else 1.0
    assert gradient == location.REID_GRADIENT
    assert location.LOSS_WEIGHT == 10.0
