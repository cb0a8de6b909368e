import pytest
import torch
import torch.nn.functional as F
from mgre.modeling.sampling import SamplingModule, sample_boxes
from mgre.regions import TABLE1, get_regions, prior_boxes


def sample_naively(features: torch.Tensor, box: list[float], size: tuple[int, int]) -> torch.Tensor:
    """Eq. (4)-(5) as they stand: a sum over all cells of the map with the bilinear kernel. (C, H, W) to (C, N, M)."""
    _, height, width = features.shape
    samples = torch.zeros(features.shape[0], *size, dtype=features.dtype)
    for n in range(size[0]):
        for m in range(size[1]):
            # Position of the sample in cells; the centre of cell (i, j) is (j, i).
            x = (box[0] + (m + 0.5) / size[1] * (box[2] - box[0])) * width - 0.5
            y = (box[1] + (n + 0.5) / size[0] * (box[3] - box[1])) * height - 0.5
            for i in range(height):
                for j in range(width):
                    samples[:, n, m] += features[:, i, j] * max(0, 1 - abs(x - j)) * max(0, 1 - abs(y - i))
    return samples


def sample_by_torch(features: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The same of one box (B, 4) of each image, by torch's kernel."""
    fractions = [(torch.arange(count, dtype=boxes.dtype) + 0.5) / count for count in size]
    x = boxes[:, [0]] + fractions[1] * (boxes[:, [2]] - boxes[:, [0]])
    y = boxes[:, [1]] + fractions[0] * (boxes[:, [3]] - boxes[:, [1]])
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    return F.grid_sample(features, 2 * grid - 1, mode="bilinear", padding_mode="zeros", align_corners=False)


@pytest.mark.parametrize(
    "box",
    [
        [0.0, 0.0, 1.0, 1.0],
        [0.1, 0.2, 0.7, 0.45],
        [-0.4, 0.5, 0.6, 1.3],  # beyond the map, where Eq. (5) has nothing to sum
        [2.0, 2.0, 3.0, 3.0],  # all of it outside
        [0.5, 0.5, 0.5, 0.5],  # no size at all
        [0.7, 0.45, 0.1, 0.2],  # inverted
    ],
)
def test_samples_equal_a_loop_over_equations_4_and_5(box):
    features = torch.randn(1, 3, 6, 5, dtype=torch.float64)
    whole = [0.0, 0.0, 1.0, 1.0]
    sampled = sample_boxes(features, torch.tensor([[box, whole]], dtype=torch.float64), [(4, 3), (2, 5)])
    torch.testing.assert_close(sampled[0][0], sample_naively(features[0], box, (4, 3)), rtol=0, atol=1e-12)
    torch.testing.assert_close(sampled[1][0], sample_naively(features[0], whole, (2, 5)), rtol=0, atol=1e-12)


# Rounding of a sum of four products: eps of the dtype times a few values of size 1.
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.06)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_grid_sample(dtype, tolerance, layout):
    generator = torch.Generator().manual_seed(0)
    regions = get_regions("table1", (1,))["stage1"]
    features = torch.randn(2, 5, 32, 16, generator=generator).to(dtype).contiguous(memory_format=layout)
    priors = torch.tensor(prior_boxes(regions), dtype=torch.float64)
    boxes = priors + 0.05 * torch.randn(2, len(regions), 4, generator=generator, dtype=torch.float64)
    boxes = boxes if dtype == torch.float64 else boxes.float()
    sizes = [region.sample_size((32, 16)) for region in regions]
    weights = [torch.randn(2, 5, *size, generator=generator).double() for size in sizes]
    found, expected = [], []
    for sample, results, exact in ((sample_boxes, found, False), (sample_by_torch, expected, True)):
        f, b = (t.detach().to(torch.float64 if exact else t.dtype).requires_grad_() for t in (features, boxes))
        samples = [sample(f, b[:, r], size) for r, size in enumerate(sizes)] if exact else sample(f, b, sizes)
        total = sum((s.double() * w).sum() for s, w in zip(samples, weights, strict=True))
        results += [*samples, *torch.autograd.grad(total, (f, b))]
    assert all(sample.dtype == dtype for sample in found[:4]) and found[4].dtype == dtype
    for ours, theirs in zip(found, expected, strict=True):
        scale = theirs.abs().max().clamp(min=1).item()
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance * scale)


def test_a_box_of_whole_cells_is_a_crop():
    features = torch.randn(2, 3, 8, 4)
    boxes = torch.tensor([[[0.25, 0.5, 0.75, 1.0]], [[0.0, 0.0, 0.5, 0.5]]])
    (sampled,) = sample_boxes(features, boxes, [(4, 2)])
    torch.testing.assert_close(sampled[0], features[0, :, 4:8, 1:3])
    torch.testing.assert_close(sampled[1], features[1, :, 0:4, 0:2])


def test_gradients_of_features_and_boxes():
    features = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    # Sample positions off the cell centres, where the kernel has a kink.
    boxes = torch.tensor([[0.13, 0.07, 0.81, 0.97], [-0.21, 0.33, 0.59, 1.17]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, b: sample_boxes(f, b[:, None], [(3, 2)])[0], (features, boxes))


def test_at_a_cells_centre_the_gradient_is_the_mean_of_both_sides():
    features = torch.randn(1, 3, 8, 4, dtype=torch.float64)
    box = torch.tensor([[[0.25, 0.25, 0.75, 0.75]]], dtype=torch.float64)  # (4, 2) samples, all at centres of cells

    def gradient(shift: float) -> torch.Tensor:
        moved = (box + shift).requires_grad_()
        (samples,) = sample_boxes(features, moved, [(4, 2)])
        return torch.autograd.grad((samples * torch.arange(24.0).view(1, 3, 4, 2)).sum(), moved)[0]

    torch.testing.assert_close(gradient(0.0), (gradient(-1e-11) + gradient(1e-11)) / 2, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0])
def test_reid_gradient_scales_what_reaches_the_boxes_and_nothing_else(factor):
    features = torch.randn(2, 3, 8, 4, requires_grad=True)
    boxes = torch.rand(2, 7, 2, 2).sort(dim=2).values.flatten(2).requires_grad_()
    weights = None
    gradients = {}
    for value in (1.0, factor):
        samples = SamplingModule(regions=TABLE1, reid_gradient=value)(features, boxes)
        weights = weights or [torch.randn_like(s) for s in samples]
        total = sum((s * w).sum() for s, w in zip(samples, weights, strict=True))
        gradients[value] = torch.autograd.grad(total, (features, boxes), allow_unused=True)
    torch.testing.assert_close(gradients[factor][0], gradients[1.0][0])
    reached = gradients[factor][1]
    if factor == 0:
        assert reached is None
    else:
        torch.testing.assert_close(reached, factor * gradients[1.0][1])


def test_sampled_sizes_follow_the_map():
    samples = SamplingModule(regions=TABLE1[:4], reid_gradient=1.0)(torch.randn(1, 2, 32, 16), torch.rand(1, 4, 4))
    assert [tuple(s.shape[-2:]) for s in samples] == [(4, 4), (16, 8), (16, 8), (12, 16)]


def test_bfloat16_features_keep_the_boxes_precision():
    features = torch.arange(64.0).expand(1, 1, 64, 64).clone()  # value = column
    boxes = torch.tensor([[[0.25 + 1 / 1024, 0.0, 0.5 + 1 / 1024, 1.0]]])
    (exact,) = sample_boxes(features, boxes, [(4, 16)])
    (coarse,) = sample_boxes(features.bfloat16(), boxes, [(4, 16)])
    # Positions in bfloat16 would be off by up to 0.125 cells. Half of its spacing between 16 and 32 is 0.0625.
    torch.testing.assert_close(coarse.float(), exact, rtol=0, atol=0.1)
