import copy

import pytest
import torch
from fastreid.config import get_cfg
from fastreid.engine import DefaultTrainer
from fastreid.solver import build_lr_scheduler, build_optimizer
from torch import nn


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.BatchNorm1d(3), nn.Linear(3, 2))


def plain_optimizer(model: nn.Module, cfg) -> torch.optim.Optimizer:
    """The groups of the config by hand, one parameter each, and no flat buffers."""
    lr, decay = cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY
    first, _, norm, last = model
    groups = [
        {"params": [first.weight, last.weight], "lr": lr, "weight_decay": decay},
        {"params": [norm.weight], "lr": lr, "weight_decay": cfg.SOLVER.WEIGHT_DECAY_NORM},
        {
            "params": [first.bias, norm.bias, last.bias],
            "lr": lr * cfg.SOLVER.BIAS_LR_FACTOR,
            "weight_decay": cfg.SOLVER.WEIGHT_DECAY_BIAS,
        },
    ]
    if cfg.SOLVER.OPT == "SGD":
        return torch.optim.SGD(groups, lr=lr, momentum=cfg.SOLVER.MOMENTUM, nesterov=cfg.SOLVER.NESTEROV)
    return getattr(torch.optim, cfg.SOLVER.OPT)(groups, lr=lr)


@pytest.mark.parametrize("optimizer_name", ["Adam", "SGD"])
@pytest.mark.parametrize("build", [build_optimizer, DefaultTrainer.build_optimizer])
def test_weights_change_as_with_torchs_own_optimizer(optimizer_name, build):
    cfg = get_cfg()
    cfg.SOLVER.OPT = optimizer_name
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.WEIGHT_DECAY = 0.1
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.05
    cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.0
    cfg.SOLVER.BIAS_LR_FACTOR = 2.0
    model = small_model()
    reference = copy.deepcopy(model)
    start = copy.deepcopy(model.state_dict())
    optimizer, _ = build(cfg, model)
    reference_optimizer = plain_optimizer(reference, cfg)
    for step in range(3):
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        for m, o in ((model, optimizer), (reference, reference_optimizer)):
            o.zero_grad()
            m(inputs).square().mean().backward()
            o.step()
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), parameter, rtol=1e-5, atol=1e-7)
        assert not torch.equal(parameter, start[name])


def test_optimizers_without_flat_buffers_stay_as_they_are():
    optimizer, _ = build_optimizer(get_cfg(), small_model(), contiguous=False)
    assert "zero_grad" not in vars(optimizer)


def test_schedule_is_the_toolboxs():
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR = 1.0
    cfg.SOLVER.STEPS = [2]
    cfg.SOLVER.GAMMA = 0.1
    cfg.SOLVER.WARMUP_ITERS = 0
    optimizer, _ = build_optimizer(cfg, nn.Linear(2, 2))
    schedule = build_lr_scheduler(cfg, optimizer, iters_per_epoch=1)["lr_sched"]
    rates = []
    for _ in range(3):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1.0, 1.0, 0.1])
