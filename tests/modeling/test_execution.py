import copy
import logging
import pickle

import pytest
import torch
from fastreid.config import get_cfg
from fastreid.modeling import build_model
from fastreid.solver import build_optimizer
from mgre.config import load_config
from mgre.modeling import execution
from mgre.modeling.execution import prepare_execution
from torch import nn
from torch._dynamo.backends.common import aot_autograd


class FakeCompiler:
    """In the place of torch.compile: counts the sizes it would compile for, or fails."""

    def __init__(self, monkeypatch, error: Exception | None = None) -> None:
        self.sizes: list[int] = []
        self.modes: list[str] = []
        self.error = error
        monkeypatch.setattr(torch, "compile", self)

    def __call__(self, function, *, mode, dynamic):
        assert dynamic is False
        self.modes.append(mode)

        def compiled(*args, **kwargs):
            self.sizes.append(len(args[0]))
            if self.error is not None:
                raise self.error
            return function(*args, **kwargs)

        return compiled


@pytest.mark.parametrize("architecture", ["MGRe", "Baseline"])
def test_channels_last_gives_the_same_features_and_losses(architecture, build_small, make_batch, storage):
    options = {"MODEL.BACKBONE.WITH_IBN": "True"}
    if architecture == "Baseline":
        options |= {"MODEL.META_ARCHITECTURE": "Baseline", "MODEL.BACKBONE.NAME": "build_resnet_backbone"}
        options |= {"MODEL.HEADS.NAME": "EmbeddingHead", "MODEL.BACKBONE.FEAT_DIM": "512"}
    models = {}
    for value in ("False", "True"):
        torch.manual_seed(0)
        models[value] = build_small(**options, **{"MODEL.CHANNELS_LAST": value}).double()
    models["True"].load_state_dict(models["False"].state_dict())
    convolutions = {v: [m for m in model.modules() if isinstance(m, nn.Conv2d)] for v, model in models.items()}
    for value, layout in (("False", torch.contiguous_format), ("True", torch.channels_last)):
        assert all(m.weight.is_contiguous(memory_format=layout) for m in convolutions[value])
    batch = make_batch()
    batch = {k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in batch.items()}
    results = []
    for model in models.values():
        with torch.no_grad():
            results.append([model.eval()(batch)])
        losses = model.train()(batch)
        sum(losses.values()).backward()
        results[-1] += [*losses.values(), *(p.grad for p in model.parameters() if p.grad is not None)]
    for plain, channels_last in zip(*results, strict=True):
        # The losses are float32.
        torch.testing.assert_close(channels_last, plain, rtol=1e-4, atol=1e-5 * max(1.0, plain.abs().max().item()))


def test_maps_stay_channels_last_from_end_to_end(build_small, make_batch):
    model = build_small(**{"MODEL.BACKBONE.WITH_IBN": "True"}).eval()
    layouts = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, inputs, output, name=name: layouts.update({name: output}))
    with torch.no_grad():
        model(make_batch())
    maps = {n: o for n, o in layouts.items() if isinstance(o, torch.Tensor) and o.dim() == 4 and o.shape[2] > 1}
    assert len(maps) > 50
    others = [name for name, output in maps.items() if not output.is_contiguous(memory_format=torch.channels_last)]
    assert not [name for name in others if not name.endswith(".IN")]  # IBN brings instance norm's output back


@pytest.fixture
def graphs(monkeypatch) -> list:
    """The graphs that torch's own tracing makes; they are run as they are, without a compiler."""
    graphs, compile_model = [], torch.compile

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda function, mode, dynamic: compile_model(function, backend=keep, dynamic=dynamic)
    )
    torch._dynamo.reset()
    return graphs


@pytest.mark.slow
@pytest.mark.parametrize("boxes", ["location", "prior"])
def test_compiled_outputs_are_the_eager_ones_from_one_graph_for_each_mode(boxes, build_small, make_batch, graphs):
    # Both have the same backbone's graph, so one is enough to trace that of a ResNet.
    backbone = {"MODEL.MGRE.BACKBONE": "build_toy_backbone"} if boxes == "prior" else {}
    model = build_small(**{"MODEL.MGRE.BOXES": boxes}, **backbone).eval()
    compiled = copy.deepcopy(model)
    prepare_execution(compiled, channels_last=True, compilation="default")
    batch = make_batch()
    assert len(batch["images"]) > 2
    small = {name: value[:2] for name, value in batch.items()}
    with torch.no_grad():
        for inputs in (batch, batch, small, batch):
            torch.testing.assert_close(compiled(inputs), model(inputs), rtol=1e-5, atol=1e-6)
    assert len(graphs) == 1
    for m in (model, compiled):
        m.train()
    for _ in range(2):
        features = []
        for m in (model, compiled):
            given = m._given_boxes(batch, tuple(m.regions))
            outputs = m.network(m.preprocess_image(batch), tuple(m.regions), given, batch["targets"])[1]
            features.append(outputs["stage1"]["features"])
        torch.testing.assert_close(*features, rtol=1e-4, atol=1e-5)
    assert len(graphs) == 2


def test_a_baseline_is_compiled_once_for_a_batch_and_its_smaller_last_one(build_small, make_batch, graphs):
    options = {"MODEL.META_ARCHITECTURE": "Baseline", "MODEL.BACKBONE.NAME": "build_resnet_backbone"}
    options |= {"MODEL.HEADS.NAME": "EmbeddingHead", "MODEL.BACKBONE.FEAT_DIM": "512", "MODEL.COMPILE": "default"}
    model = build_small(**options).eval()
    images = make_batch()["images"]
    with torch.no_grad():
        for inputs in (images, images, images[:2], images):
            model(inputs)
    assert len(graphs) == 2  # backbone and heads


def test_flat_parameters_leave_a_distributed_network_whole(graphs, tmp_path):
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.part(inputs)

    model = Network()
    prepare_execution(model, channels_last=False, compilation="default")
    cfg = get_cfg()
    build_optimizer(cfg, model)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped(torch.randn(2, 4)).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert len(graphs) == 1


def test_an_mgre_is_compiled_as_one_graph_and_others_by_part(build_small, monkeypatch):
    compiler = FakeCompiler(monkeypatch)
    prepare_execution(build_small(), channels_last=False, compilation="default")
    assert compiler.modes == ["default"]
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    prepare_execution(model, channels_last=False, compilation="reduce-overhead")
    assert compiler.modes[1:] == ["reduce-overhead"] * 2  # a ReLU has nothing to compile for itself


def test_a_smaller_batch_is_filled_up_and_cut(monkeypatch):
    compiler = FakeCompiler(monkeypatch)
    model = nn.Sequential(nn.Linear(2, 3)).eval()
    plain = copy.deepcopy(model)
    prepare_execution(model, channels_last=False, compilation="default")
    for size in (4, 4, 1, 4, 3, 6, 2, 2, 6):
        inputs = torch.randn(size, 2)
        torch.testing.assert_close(model(inputs), plain(inputs))
    # Only a size that comes twice in a row is worth a compilation of its own.
    assert compiler.sizes == [4, 4, 4, 4, 4, 6, 6, 2, 6]
    model.train()
    model(torch.randn(3, 2))
    assert compiler.sizes[-1] == 3  # batch norm would see the rows that fill up


def test_filling_up_keeps_the_memory_layout(monkeypatch):
    layouts = []

    def compiled(features):
        layouts.append(features.is_contiguous(memory_format=torch.channels_last))
        return features

    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled)
    model = nn.Sequential(nn.Conv2d(3, 3, 1)).eval()
    prepare_execution(model, channels_last=True, compilation="default")
    for size in (4, 4, 2):
        features = torch.randn(size, 3, 2, 2).contiguous(memory_format=torch.channels_last)
        assert torch.equal(model(features), features)
    assert layouts == [True] * 3


def test_an_empty_batch(monkeypatch):
    FakeCompiler(monkeypatch)
    model = nn.Sequential(nn.Linear(2, 3)).eval()
    prepare_execution(model, channels_last=False, compilation="default")
    assert model(torch.randn(4, 2)).shape == (4, 3) and model(torch.randn(0, 2)).shape == (0, 3)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_computes_with_its_own_weights(monkeypatch, duplicate):
    FakeCompiler(monkeypatch)
    model = nn.Sequential(nn.Linear(2, 3)).eval()
    prepare_execution(model, channels_last=False, compilation="default")
    twin = duplicate(model)
    nn.init.zeros_(twin[0].weight)
    nn.init.zeros_(twin[0].bias)
    inputs = torch.randn(4, 2)
    assert not twin(inputs).any() and model(inputs).any()
    assert twin.state_dict().keys() == model.state_dict().keys() == {"0.weight", "0.bias"}


def test_outputs_of_cuda_graphs_are_copied(monkeypatch):
    outputs = torch.zeros(2, 3)
    monkeypatch.setattr(torch, "compile", lambda function, **options: lambda *args: outputs)
    model = nn.Sequential(nn.Linear(3, 3)).eval()
    prepare_execution(model, channels_last=False, compilation="reduce-overhead")
    first = model(torch.randn(2, 3))
    outputs.fill_(1.0)
    assert not first.any()


def test_a_failure_is_one_warning_and_the_model_goes_on(monkeypatch, caplog):
    error = torch._dynamo.exc.InternalTorchDynamoError("no compiler\nand a long explanation")
    compiler = FakeCompiler(monkeypatch, error)
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)).eval()
    plain = copy.deepcopy(model)
    prepare_execution(model, channels_last=False, compilation="default")
    inputs = torch.randn(4, 2)
    with caplog.at_level(logging.WARNING, logger=execution.__name__):
        for _ in range(3):
            torch.testing.assert_close(model(inputs), plain(inputs))
    assert compiler.sizes == [4]
    assert [r.message for r in caplog.records] == [
        "MODEL.COMPILE: torch.compile has failed (no compiler); the model runs without it"
    ]


def test_an_error_of_the_model_itself_passes_and_the_model_stays_compiled(graphs, caplog):
    model = nn.Sequential(nn.Linear(2, 3)).eval()
    prepare_execution(model, channels_last=False, compilation="default")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.randn(4, 5))
    model(torch.randn(4, 2))
    assert len(graphs) == 1 and not [r for r in caplog.records if "torch.compile has failed" in r.message]


@pytest.mark.skipif(
    not hasattr(torch._functorch.config, "force_non_lazy_backward_lowering"),
    reason="this release of torch compiles the backward pass after the forward pass, where nothing can be answered",
)
def test_a_failure_of_the_backward_pass_is_a_warning_too(monkeypatch, caplog):
    compile_model = torch.compile

    def fail(graph, inputs):
        raise RuntimeError("the disk is full")

    backend = aot_autograd(fw_compiler=lambda graph, inputs: graph.forward, bw_compiler=fail)
    monkeypatch.setattr(torch, "compile", lambda function, mode, dynamic: compile_model(function, backend=backend))
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(2, 3))
    prepare_execution(model, channels_last=False, compilation="default")
    caplog.set_level(logging.WARNING, logger=execution.__name__)
    model(torch.randn(4, 2)).sum().backward()
    assert model[0].weight.grad.any()
    assert [r.message for r in caplog.records if "torch.compile has failed (the disk is full)" in r.message]


def test_without_a_compiler_the_model_runs_eagerly(monkeypatch, caplog):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/no/compiler",))
    torch._dynamo.reset()
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2)).eval()
    plain = copy.deepcopy(model)
    prepare_execution(model, channels_last=False, compilation="default")
    inputs = torch.randn(4, 2)
    caplog.set_level(logging.WARNING, logger=execution.__name__)
    with torch._inductor.utils.fresh_inductor_cache(), torch.no_grad():
        torch.testing.assert_close(model(inputs), plain(inputs))
    assert len([r for r in caplog.records if "torch.compile has failed" in r.message]) == 1


def test_a_config_of_the_toolbox_alone_builds_a_plain_model():
    cfg = load_config(
        "configs/MGRe/ablations/baseline.yml", ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", "False"]
    )
    cfg.defrost()
    del cfg.MODEL["CHANNELS_LAST"], cfg.MODEL["COMPILE"]
    cfg.MODEL.BACKBONE.DEPTH = "18x"
    cfg.MODEL.BACKBONE.FEAT_DIM = 512
    model = build_model(cfg)
    assert not model.backbone.staged.bottom_up.conv1.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_training_and_inference_on_the_gpu(mode, build_small, make_batch, storage):
    plain = build_small(**{"MODEL.DEVICE": "cuda"})
    compiled = copy.deepcopy(plain)
    prepare_execution(compiled, channels_last=True, compilation=mode)
    batch = make_batch()
    small = {name: value[:2] for name, value in batch.items()}
    for _ in range(2):
        kept = []
        for model in (plain, compiled):
            with torch.no_grad():
                kept.append([model.eval()(inputs) for inputs in (batch, batch, small)])
        for expected, found in zip(*kept, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        for model in (plain, compiled):
            for _ in range(3):
                model.zero_grad()
                sum(model.train()(batch).values()).backward()
    assert compiled.network._status.failed is False
