import copy

import mgre  # noqa: F401  (it applies the adaptations)
import pytest
import torch
import torch.nn.functional as F
from fastreid.layers.batch_norm import IBN
from fastreid.layers.pooling import Flatten, GlobalMaxPool
from mgre.compat.patching import ORIGINALS


@pytest.mark.parametrize("training", [False, True])
def test_ibn_of_a_channels_last_map_is_the_toolboxs(training):
    torch.manual_seed(0)
    ours = IBN(8, "BN").double().train(training)
    torch.nn.init.normal_(ours.IN.weight)
    theirs = copy.deepcopy(ours)
    features = torch.randn(2, 8, 5, 3, dtype=torch.float64)
    results = []
    for module, forward, layout in (
        (ours, IBN.forward, torch.channels_last),
        (theirs, ORIGINALS["fastreid.layers.batch_norm.IBN.forward"], torch.contiguous_format),
    ):
        leaf = features.contiguous(memory_format=layout).requires_grad_()
        output = forward(module, leaf)
        assert output.is_contiguous(memory_format=layout)
        gradients = torch.autograd.grad(output.pow(3).sum(), (leaf, *module.parameters()))
        results.append([output, *gradients, *module.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_global_max_pooling_is_torchs(dtype, layout):
    features = torch.randperm(2 * 3 * 5 * 4).view(2, 3, 5, 4).to(dtype).contiguous(memory_format=layout)
    results = []
    for pool in (GlobalMaxPool(), torch.nn.AdaptiveMaxPool2d(1)):
        leaf = features.clone().requires_grad_()
        pooled = pool(leaf)
        results.append((pooled, *torch.autograd.grad(pooled.square().sum(), leaf)))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def test_cells_of_equal_value_share_the_gradient():
    features = torch.tensor([[[[1.0, 3.0], [3.0, 2.0]]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(GlobalMaxPool()(features).sum(), features)
    assert gradient.tolist() == [[[[0.0, 0.5], [0.5, 0.0]]]]


def test_other_sizes_are_pooled_as_before():
    features = torch.randn(1, 2, 6, 4)
    assert torch.equal(GlobalMaxPool((3, 2))(features), F.adaptive_max_pool2d(features, (3, 2)))


def test_flattening_takes_any_layout():
    features = torch.randn(2, 3, 4, 5)
    expected = features.view(2, 60, 1, 1)
    for layout in (torch.contiguous_format, torch.channels_last):
        assert torch.equal(Flatten()(features.contiguous(memory_format=layout)), expected)
