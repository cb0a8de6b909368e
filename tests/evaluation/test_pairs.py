import numpy as np
import pytest
import torch
from mgre.evaluation import pairs as pairs_module
from mgre.evaluation.neighbours import indicator
from mgre.evaluation.pairs import pair_products, squared_distances


@pytest.mark.parametrize("block_size", [8, 40, 1 << 26])
def test_products_and_distances_of_pairs(monkeypatch, block_size):
    monkeypatch.setattr(pairs_module, "BLOCK_SIZE", block_size)
    features = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    pairs = indicator(np.array([[i, (i + 2) % 9] for i in range(9)]))
    rows, columns = np.repeat(np.arange(9), 2), pairs.indices
    x = features.numpy().astype(np.float64)
    expected = [x[i] @ x[j] for i, j in zip(rows, columns, strict=True)]
    for function in (pair_products, pairs_module._pairs_on_device):
        np.testing.assert_allclose(function(features, pairs), expected, rtol=1e-5, atol=1e-6)
    expected = [((x[i] - x[j]) ** 2).sum() for i, j in zip(rows, columns, strict=True)]
    np.testing.assert_allclose(squared_distances(features, pairs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_products_of_pairs_on_a_gpu():
    features = torch.randn(200, 2048, generator=torch.Generator().manual_seed(0))
    pairs = indicator(np.array([[i, (i + 2) % 200] for i in range(200)]))
    found, expected = pair_products(features.cuda(), pairs), pair_products(features, pairs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)
