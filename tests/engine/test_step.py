"""The training step: its arithmetic, its one look at the numbers, and what a loss without value leaves."""

import copy
import math
import random

import mgre  # noqa: F401  (before fastreid: it makes fastreid importable)
import numpy as np
import pytest
import torch
from fastreid.config import CfgNode
from fastreid.engine.train_loop import SimpleTrainer
from fastreid.modeling import build_model
from fastreid.solver import build_optimizer
from fastreid.utils.events import EventStorage
from mgre.engine.step import TrainingStep
from mgre.errors import LossError
from mgre.system.precision import amp_dtype
from mgre.system.randomness import deterministic
from mgre.system.scalars import HostCopy, StepScalars, log_mean
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


def make_step(model: nn.Module, batches: list, **options) -> TrainingStep:
    step = TrainingStep(model, batches, torch.optim.SGD(model.parameters(), lr=1.0), None, **options)
    step.iter = 0
    return step


def make_batch(device: str = "cpu") -> dict:
    rng = np.random.RandomState(0)
    points = np.concatenate([rng.uniform(0.1, 0.9, (4, 17, 2)), np.ones((4, 17, 1))], axis=2)
    return {
        "images": torch.from_numpy(rng.uniform(0, 255, (4, 3, 64, 32))).float().to(device),
        "targets": torch.tensor([0, 0, 1, 1], device=device),
        "camids": torch.tensor([0, 1, 0, 1], device=device),
        "keypoints": torch.from_numpy(points).float().to(device),
        "img_paths": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
    }


@pytest.fixture
def trained_part(small_config):
    """A model in training, with the toolbox's optimizer over flat parameters."""

    def make(config: str, device: str = "cpu", **overrides: str) -> tuple[CfgNode, nn.Module, tuple]:
        cfg = small_config(config, **{"MODEL.DEVICE": device}, **overrides)
        torch.manual_seed(0)
        model = build_model(cfg).train()
        return cfg, model, build_optimizer(cfg, model)

    return make


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
    trainer = make_step(model, [batch], amp_dtype=torch.bfloat16)
    optimizer = torch.optim.SGD(reference.parameters(), lr=1.0)
    with EventStorage():
        trainer.run_step()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = reference(batch)["loss"]
    loss.backward()
    optimizer.step()
    assert torch.equal(model.linear.weight, reference.linear.weight)
    assert trainer.grad_scaler is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_mixed_precision_step_on_the_gpu():
    batch = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).cuda()
    model, reference = LinearLoss().cuda(), LinearLoss().cuda()
    types_seen = []
    model.linear.register_forward_hook(lambda m, i, output: types_seen.append(output.dtype))
    trainer = make_step(model, [batch], amp_dtype=torch.float16)
    with EventStorage():
        trainer.run_step()
    assert types_seen == [torch.float16]
    assert trainer.grad_scaler.get_scale() > 1
    reference(batch)["loss"].backward()
    expected = reference.linear.weight - reference.linear.weight.grad
    torch.testing.assert_close(model.linear.weight, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("auto", "cpu", torch.bfloat16),
        ("auto", "cuda:0", torch.float16),
        ("bfloat16", "cuda", torch.bfloat16),
        ("float16", "cpu", torch.float16),
    ],
)
def test_the_type_of_mixed_precision(name, device, expected):
    assert amp_dtype(name, device) == expected


# -- Arithmetic and metrics -----------------------------------------------------------------------


@pytest.mark.parametrize("config", ["Base-MGRe", "quickstart-baseline"])
def test_weights_and_metrics_are_those_of_the_toolboxs_step(trained_part, config):
    batch = make_batch()
    _, model, (optimizer, params) = trained_part(config)
    _, reference, (reference_optimizer, reference_params) = trained_part(config)
    # The toolbox's own step, which mgre.compat leaves as it is; it needs no GPU where the model is on the CPU.
    steps = (
        TrainingStep(model, [batch], optimizer, params),
        SimpleTrainer(reference, [copy.deepcopy(batch)], reference_optimizer, reference_params),
    )
    latest = []
    for step in steps:
        step.iter = 0
        with EventStorage(0) as storage:
            step.run_step()
        latest.append({name: value for name, (value, _) in storage.latest().items() if name != "data_time"})
    assert latest[0] == pytest.approx(latest[1], rel=1e-6)
    assert any("cls_accuracy" in name for name in latest[0])
    assert ("train_iou/head" in latest[0]) == (config == "Base-MGRe")
    for (name, value), other in zip(model.state_dict().items(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-7, msg=name)


def test_a_region_without_a_box_is_not_logged(trained_part):
    _, model, (optimizer, params) = trained_part("Base-MGRe")
    batch = make_batch()
    batch["keypoints"][:, 0:5, 2] = 0.0  # the head's
    step = TrainingStep(model, [batch], optimizer, params)
    step.iter = 0
    with EventStorage(0) as storage:
        step.run_step()
    assert "train_iou/legs" in storage.latest() and "train_iou/head" not in storage.latest()


def test_images_and_histograms_reach_the_trainings_storage():
    with EventStorage(3) as storage, StepScalars(storage) as scalars:
        scalars.put_image("first", torch.zeros(3, 2, 2))
        scalars.put_histogram("weights", torch.arange(4.0))
    assert [(name, step) for name, _, step in storage._vis_data] == [("first", 3)]
    assert storage._histograms[0]["tag"] == "weights"


def test_means_by_hand():
    scalars = StepScalars()
    with scalars, scalars.name_scope("stage1"):
        log_mean("iou", torch.tensor(3.0), torch.tensor(4))
        log_mean("none", torch.tensor(0.0), torch.tensor(0))
    assert list(scalars.means) == ["stage1/iou", "stage1/none"]
    with EventStorage(0) as storage:  # of another trainer
        log_mean("iou", torch.tensor(3.0), torch.tensor(4))
        log_mean("none", torch.tensor(0.0), torch.tensor(0))
    assert {name: value for name, (value, _) in storage.latest().items()} == {"iou": 0.75}


# -- Waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    ["Base-MGRe", "quickstart-baseline", "ablations/without-joint", "ablations/single-grained-regions"],
)
def test_the_host_reads_numbers_once_a_step(trained_part, config, monkeypatch):
    """On a GPU each of these waits; here they are counted."""
    _, model, (_, params) = trained_part(config)
    # Adam would count its steps by ``item``, on the CPU, where it waits for no GPU.
    step = TrainingStep(model, [make_batch()] * 2, torch.optim.SGD(params.contiguous(), lr=0.1), params)
    reads = []
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "nonzero"):
        original = getattr(torch.Tensor, name)

        def counted(tensor, *args, _original=original, _name=name, **kwargs):
            reads.append(_name)
            return _original(tensor, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    with EventStorage(0):
        for step.iter in range(2):
            reads.clear()
            step.run_step()
            assert reads == ["tolist"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize(
    "config",
    ["Base-MGRe", "quickstart-baseline", "ablations/without-joint", "ablations/single-grained-regions"],
)
def test_a_step_on_the_gpu_never_waits_unasked(trained_part, config, dtype):
    _, model, (optimizer, params) = trained_part(config, "cuda")
    step = TrainingStep(model, [make_batch("cuda")] * 3, optimizer, params, amp_dtype=dtype)
    with EventStorage(0):
        for step.iter in range(2):  # the first step searches and allocates
            step.run_step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step.run_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_copy_to_the_host_keeps_names_and_order():
    values = {"b": torch.tensor([1.5]), "a": torch.tensor(2), "c": torch.tensor(math.nan)}
    numbers = HostCopy(values).wait()
    assert list(numbers) == ["b", "a", "c"] and numbers["b"] == 1.5 and numbers["a"] == 2 and math.isnan(numbers["c"])


# -- Equal bits in every run ----------------------------------------------------------------------

# Of torch.use_deterministic_algorithms: what has no deterministic kernel for CUDA, and could be in a model or a loss.
NOT_DETERMINISTIC = {
    *("adaptive_max_pool2d_backward", "_adaptive_avg_pool2d_backward", "fractional_max_pool2d_backward"),
    *("upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward"),
    *("grid_sampler_2d_backward", "reflection_pad2d_backward", "max_unpool2d", "nll_loss2d_forward"),
    *("histc", "bincount", "median", "kthvalue", "put_", "cumsum"),
}


class Operations(TorchDispatchMode):
    """Notes the names of torch's operations, those of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function._schema.name.removeprefix("aten::"))
        return function(*args, **(kwargs or {}))


ALL_LOSSES = {"MODEL.LOSSES.NAME": "('CrossEntropyLoss', 'TripletLoss', 'CircleLoss', 'Cosface')"}


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        ("Base-MGRe", ALL_LOSSES),  # maps of 64 x 32 pixels, which the location modules' 8 x 4 cells do not divide
        ("Base-MGRe", {"INPUT.SIZE_TRAIN": "(128, 64)", "MODEL.HEADS.CLS_LAYER": "CosSoftmax"}),
        ("quickstart-baseline", {"MODEL.HEADS.CLS_LAYER": "ArcSoftmax"}),
    ],
)
def test_a_step_has_only_operations_with_deterministic_kernels(trained_part, config, overrides):
    _, model, (optimizer, params) = trained_part(config, **overrides)
    step = TrainingStep(model, [make_batch()], optimizer, params)
    step.iter = 0
    with EventStorage(0), deterministic(True), Operations() as seen:
        step.run_step()
    assert {"convolution", "convolution_backward", "native_batch_norm_backward"} <= seen.names
    assert not seen.names & NOT_DETERMINISTIC


def test_an_operation_of_a_backward_pass_is_seen():
    with Operations() as seen:
        torch.nn.functional.adaptive_max_pool2d(torch.randn(1, 1, 3, 3, requires_grad=True), 2).sum().backward()
    assert seen.names & NOT_DETERMINISTIC == {"adaptive_max_pool2d_backward"}


# -- Losses without value -------------------------------------------------------------------------


class Spoiled(nn.Module):
    """Moves the statistics of its batch norm, then gives a loss that is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, batch: dict) -> dict[str, torch.Tensor]:
        random.random()
        return {"loss_good": self.norm(batch["images"]).mean(), "loss_bad": self.norm.weight.sum() * math.nan}


def test_a_loss_without_value_leaves_the_state_before_the_step():
    model = Spoiled().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = {"images": torch.randn(8, 4), "img_paths": ["one.jpg", "two.jpg", "three.jpg"]}
    step = make_step(model, [batch])
    state = random.getstate()
    expected = "loss_bad is nan in step 1, in a batch with one.jpg, two.jpg and 1 more: lower SOLVER.BASE_LR"
    with EventStorage(0), pytest.raises(LossError, match=expected):
        step.run_step()
    assert torch.equal(model.norm.weight, before["norm.weight"])  # no step of the optimizer
    assert not torch.equal(model.norm.running_mean, before["norm.running_mean"])
    step.before.put_buffers_back()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert step.before.random_states["python"] == state
