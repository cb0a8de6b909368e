"""Exact nearest neighbours among all images, and inner products of chosen pairs.

Legend: N images, D the features' dimension, K neighbours.
"""

import warnings

import faiss
import numpy as np
import torch
from scipy import sparse

from mgre.evaluation.distances import squared_norms
from mgre.system.foreign_messages import SPARSE_TENSORS_ARE_BETA

# Images in a block: the products of two blocks are 16 MiB in float32.
BLOCK = 2048


def nearest_neighbours(features: torch.Tensor, k: int, *, by_product: bool = False) -> np.ndarray:
    """The K nearest images of each image by Euclidean distance, the image itself included, nearest first.

    The search is exact: all pairs are compared, in float32. With a GPU, faiss searches there. On the CPU each product
    of two blocks is used for the neighbours of both blocks, which was the fastest exact search measured
    (docs/evaluation.md).

    Args:
        features: (N, D), float32.
        k: K; if it is more than N, all images are neighbours.
        by_product: order by the inner product instead, the largest first.

    Returns:
        (N, K), int64. On the CPU, images at equal distances are in ascending order. If not all images at the K-th
        distance fit, which of them are returned is arbitrary.
    """
    k = min(k, len(features))
    if faiss.get_num_gpus() > 0:
        vectors = np.ascontiguousarray(features.cpu().numpy())
        metric = faiss.METRIC_INNER_PRODUCT if by_product else faiss.METRIC_L2
        return faiss.knn_gpu(faiss.StandardGpuResources(), vectors, vectors, k, metric=metric)[1]
    return _search_blocks(features, k, by_product=by_product)


def _search_blocks(features: torch.Tensor, k: int, *, by_product: bool = False) -> np.ndarray:
    # closeness(i, j) = x_i . x_j - |x_j|^2 / 2 = (|x_i|^2 - |x_i - x_j|^2) / 2 orders the j of an i like the distance.
    half_squares = torch.zeros(len(features)) if by_product else squared_norms(features) / 2
    closeness = torch.full((len(features), k), -torch.inf)
    neighbours = torch.zeros((len(features), k), dtype=torch.int64)

    def offer(rows: slice, columns: slice, products: torch.Tensor) -> None:
        best, index = torch.topk(products.sub_(half_squares[columns]), min(k, products.shape[1]))
        best = torch.cat((closeness[rows], best), dim=1)
        index = torch.cat((neighbours[rows], index + columns.start), dim=1)
        closeness[rows], kept = torch.topk(best, k)
        neighbours[rows] = index.gather(1, kept)

    blocks = [slice(start, min(start + BLOCK, len(features))) for start in range(0, len(features), BLOCK)]
    for number, rows in enumerate(blocks):
        for columns in blocks[number:]:
            products = features[rows] @ features[columns].T
            if rows != columns:
                offer(columns, rows, products.T.contiguous())
            offer(rows, columns, products)

    by_number = neighbours.argsort(dim=1)
    by_closeness = closeness.gather(1, by_number).argsort(dim=1, descending=True, stable=True)
    return neighbours.gather(1, by_number.gather(1, by_closeness)).numpy()


def indicator(columns: np.ndarray) -> sparse.csr_array:
    """(N, N) with ones at the K ``columns`` (N, K) of each row; the columns of a row are all different."""
    num_images, k = columns.shape
    starts = np.arange(0, num_images * k + 1, k)
    ones = np.ones(columns.size, dtype=np.int32)
    return sparse.csr_array((ones, columns.ravel(), starts), shape=(num_images, num_images))


def pair_products(features: torch.Tensor, pairs: sparse.csr_array) -> np.ndarray:
    """x_i . x_j of the features (N, D) for each entry (i, j) of the sparse array ``pairs`` (N, N), in their order."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", SPARSE_TENSORS_ARE_BETA)
        at = torch.sparse_csr_tensor(
            torch.from_numpy(pairs.indptr.astype(np.int64)),
            torch.from_numpy(pairs.indices.astype(np.int64)),
            torch.zeros(pairs.nnz),
            size=pairs.shape,
        )
        return torch.sparse.sampled_addmm(at, features, features.T, beta=0.0).values().numpy()


def squared_distances(features: torch.Tensor, pairs: sparse.csr_array) -> np.ndarray:
    """|x_i - x_j|^2 for each entry (i, j) of the sparse array ``pairs`` (N, N), in the order of the entries."""
    squares = squared_norms(features).numpy()
    rows = np.repeat(np.arange(len(squares)), np.diff(pairs.indptr))
    return squares[rows] + squares[pairs.indices] - 2 * pair_products(features, pairs)
