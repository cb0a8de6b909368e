import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from mgre.modeling.location import LocationModule
from mgre.regions import TABLE1, get_regions
from mgre.system.randomness import deterministic

# (x_min, y_min, x_max, y_max) of Table 1's prior boxes, by hand: C_x -+ M / W / 2, C_y -+ N / H / 2.
PRIORS = {
    "stage1": [
        [3 / 8, 1 / 12 - 1 / 16, 5 / 8, 1 / 12 + 1 / 16],
        [1 / 4, 1 / 12, 3 / 4, 7 / 12],
        [1 / 4, 1 / 12, 3 / 4, 7 / 12],
        [0, 9 / 16, 1, 15 / 16],
    ],
    "stage2": [[0, 1 / 12, 1, 7 / 12], [0, 1 / 2, 1, 1]],
    "stage3": [[0, 0, 1, 1]],
}


def test_boxes_are_the_priors_at_step_0_whatever_the_image():
    for stage, regions in get_regions("table1", (1, 2, 3)).items():
        boxes = LocationModule(in_channels=8, regions=regions)(torch.randn(3, 8, 32, 16) * 100)
        torch.testing.assert_close(boxes, torch.tensor([PRIORS[stage]] * 3, dtype=torch.float32), rtol=0, atol=1e-6)


def test_outputs_are_decoded_as_in_equations_1_and_2():
    regions = TABLE1[:2]
    module = LocationModule(in_channels=4, regions=regions).eval()
    torch.nn.init.normal_(module.predictor.weight, std=0.1)
    features = torch.randn(2, 4, 16, 8)
    outputs = module.predictor(module.features(features))
    boxes = module(features)
    for image in range(2):
        for index, region in enumerate(regions):
            out_x, out_y, log_w, log_h = outputs[image, 4 * index : 4 * index + 4].tolist()
            c_x, c_y = region.center[0] + math.tanh(out_x), region.center[1] + math.tanh(out_y)
            w, h = math.exp(log_w), math.exp(log_h)
            expected = torch.tensor([c_x - w / 2, c_y - h / 2, c_x + w / 2, c_y + h / 2])
            torch.testing.assert_close(boxes[image, index], expected, rtol=0, atol=1e-6)


def test_extreme_outputs_stay_finite_with_finite_gradients():
    module = LocationModule(in_channels=4, regions=TABLE1)
    for value in (1e4, -1e4):
        torch.nn.init.constant_(module.predictor.bias, value)
        module.zero_grad()
        boxes = module(torch.randn(2, 4, 16, 8))
        boxes.square().sum().backward()
        assert boxes.isfinite().all() and boxes.abs().max() <= 3
        assert all(p.grad.isfinite().all() for p in module.parameters())
        assert (module.predictor.bias.grad.unflatten(0, (-1, 4))[:, 2:] != 0).all()  # the sizes can come back


def test_infinite_outputs_of_half_precision_give_boxes():
    module = LocationModule(in_channels=4, regions=TABLE1).half()
    for value in (math.inf, -math.inf):
        torch.nn.init.constant_(module.predictor.bias, value)
        boxes = module(torch.randn(2, 4, 16, 8).half())
        boxes.square().sum().backward()
        assert boxes.dtype == torch.float32 and boxes.isfinite().all() and boxes.abs().max() <= 3
        assert all(p.grad.isfinite().all() for p in module.parameters())


def test_boxes_are_float32_under_autocast():
    module = LocationModule(in_channels=4, regions=TABLE1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        boxes = module(torch.randn(2, 4, 16, 8))
    assert boxes.dtype == torch.float32
    # 1/12 - 1/16 has no short binary form: bfloat16 would be off by 1e-3.
    torch.testing.assert_close(boxes[0, 0, 1], torch.tensor(1 / 12 - 1 / 16), rtol=0, atol=1e-3)


def test_pooling_of_maps_that_the_cells_do_not_divide():
    """Where deterministic kernels are asked for, row by row and then column by column."""
    features = torch.randn(2, 3, 13, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, found = (features.clone().requires_grad_() for _ in range(2))
    pool = LocationModule(in_channels=3, regions=TABLE1).features[3]
    weights = torch.arange(32.0, dtype=torch.float64).reshape(8, 4)
    (F.adaptive_max_pool2d(expected, (8, 4)) * weights).sum().backward()
    with deterministic(True):
        pooled = pool(found)
        (pooled * weights).sum().backward()
    assert torch.equal(pooled, pool(features))
    assert torch.equal(found.grad, expected.grad)


def former_boxes(module: LocationModule, features: torch.Tensor) -> torch.Tensor:
    """The boxes by torch's own layers, all of it in the features' precision."""
    convolution, _, norm, _, _, hidden, _ = module.features
    pooled = F.adaptive_max_pool2d(norm(F.relu(convolution(features))), (8, 4)).flatten(1)
    output = module.predictor(F.relu(hidden(pooled))).unflatten(1, (-1, 4))
    centers = module.centers + output[..., :2].tanh()
    return torch.cat((centers - output[..., 2:].exp() / 2, centers + output[..., 2:].exp() / 2), dim=-1)


# 16 x 8 and 32 x 16 divide into 8 x 4 windows, 20 x 9 does not.
@pytest.mark.parametrize("size", [(16, 8), (32, 16), (20, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boxes_and_gradients_are_those_of_the_plain_layers(size, dtype):
    torch.manual_seed(0)
    module = LocationModule(in_channels=4, regions=TABLE1[:3]).to(dtype)
    torch.nn.init.normal_(module.predictor.weight, std=0.02)  # no size leaves the range
    features = torch.randn(3, 4, *size, dtype=dtype)
    weights = torch.randn(3, 3, 4, dtype=dtype)
    results = []
    for locate in (module, partial(former_boxes, module)):
        leaf = features.clone().requires_grad_()
        boxes = locate(leaf)
        results.append((boxes, *torch.autograd.grad((boxes * weights).sum(), (leaf, *module.parameters()))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_boxes_of_bfloat16_are_near_those_of_float32():
    torch.manual_seed(0)
    module = LocationModule(in_channels=4, regions=TABLE1[:3])
    torch.nn.init.normal_(module.predictor.weight, std=0.1)
    features = torch.randn(3, 4, 16, 8)
    exact = module(features)
    gradients = {}
    for enabled in (False, True):
        module.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            boxes = module(features)
        boxes.square().sum().backward()
        gradients[enabled] = torch.cat([p.grad.flatten() for p in module.parameters()])
    torch.testing.assert_close(boxes, exact, rtol=0, atol=0.02)
    assert F.cosine_similarity(gradients[True], gradients[False], dim=0) > 0.99


def test_the_convolution_computes_in_the_type_of_autocast():
    module = LocationModule(in_channels=4, regions=TABLE1[:3])
    types = {}
    for index, layer in enumerate(module.features):
        layer.register_forward_hook(lambda _, inputs, output, index=index: types.update({index: output.dtype}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(torch.randn(2, 4, 16, 8))
    assert types[0] == torch.bfloat16 and types[5] == torch.float32
