"""Re-ranking by k-reciprocal encoding (Zhong et al., CVPR 2017), on sparse arrays.

Each image is encoded by few other images, so no array of all pairs of images is needed.

Legend: N images, the Q queries first, then the G of the gallery; D the features' dimension, K neighbours.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse

from mgre.errors import DataError
from mgre.evaluation.distances import DistanceRows
from mgre.evaluation.neighbours import indicator, nearest_neighbours
from mgre.evaluation.pairs import row_numbers, squared_distances

# Number of queries that are compared with the gallery at a time. A query shares some ten thousand entries with it.
NUM_QUERIES = 256


def jaccard_rows(features: torch.Tensor, num_query: int, *, k1: int, k2: int) -> DistanceRows:
    """Jaccard distances of queries and gallery, as the toolbox's ``build_dist`` calls "jaccard".

    Args:
        features: (N, D), float32, on the device that searches.
        num_query: Q.
        k1: number of nearest images among which the k-reciprocal ones are found, the image itself counted.
            Above N it counts as N.
        k2: number of nearest images whose encodings are averaged; 1 for no averaging.

    Returns:
        (Q, G), from 0 to 1.
    """
    encoding = encode_images(features, k1=k1, k2=k2)
    return compare(encoding[:num_query], encoding[num_query:])


def encode_images(features: torch.Tensor, *, k1: int, k2: int) -> sparse.csr_array:
    """The encoding (N, N) of images by their features (N, D), see :func:`encode`.

    Raises:
        DataError: a feature is not a finite number.
    """
    finite = torch.isfinite(features).all(dim=1)
    if not finite.all():
        raise DataError(
            f"the features of image {int((~finite).nonzero()[0])} are NaN or infinite: look in the training log for a "
            "loss that grew without bound"
        )
    return encode(nearest_neighbours(features, k1), lambda pairs: squared_distances(features, pairs), k1=k1, k2=k2)


def encode(
    neighbours: np.ndarray, distances: Callable[[sparse.csr_array], np.ndarray], *, k1: int, k2: int
) -> sparse.csr_array:
    """The encoding of each image: its weights over a few images.

    Args:
        neighbours: (N, K), nearest first. The toolbox uses K = k1. With K = k1 + 1, as in the original code, the result
            is the original encoding.
        distances: from a sparse array (N, N) to the distances of the pairs at its entries, in their order.
        k1, k2: see :func:`jaccard_rows`.

    Returns:
        (N, N). Each row sums to 1, except for an image that is not its own neighbour, which happens to duplicates.
    """
    reciprocal = _reciprocal(neighbours[:, : k1 + 1])
    half = _reciprocal(neighbours[:, : int(np.around(k1 / 2)) + 1])
    # The neighbours of a neighbour join if more than two thirds of them are in the set already (the paper's Eq. 4).
    shared = (reciprocal @ half.T).multiply(reciprocal).tocsr()
    shared.data = (shared.data > 2 / 3 * np.diff(half.indptr)[shared.indices]).astype(np.int32)
    members = (reciprocal + shared @ half).tocsr()
    members.eliminate_zeros()
    members.sort_indices()

    encoding = sparse.csr_array(
        (_softmax(-distances(members), members.indptr), members.indices, members.indptr), shape=members.shape
    )
    if k2 != 1:
        nearest = indicator(neighbours[:, :k2])
        encoding = (nearest @ encoding) * np.float32(1 / nearest[[0]].nnz)
    return encoding


def compare(queries: sparse.csr_array, gallery: sparse.csr_array) -> DistanceRows:
    """1 - sum of minima / sum of maxima, of each query's encoding (Q, N) with each gallery image's encoding (G, N)."""
    by_member = gallery.tocsc()
    num_holders = np.diff(by_member.indptr)

    def overlap(part: sparse.csr_array) -> sparse.csr_array:
        """The sums of minima (P, G) of P queries (P, N) with the gallery."""
        # For each entry (query, member), all gallery images whose encodings have the same member.
        counts = num_holders[part.indices]
        at = np.arange(counts.sum()) + np.repeat(by_member.indptr[part.indices] - counts.cumsum() + counts, counts)
        minima = np.minimum(np.repeat(part.data, counts), by_member.data[at])
        query = np.repeat(row_numbers(part), counts)
        shape = part.shape[0], gallery.shape[0]
        return sparse.coo_array((minima, (query, by_member.indices[at])), shape=shape).tocsr()

    def rows(start: int, stop: int) -> np.ndarray:
        distances = np.ones((stop - start, gallery.shape[0]), dtype=np.float32)
        for first in range(start, stop, NUM_QUERIES):
            minima = overlap(queries[first : min(first + NUM_QUERIES, stop)])
            # Each encoding sums to 1, so sum of maxima = 2 - sum of minima. Rounding can give a negative distance.
            nearer = (1 - minima.data / (2 - minima.data)).clip(min=0)
            distances[first - start + row_numbers(minima), minima.indices] = nearer
        return distances

    return DistanceRows((queries.shape[0], gallery.shape[0]), rows)


def _reciprocal(neighbours: np.ndarray) -> sparse.csr_array:
    """(N, N) with ones where two images are among each other's ``neighbours`` (N, K)."""
    near = indicator(neighbours)
    return near.multiply(near.T).tocsr()


def _softmax(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Softmax of each run of ``values`` between two of ``starts``; runs may be empty."""
    filled = starts[:-1][np.diff(starts) > 0]
    lengths = np.diff(starts)[np.diff(starts) > 0]
    exponentials = np.exp(values - np.repeat(np.maximum.reduceat(values, filled), lengths))
    return exponentials / np.repeat(np.add.reduceat(exponentials, filled), lengths)
