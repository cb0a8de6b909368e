"""Exact nearest neighbours among all images, by torch on any device, or by faiss on a GPU.

Legend: N images, D the features' dimension, K neighbours. The closeness of image j to image i is
x_i . x_j - |x_j|^2 / 2 = (|x_i|^2 - |x_i - x_j|^2) / 2, which orders the j of an i like the distance.
"""

import importlib
import logging
from functools import cache
from types import ModuleType

import numpy as np
import torch
from scipy import sparse

from mgre.evaluation.bounded_search import find_reduction, search_bounded
from mgre.evaluation.placement import placement
from mgre.evaluation.products import squared_norms, true_float32

logger = logging.getLogger(__name__)

# Images in a block on the CPU: the products of two blocks are 16 MiB in float32.
BLOCK = 2048
# Products in a block on another device: 1 GiB in float32. ``topk`` takes about as much again.
DEVICE_BLOCK_SIZE = 1 << 28
# The most neighbours that faiss finds on a GPU: its limit for the largest numbers of a row.
MOST_OF_FAISS = 2048


def nearest_neighbours(features: torch.Tensor, k: int, *, by_product: bool = False) -> np.ndarray:
    """The K nearest images of each image by Euclidean distance, the image itself included, nearest first.

    The search is exact and in float32, without TF32, on the features' device. On the CPU a bound leaves most pairs out
    where that pays (:mod:`mgre.evaluation.bounded_search`). Otherwise all pairs are compared; then each product of two
    blocks of images is used for the neighbours of both. On other devices a block of images is compared with all. With
    TEST.RERANK.SEARCH faiss it searches on a GPU; where it cannot, a warning says why, and torch searches.

    Args:
        features: (N, D), float32.
        k: K; if it is more than N, all images are neighbours.
        by_product: order by the inner product instead, the largest first.

    Returns:
        (N, K), int64. Images at equal distances are in any order, because their computed distances can differ by
        rounding; with torch, those at computed distances that are equal are in ascending order. If not all images at
        the K-th distance fit, which of them are returned is arbitrary.
    """
    k = min(k, len(features))
    if placement().search == "faiss" and (faiss := _faiss_for(k)) is not None:
        vectors = np.ascontiguousarray(features.cpu().numpy())
        metric = faiss.METRIC_INNER_PRODUCT if by_product else faiss.METRIC_L2
        return faiss.knn_gpu(faiss.StandardGpuResources(), vectors, vectors, k, metric=metric)[1]
    half_squares = features.new_zeros(len(features)) if by_product else squared_norms(features) / 2
    with true_float32(features.device):
        if features.device.type != "cpu":
            found = _search_on_device(features, half_squares, k)
        elif (reduced := find_reduction(features, half_squares, k)) is not None:
            found = search_bounded(features, half_squares, reduced, k)
        else:
            found = _search_blocks(features, half_squares, k)
    return _in_order(*found).cpu().numpy()


def _faiss_for(k: int) -> ModuleType | None:
    """faiss, or None and a warning where it cannot search K neighbours on a GPU."""
    if k > MOST_OF_FAISS:
        _warn_once(f"finds at most {MOST_OF_FAISS} neighbours on a GPU, not the {k} that the config asks for")
        return None
    return _load_faiss()


@cache
def _load_faiss() -> ModuleType | None:
    """faiss, or None and a warning where it is not installed, cannot be loaded, or sees no GPU; tried once."""
    try:
        faiss = importlib.import_module("faiss")
        if faiss.get_num_gpus() > 0 and hasattr(faiss, "knn_gpu"):
            return faiss
        problem = "sees no GPU"
    except (ImportError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "faiss":
            problem = "is not installed (pip install faiss-gpu)"
        else:  # a part of it is missing, or its CUDA libraries are, or they are of another version
            problem = f"cannot be loaded ({' '.join(str(error).split())})"
    _warn_once(problem)
    return None


@cache
def _warn_once(problem: str) -> None:
    """A query expansion or an evaluation during a training would else repeat it."""
    logger.warning("TEST.RERANK.SEARCH is faiss, but faiss %s: torch searches instead", problem)


def _search_on_device(features: torch.Tensor, half_squares: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Closeness and neighbours (N, K), with ``DEVICE_BLOCK_SIZE`` products at a time."""
    closeness = features.new_empty(len(features), k)
    neighbours = torch.empty_like(closeness, dtype=torch.int64)
    step = max(1, DEVICE_BLOCK_SIZE // max(1, len(features)))
    for start in range(0, len(features), step):
        rows = slice(start, start + step)
        products = features[rows] @ features.T
        closeness[rows], neighbours[rows] = products.sub_(half_squares).topk(k)
        del products  # or the next block's would be a second
    return closeness, neighbours


def _search_blocks(features: torch.Tensor, half_squares: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Closeness and neighbours (N, K), by one product for each two blocks."""
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
    return closeness, neighbours


def _in_order(closeness: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """``neighbours`` (N, K), the nearest first, and at equal closeness in ascending order."""
    by_number = neighbours.argsort(dim=1)
    by_closeness = closeness.gather(1, by_number).argsort(dim=1, descending=True, stable=True)
    return neighbours.gather(1, by_number.gather(1, by_closeness))


def indicator(columns: np.ndarray) -> sparse.csr_array:
    """(N, N) with ones at the K ``columns`` (N, K) of each row; the columns of a row are all different."""
    num_images, k = columns.shape
    starts = np.arange(0, num_images * k + 1, k)
    ones = np.ones(columns.size, dtype=np.int32)
    return sparse.csr_array((ones, columns.ravel(), starts), shape=(num_images, num_images))
