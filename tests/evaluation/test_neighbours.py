import inspect

import faiss
import numpy as np
import pytest
import torch
from faiss import gpu_wrappers
from mgre.evaluation import neighbours
from mgre.evaluation.neighbours import indicator, nearest_neighbours, pair_products, squared_distances


def random_features(num_images: int, dim: int = 8, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(num_images, dim, generator=torch.Generator().manual_seed(num_images))


@pytest.mark.parametrize("block", [3, 16, 50, 4096])
@pytest.mark.parametrize("k", [1, 7, 50])
def test_equals_sorting_all_distances(monkeypatch, block, k):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    features = random_features(50, scale=3.0)
    distances = (features[:, None].double() - features[None].double()).square().sum(-1)
    expected = distances.argsort(dim=1)[:, :k].numpy()
    np.testing.assert_array_equal(nearest_neighbours(features, k), expected)


def test_more_neighbours_than_images_are_all_images():
    found = nearest_neighbours(random_features(5), 20)
    assert found.shape == (5, 5)
    assert (np.sort(found, axis=1) == np.arange(5)).all()


def test_equal_distances_are_in_the_order_of_the_numbers(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 4)
    features = torch.tensor([[0.0], [1.0]]).repeat(6, 1)  # even numbers at 0, odd ones at 1
    found = nearest_neighbours(features, 12)
    even, odd = list(range(0, 12, 2)), list(range(1, 12, 2))
    assert found[4].tolist() == even + odd
    assert found[7].tolist() == odd + even


def test_the_search_on_a_gpu_is_faiss(monkeypatch):
    # What faiss-gpu offers, by the CPU's search of the same interface.
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    parameters = inspect.signature(gpu_wrappers.knn_gpu).parameters
    assert [*parameters][:4] == ["res", "xq", "xb", "k"]
    assert parameters["metric"].default == faiss.METRIC_L2

    def knn_gpu(resources, xq, xb, k, metric):
        return faiss.knn(xq, xb, k, metric=metric)

    monkeypatch.setattr(faiss, "knn_gpu", knn_gpu, raising=False)
    features = random_features(40)
    found = nearest_neighbours(features, 6), nearest_neighbours(features, 6, by_product=True)
    monkeypatch.undo()
    np.testing.assert_array_equal(found[0], nearest_neighbours(features, 6))
    np.testing.assert_array_equal(found[1], nearest_neighbours(features, 6, by_product=True))


@pytest.mark.parametrize("block", [16, 4096])
def test_by_product_equals_sorting_all_products(monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    features = random_features(50)
    expected = (-(features.double() @ features.double().T)).argsort(dim=1)[:, :7].numpy()
    np.testing.assert_array_equal(nearest_neighbours(features, 7, by_product=True), expected)


@pytest.mark.gpu
@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="needs faiss with CUDA and a GPU")
def test_a_gpu_finds_the_same():
    features = random_features(3000, 64)
    np.testing.assert_array_equal(nearest_neighbours(features, 20), neighbours._search_blocks(features, 20))


def test_products_and_distances_of_pairs():
    features = random_features(9)
    pairs = indicator(np.array([[i, (i + 2) % 9] for i in range(9)]))
    rows, columns = np.repeat(np.arange(9), 2), pairs.indices
    x = features.numpy().astype(np.float64)
    expected = [x[i] @ x[j] for i, j in zip(rows, columns, strict=True)]
    np.testing.assert_allclose(pair_products(features, pairs), expected, rtol=1e-5, atol=1e-6)
    expected = [((x[i] - x[j]) ** 2).sum() for i, j in zip(rows, columns, strict=True)]
    np.testing.assert_allclose(squared_distances(features, pairs), expected, rtol=1e-5, atol=1e-5)
