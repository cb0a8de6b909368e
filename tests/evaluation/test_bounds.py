import numpy as np
import pytest
import torch
from mgre.evaluation.bounds import MARGIN, principal_directions, reduce_to, spread


def made(num_images: int, dim: int, power: float, scale: float = 1.0) -> torch.Tensor:
    """Features around a mean, whose energy falls with the number of the direction to this power."""
    generator = torch.Generator().manual_seed(num_images)
    fall = torch.arange(1, dim + 1) ** (-power / 2)
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator))[0]
    return scale * (torch.randn(num_images, dim, generator=generator) * fall + 1) @ rotation


def test_directions_are_those_of_the_singular_values():
    features = made(300, 40, power=2.0)
    directions = principal_directions(features, 6)
    torch.testing.assert_close(directions.T @ directions, torch.eye(6), rtol=0, atol=1e-5)
    energies = (features @ directions).square().sum(dim=0)
    expected = torch.linalg.svdvals(features.double())[:6].square().float()
    torch.testing.assert_close(energies.cumsum(0), expected.cumsum(0), rtol=0.02, atol=0)
    assert (energies.diff() < 0).all()
    assert (principal_directions(features, 6) == directions).all()


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_directions_are_the_same_at_any_scale(scale):
    features = made(300, 40, power=2.0)
    found, expected = principal_directions(scale * features, 6), principal_directions(features, 6)
    torch.testing.assert_close((found * expected).sum(dim=0).abs(), torch.ones(6), rtol=0, atol=1e-3)


def test_directions_of_zeros_are_orthonormal():
    directions = principal_directions(torch.zeros(20, 10), 3)
    torch.testing.assert_close(directions.T @ directions, torch.eye(3), rtol=0, atol=1e-5)


def test_directions_leave_the_random_state_alone():
    state = torch.get_rng_state()
    principal_directions(made(20, 10, 1.0), 3)
    assert (torch.get_rng_state() == state).all()


@pytest.mark.parametrize("power", [0.0, 1.4, 6.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("count", [1, 8, 30])
def test_products_lie_between_the_bounds(power, scale, count):
    features = made(60, 30, power, scale)
    features[7] = 0
    features[8] = features[9]
    directions = principal_directions(features, count)
    squares = features.square().sum(dim=1)
    reduced = reduce_to(features @ directions, squares)
    assert reduced.shape == (60, count + 1)
    x = features.double().numpy()
    products = x @ x.T
    q = reduced.double().numpy()
    margin = MARGIN * (squares.numpy()[:, None] + squares.numpy())
    upper, lower = q @ q.T, q[:, :-1] @ q[:, :-1].T - np.outer(q[:, -1], q[:, -1])
    assert (lower - margin <= products).all() and (products <= upper + margin).all()
    if count == 30:  # all directions: the bounds are the product
        assert (upper - lower <= 8 * margin).all()


def test_spread_takes_the_first_and_the_last():
    assert spread(torch.arange(100), 5).tolist() == [0, 24, 49, 74, 99]
    assert spread(torch.arange(3), 5).tolist() == [0, 1, 2]
