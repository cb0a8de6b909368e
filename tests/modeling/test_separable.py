import pytest
import torch
import torch.nn.functional as F
from mgre.modeling.separable import mix_columns, mix_rows, resize_bilinear

# In bfloat16, whose eps is 2^-8, two sums are rounded.
TOLERANCES = [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.04)]


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("sizes", [((4, 2), (16, 8)), ((4, 2), (8, 4)), ((5, 3), (7, 9)), ((6, 4), (3, 4))])
def test_values_and_gradients_are_those_of_interpolate(dtype, tolerance, layout, sizes):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, *sizes[0], generator=generator).to(dtype).contiguous(memory_format=layout)
    weights = torch.randn(2, 3, *sizes[1], generator=generator).to(dtype)
    results = []
    for resize in (
        resize_bilinear,
        lambda f, size: F.interpolate(f.double(), size=size, mode="bilinear", align_corners=False),
    ):
        leaf = features.clone().requires_grad_()
        resized = resize(leaf, sizes[1])
        results.append((resized, *torch.autograd.grad((resized.double() * weights.double()).sum(), leaf)))
    assert results[0][0].dtype == dtype
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=tolerance * theirs.abs().max().item())


def test_products_are_sums_over_rows_and_columns():
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    down, across = torch.randn(2, 6, 4, dtype=torch.float64), torch.randn(2, 7, 5, dtype=torch.float64)
    mixed = mix_columns(mix_rows(features, down), across)
    torch.testing.assert_close(mixed, torch.einsum("bnh,bchw,bmw->bcnm", down, features, across), rtol=0, atol=1e-12)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
