"""Distances between queries and gallery, a block of rows at a time, computed on the features' device.

Legend: Q queries, G gallery images, D the features' dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch.nn import functional as F

from mgre.evaluation.products import squared_norms, true_float32

# Numbers in a block of rows, 16 MiB in float32, unless the block would have fewer than MIN_ROWS rows.
BLOCK_SIZE = 1 << 22
# Least rows of a matrix product, and its columns. The product is slower with fewer rows, because it then waits for the
# gallery's data, and with more columns, which do not fit into the cache.
MIN_ROWS, TILE = 512, 2048


@dataclass(frozen=True)
class DistanceRows:
    """A (Q, G) matrix of which only a block of rows exists at a time.

    The toolbox's evaluator, which multiplies matrices by weights, adds them and ranks the rows, takes it in the place
    of an array. ``numpy.asarray`` makes the whole array.

    Attributes:
        shape: (Q, G).
        rows: from ``start`` and ``stop`` to the rows between them (stop - start, G), float32, a new array at each call.
    """

    shape: tuple[int, int]
    rows: Callable[[int, int], np.ndarray]

    @classmethod
    def of_array(cls, array: np.ndarray) -> DistanceRows:
        """The rows of a whole matrix (Q, G)."""
        return cls(array.shape, lambda start, stop: array[start:stop].copy())

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in turn, as the number of a block's first row and the block."""
        for start in range(0, self.shape[0], self._step):
            yield start, self._block(start)

    def of(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Some rows, each as its number and (G,).

        Each is cut out of its block of :meth:`blocks`, because a product of other rows may round in another way.

        Args:
            numbers: in ascending order.
        """
        for start, members in groupby(numbers, lambda number: number - number % self._step):
            block = self._block(start)
            yield from ((number, block[number - start]) for number in members)

    @property
    def _step(self) -> int:
        return max(MIN_ROWS, BLOCK_SIZE // max(1, self.shape[1]))

    def _block(self, start: int) -> np.ndarray:
        return self.rows(start, min(start + self._step, self.shape[0]))

    # __mul__ and __add__ change a block in place, because each call of ``rows`` gives a new array.
    def __mul__(self, factor: float) -> DistanceRows:
        def rows(start: int, stop: int) -> np.ndarray:
            block = self.rows(start, stop)
            block *= np.float32(factor)
            return block

        return DistanceRows(self.shape, rows)

    __rmul__ = __mul__

    def __add__(self, other: DistanceRows) -> DistanceRows:
        def rows(start: int, stop: int) -> np.ndarray:
            block = self.rows(start, stop)
            block += other.rows(start, stop)
            return block

        return DistanceRows(self.shape, rows)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        whole = np.empty(self.shape, dtype=dtype or np.float32)
        for start, block in self.blocks():
            whole[start : start + len(block)] = block
        return whole


def cosine_rows(queries: torch.Tensor, gallery: torch.Tensor) -> DistanceRows:
    """1 - cosine of the angle between queries (Q, D) and gallery (G, D). A zero vector is at distance 1 of all."""
    scales = -_inverse_norms(gallery)  # the products are scaled, because scaled features would be a second copy

    def rows(start: int, stop: int) -> np.ndarray:
        block = F.normalize(queries[start:stop], dim=1)
        return _products(block, gallery).mul_(scales).add_(1).cpu().numpy()

    return DistanceRows((len(queries), len(gallery)), rows)


def euclidean_rows(queries: torch.Tensor, gallery: torch.Tensor) -> DistanceRows:
    """Squared Euclidean distances of queries (Q, D) and gallery (G, D), as the toolbox calls "euclidean"."""
    squares = squared_norms(gallery)

    def rows(start: int, stop: int) -> np.ndarray:
        block = queries[start:stop]
        return _products(block, gallery).mul_(-2).add_(squares).add_(squared_norms(block)[:, None]).cpu().numpy()

    return DistanceRows((len(queries), len(gallery)), rows)


def _inverse_norms(features: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(features, dim=1).clamp(min=1e-12).reciprocal()  # the limit of F.normalize


def _products(queries: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
    """Inner products of queries (Q, D) and gallery (G, D), on their device: (Q, G)."""
    products = queries.new_empty(len(queries), len(gallery))
    with true_float32(queries.device):
        for start in range(0, len(gallery), TILE):
            columns = slice(start, start + TILE)
            torch.mm(queries, gallery[columns].T, out=products[:, columns])
    return products
