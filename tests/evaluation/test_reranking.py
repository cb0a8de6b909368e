import numpy as np
import pytest
import torch
from fastreid.evaluation.rerank import re_ranking
from fastreid.utils import compute_dist
from mgre.errors import DataError
from mgre.evaluation.neighbours import nearest_neighbours
from mgre.evaluation.pairs import squared_distances
from mgre.evaluation.reranking import compare, encode, encode_images, jaccard_rows
from torch.nn import functional as F

# The toolbox's own function, which the package replaces by the one under test.
toolbox_jaccard = compute_dist.compute_jaccard_distance.__wrapped__


def clustered(num_images: int, dim: int = 16, num_ids: int = 10, seed: int = 0, copies: int = 0) -> torch.Tensor:
    """Unit vectors around ``num_ids`` centres; the last ``copies`` of them are equal to the first."""
    generator = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(num_ids, dim, generator=generator), dim=1)
    labels = torch.randint(num_ids, (num_images,), generator=generator)
    features = F.normalize(centres[labels] + 0.2 * torch.randn(num_images, dim, generator=generator), dim=1)
    if copies:
        features[-copies:] = features[:copies].clone()
    return features


def toolbox_on(monkeypatch, neighbours: np.ndarray, features: torch.Tensor, k1: int, k2: int) -> np.ndarray:
    """The toolbox's distances (N, N) with these neighbour lists instead of those it would search for."""

    class Index:
        def add(self, vectors):
            pass

        def search(self, vectors, k):
            return None, neighbours

    monkeypatch.setattr(compute_dist, "index_init_cpu", lambda dim: Index())
    return toolbox_jaccard(features, k1, k2, search_option=3)


@pytest.mark.parametrize(
    ("num_images", "k1", "k2", "copies"),
    [
        (120, 20, 6, 0),
        (120, 20, 1, 0),  # no averaging
        (120, 5, 3, 0),
        (120, 1, 6, 0),  # nobody but oneself
        (120, 3, 20, 0),  # more to average than neighbours
        (60, 59, 6, 0),
        (60, 60, 60, 0),  # all are neighbours of all
        (120, 20, 6, 50),
        (120, 20, 1, 60),
        (2000, 20, 6, 100),
        (4200, 20, 6, 100),  # more than two blocks of the search, and than its sample
    ],
)
def test_equals_the_toolbox_on_the_same_neighbours(monkeypatch, num_images, k1, k2, copies):
    features = clustered(num_images, num_ids=max(4, num_images // 20), copies=copies)
    neighbours = nearest_neighbours(features, k1)
    expected = toolbox_on(monkeypatch, neighbours, features, k1, k2)
    num_query = num_images // 4
    rows = jaccard_rows(features, num_query, k1=k1, k2=k2)
    assert rows.shape == (num_query, num_images - num_query)
    found = np.asarray(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected[:num_query, num_query:], rtol=0, atol=1e-6)
    assert 0 <= found.min() < (0.5 if k1 > 1 else 1.1) and found.max() <= 1


def test_an_image_may_be_missing_among_its_own_neighbours(monkeypatch):
    # Of more copies than fit among the neighbours some are in no list, also not in their own.
    features = clustered(60, copies=0)
    features[30:] = features[30]
    neighbours = np.array([[*range(30, 36)] if i >= 30 else nearest_neighbours(features, 6)[i] for i in range(60)])
    expected = toolbox_on(monkeypatch, neighbours, features, 6, 3)
    encoding = encode(neighbours, lambda pairs: squared_distances(features, pairs), k1=6, k2=3)
    np.testing.assert_allclose(np.asarray(compare(encoding, encoding)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (7, 1), (4, 3)])
def test_equals_the_original_code_with_one_neighbour_more(k1, k2):
    features = clustered(150).numpy().astype(np.float64)
    num_query = 40
    dist = np.sqrt(np.maximum(((features[:, None] - features[None]) ** 2).sum(-1), 0))
    expected = re_ranking(
        dist[:num_query, num_query:], dist[:num_query, :num_query], dist[num_query:, num_query:], k1, k2, lambda_value=0
    )
    # The original scales each image's squared distances by the largest of them.
    scaled = (dist**2 / (dist**2).max(axis=1, keepdims=True)).astype(np.float32)
    neighbours = np.argsort(scaled, axis=1, kind="stable")[:, : k1 + 1]
    encoding = encode(neighbours, lambda pairs: scaled[pairs.nonzero()], k1=k1, k2=k2)
    found = np.asarray(compare(encoding[:num_query], encoding[num_query:]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_rows_come_out_the_same_in_any_blocks():
    rows = jaccard_rows(clustered(700), 600, k1=20, k2=6)
    whole = rows.rows(0, 600)
    np.testing.assert_array_equal(np.concatenate([rows.rows(0, 1), rows.rows(1, 299), rows.rows(299, 600)]), whole)
    np.testing.assert_array_equal(np.asarray(rows), whole)


def test_each_image_is_at_distance_0_of_itself_and_at_1_of_whom_it_shares_nobody_with():
    features = torch.cat((clustered(30, num_ids=1), -clustered(30, num_ids=1)))
    encoding = encode_images(features, k1=10, k2=3)
    distances = np.asarray(compare(encoding, encoding))
    np.testing.assert_allclose(np.diag(distances), 0, atol=1e-6)
    np.testing.assert_allclose(distances, distances.T, atol=1e-6)
    assert (distances[:30, 30:] == 1).all()
    np.testing.assert_allclose(encoding.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_told(value):
    features = clustered(30)
    features[11, 3] = value
    with pytest.raises(DataError, match="image 11 are NaN or infinite"):
        encode_images(features, k1=5, k2=2)
