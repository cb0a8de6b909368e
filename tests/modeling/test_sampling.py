import pytest
import torch
from mgre.modeling.sampling import SamplingModule, sample_box
from mgre.regions import TABLE1


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


@pytest.mark.parametrize(
    "box",
    [
        [0.0, 0.0, 1.0, 1.0],
        [0.1, 0.2, 0.7, 0.45],
        [-0.4, 0.5, 0.6, 1.3],  # beyond the map, where Eq. (5) has nothing to sum
        [2.0, 2.0, 3.0, 3.0],  # all of it outside
        [0.5, 0.5, 0.5, 0.5],  # no size at all
    ],
)
def test_samples_equal_a_loop_over_equations_4_and_5(box):
    features = torch.randn(1, 3, 6, 5, dtype=torch.float64)
    sampled = sample_box(features, torch.tensor([box], dtype=torch.float64), (4, 3))
    torch.testing.assert_close(sampled[0], sample_naively(features[0], box, (4, 3)), rtol=0, atol=1e-12)


def test_a_box_of_whole_cells_is_a_crop():
    features = torch.randn(2, 3, 8, 4)
    boxes = torch.tensor([[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.5, 0.5]])
    sampled = sample_box(features, boxes, (4, 2))
    torch.testing.assert_close(sampled[0], features[0, :, 4:8, 1:3])
    torch.testing.assert_close(sampled[1], features[1, :, 0:4, 0:2])


def test_gradients_of_features_and_boxes():
    features = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    # Sample positions off the cell centres, where the kernel has a kink.
    boxes = torch.tensor([[0.13, 0.07, 0.81, 0.97], [-0.21, 0.33, 0.59, 1.17]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, b: sample_box(f, b, (3, 2)), (features, boxes))


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
    boxes = torch.tensor([[0.25 + 1 / 1024, 0.0, 0.5 + 1 / 1024, 1.0]])
    exact = sample_box(features, boxes, (4, 16))
    torch.testing.assert_close(sample_box(features.bfloat16(), boxes, (4, 16)).float(), exact, rtol=0, atol=0.1)
