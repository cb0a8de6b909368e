"""The search for the nearest against a full sort."""

import numpy as np
import pytest
from mgre.gallery.exact import cosines, full_estimates, full_margin, nearest
from mgre.gallery.reduction import normalise


@pytest.mark.parametrize("count", [1, 7, 2000, 5000])
@pytest.mark.parametrize("seed", range(3))
def test_estimates_with_errors_up_to_the_margin_lose_nothing(count, seed):
    random = np.random.default_rng(seed)
    truth = random.integers(0, 500, 3000) / 500  # with many ties
    # Estimates are too large by anything, and too small by at most the margin.
    estimates = (truth + random.uniform(-0.009, 0.3, truth.size)).astype(np.float32)
    left_out = random.random(truth.size) < 0.1
    estimates[left_out] = -np.inf
    places, found = nearest(estimates, lambda places: truth[places], count, margin=0.01, most=10**9)
    expected = [i for i in np.argsort(-truth, kind="stable") if not left_out[i]][:count]
    assert places.tolist() == expected and (found == truth[expected]).all()


def test_estimates_below_the_margin_would_be_seen():
    truth = np.linspace(0, 1, 3000)
    estimates = truth.astype(np.float32)
    estimates[-1] = 0.5  # the nearest
    assert 2999 not in nearest(estimates, lambda p: truth[p], 5, margin=0.01, most=10**9)[0]


def test_few_cosines_are_computed_where_the_estimates_are_good():
    truth, asked = np.random.default_rng(0).random(20_000), []

    def exact(places):
        asked.extend(places.tolist())
        return truth[places]

    nearest(truth.astype(np.float32), exact, 10, margin=1e-6, most=10**9)
    assert len(asked) == len(set(asked)) < 100
    flat = np.ones(20_000, dtype=np.float32)
    assert nearest(flat, exact, 10, margin=1e-6, most=500) is None


def test_cosines_are_the_same_bits_wherever_a_vector_stands(draw):
    vectors = draw(301, 777)
    vectors[300] = vectors[5]
    query = normalise(draw(1, 777, seed=1))[0]
    whole = cosines(vectors, np.arange(301), query)
    assert whole[300] == whole[5]
    assert cosines(vectors, np.array([300, 7]), query).tolist() == whole[[300, 7]].tolist()
    expected = [float(np.dot(v, query) / np.linalg.norm(v)) for v in vectors.astype(np.float64)]
    assert np.abs(whole - expected).max() < 1e-14


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e14])
def test_full_estimates_are_within_their_margin(draw, scale):
    vectors, queries = draw(500, 600) * np.float32(scale), normalise(draw(5, 600, seed=1))
    vectors[3] = 0
    estimates = full_estimates(vectors, queries)
    for query, row in zip(queries, estimates, strict=True):
        assert np.abs(row - cosines(vectors, np.arange(500), query)).max() <= full_margin(600)
    one = full_estimates(vectors, queries[:1])
    assert np.abs(one - estimates[:1]).max() <= full_margin(600)
