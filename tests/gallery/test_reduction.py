"""The bound against cosines in float64."""

import numpy as np
import pytest
from mgre.gallery import reduction
from mgre.gallery.reduction import MARGIN, find_directions, normalise, principal_directions, reduce_vectors


def bounds_and_cosines(vectors: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unit = normalise(vectors)
    reduced = reduce_vectors(unit, directions)
    return (reduced @ reduced.T).astype(np.float64), unit @ unit.T


@pytest.mark.parametrize(("dim", "count"), [(64, 15), (256, 63), (1024, 127)])
def test_the_bound_is_never_below_the_cosine(draw, dim, count):
    vectors = draw(400, dim)
    vectors[7] = vectors[3] * 2
    vectors[8] = -vectors[3]
    vectors[9] = 0
    directions = principal_directions(normalise(vectors), count)
    bounds, cosines = bounds_and_cosines(vectors, directions)
    assert (bounds + MARGIN >= cosines).all()
    assert np.abs(bounds[9]).max() == 0
    # It is of use: mostly near, and that of vectors in the directions' span is the cosine itself.
    assert np.median(bounds - cosines) < 0.2
    inside = (np.random.default_rng(1).standard_normal((200, count)) @ directions.T).astype(np.float32)
    bounds, cosines = bounds_and_cosines(inside, directions)
    assert np.abs(bounds - cosines).max() < 2 * MARGIN


def test_without_margin_and_rounding_up_the_bound_can_be_below(draw, monkeypatch):
    directions = principal_directions(normalise(draw(400, 64)), 15)
    inside = normalise((np.random.default_rng(1).standard_normal((300, 15)) @ directions.T).astype(np.float32))
    parts = (inside @ directions).astype(np.float32)
    assert ((parts @ parts.T).astype(np.float64) < inside @ inside.T).any()


def test_any_orthonormal_columns_give_a_bound(draw):
    vectors = draw(300, 64)
    columns = np.linalg.qr(np.random.default_rng(5).standard_normal((64, 20)))[0]
    bounds, cosines = bounds_and_cosines(vectors, columns)
    assert (bounds + MARGIN >= cosines).all() and np.median(bounds - cosines) > 0.01


def test_the_directions_are_those_of_most_energy():
    random = np.random.default_rng(0)
    columns = np.linalg.qr(random.standard_normal((100, 100)))[0]
    vectors = (random.standard_normal((5000, 100)) * np.r_[np.full(10, 5.0), np.full(90, 0.1)]) @ columns.T
    found = principal_directions(vectors, 10)
    assert np.linalg.norm(found.T @ columns[:, :10]) ** 2 == pytest.approx(10, abs=1e-3)
    assert np.allclose(found.T @ found, np.eye(10), atol=1e-12)


def test_vectors_without_principal_directions_get_none(draw):
    random = np.random.default_rng(0).standard_normal((3000, 256)).astype(np.float32)
    assert find_directions(random) is None
    assert find_directions(draw(3000, 256)).shape == (256, 63)
    assert find_directions(draw(3000, 32)) is None  # few numbers already
    assert find_directions(draw(20, 64)) is None
    assert find_directions(np.zeros((3000, 64), dtype=np.float32)) is None


def test_columns_that_are_not_orthonormal_are_refused(draw, monkeypatch):
    unit = normalise(draw(500, 64))
    assert principal_directions(unit, 15) is not None
    right = np.linalg.eigh
    monkeypatch.setattr(reduction.np.linalg, "eigh", lambda a: (right(a)[0], right(a)[1] * (1 + 1e-9)))
    assert principal_directions(unit, 15) is None
