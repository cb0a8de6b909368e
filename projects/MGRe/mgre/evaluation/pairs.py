"""Inner products and distances of chosen pairs of images.

Legend: N images, D the features' dimension.
"""

import warnings

import numpy as np
import torch
from scipy import sparse

from mgre.evaluation.products import squared_norms, true_float32
from mgre.system.foreign_messages import SPARSE_TENSORS_ARE_BETA

# Numbers in a block of a device's memory, 256 MiB in float32, of which three are needed.
BLOCK_SIZE = 1 << 26


def row_numbers(array: sparse.csr_array) -> np.ndarray:
    """The row of each entry, in the order of the entries.

    Examples:
        >>> row_numbers(sparse.csr_array([[0, 5, 0], [0, 0, 0], [7, 0, 9]])).tolist()
        [0, 2, 2]
    """
    return np.repeat(np.arange(array.shape[0]), np.diff(array.indptr))


def pair_products(features: torch.Tensor, pairs: sparse.csr_array) -> np.ndarray:
    """x_i . x_j of the features (N, D) for each entry (i, j) of the sparse array ``pairs`` (N, N), in their order."""
    with true_float32(features.device):
        return _pairs_on_cpu(features, pairs) if features.device.type == "cpu" else _pairs_on_device(features, pairs)


def _pairs_on_cpu(features: torch.Tensor, pairs: sparse.csr_array) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", SPARSE_TENSORS_ARE_BETA)
        at = torch.sparse_csr_tensor(
            torch.from_numpy(pairs.indptr.astype(np.int64)),
            torch.from_numpy(pairs.indices.astype(np.int64)),
            torch.zeros(pairs.nnz),
            size=pairs.shape,
        )
        return torch.sparse.sampled_addmm(at, features, features.T, beta=0.0).values().numpy()


def _pairs_on_device(features: torch.Tensor, pairs: sparse.csr_array) -> np.ndarray:
    """Rows are copied and multiplied, ``BLOCK_SIZE`` numbers at a time; a GPU does that at its memory's speed."""
    both = row_numbers(pairs), pairs.indices
    rows, columns = (torch.from_numpy(numbers.astype(np.int64)).to(features.device) for numbers in both)
    products = features.new_empty(len(rows))
    step = max(1, BLOCK_SIZE // features.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        products[part] = (features[rows[part]] * features[columns[part]]).sum(dim=1)
    return products.cpu().numpy()


def squared_distances(features: torch.Tensor, pairs: sparse.csr_array) -> np.ndarray:
    """|x_i - x_j|^2 for each entry (i, j) of the sparse array ``pairs`` (N, N), in the order of the entries."""
    squares = squared_norms(features).cpu().numpy()
    return squares[row_numbers(pairs)] + squares[pairs.indices] - 2 * pair_products(features, pairs)
