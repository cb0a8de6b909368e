import copy

import mgre  # noqa: F401  (it applies the adaptations)
import pytest
import torch
from fastreid.config import get_cfg
from fastreid.solver import build_optimizer
from torch import nn

LAYOUTS = {True: torch.channels_last, False: torch.contiguous_format}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        images = torch.randn(4, 3, 6, 5, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        model(images).square().mean().backward()
        optimizer.step()


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, (2, 3), bias=False)).double()


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.SOLVER.OPT, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = "Adam", 0.01, 0.1
    cfg.SOLVER.WEIGHT_DECAY_NORM = cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.1
    return cfg


def test_channels_last_weights_are_views_of_the_buffer_and_stay_channels_last(cfg):
    model = small_model()
    model.to(memory_format=torch.channels_last)
    before = copy.deepcopy(model.state_dict())
    optimizer, params = build_optimizer(cfg, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[0].weight.grad.stride() == model[0].weight.stride()
    train(model, optimizer, range(2))
    params.assert_buffer_is_valid()
    with torch.no_grad():
        for group in optimizer.param_groups:
            group["params"][0].fill_(7.0)
    assert all((p == 7).all() for p in model.parameters())


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_training_goes_on_in_either_layout(cfg, saved, resumed):
    """Two steps in one layout, two in the other, against torch's own Adam over the plain parameters."""
    plain = small_model()
    reference = torch.optim.Adam(plain.parameters(), lr=0.01, weight_decay=0.1)
    train(plain, reference, range(4))

    first = small_model()
    first.to(memory_format=LAYOUTS[saved])
    optimizer, _ = build_optimizer(cfg, first)
    train(first, optimizer, range(2))
    state = copy.deepcopy(optimizer.state_dict())

    second = small_model()
    second.load_state_dict(first.state_dict())
    second.to(memory_format=LAYOUTS[resumed])
    optimizer, _ = build_optimizer(cfg, second)
    optimizer.load_state_dict(state)
    train(second, optimizer, range(2, 4))
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(second.get_parameter(name), parameter, rtol=1e-9, atol=1e-12)


def test_states_are_saved_in_the_order_of_contiguous_weights(cfg):
    states = []
    for channels_last in (False, True):
        model = small_model()
        model.to(memory_format=LAYOUTS[channels_last])
        optimizer, _ = build_optimizer(cfg, model)
        train(model, optimizer, range(1))
        states.append(optimizer.state_dict()["state"])
    for index, state in states[0].items():
        torch.testing.assert_close(states[1][index]["exp_avg"], state["exp_avg"], rtol=1e-9, atol=1e-12)
