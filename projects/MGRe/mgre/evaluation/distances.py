"""Distances between queries and gallery, a block of rows at a time.

Legend: Q queries, G gallery images, D the features' dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

# Numbers in a block of rows: 16 MiB in float32, few enough to stay small, many enough for a fast matrix product.
BLOCK_SIZE = 1 << 22


@dataclass(frozen=True)
class DistanceRows:
    """A (Q, G) matrix of which only a block of rows exists at a time.

    It stands in for the array in the toolbox's evaluator, which weights two matrices, adds them up and ranks the rows.
    ``numpy.asarray`` makes the whole array.

    Attributes:
        shape: (Q, G).
        rows: rows ``start`` to ``stop`` (stop - start, G), float32: a new array at each call.
    """

    shape: tuple[int, int]
    rows: Callable[[int, int], np.ndarray]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in turn, as the number of a block's first row and the block."""
        step = max(1, BLOCK_SIZE // max(1, self.shape[1]))
        for start in range(0, self.shape[0], step):
            yield start, self.rows(start, min(start + step, self.shape[0]))

    def __mul__(self, factor: float) -> DistanceRows:
        return DistanceRows(self.shape, lambda start, stop: self.rows(start, stop) * np.float32(factor))

    def __add__(self, other: DistanceRows) -> DistanceRows:
        return DistanceRows(self.shape, lambda start, stop: self.rows(start, stop) + other.rows(start, stop))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        whole = np.empty(self.shape, dtype=dtype or np.float32)
        for start, block in self.blocks():
            whole[start : start + len(block)] = block
        return whole


def cosine_rows(queries: torch.Tensor, gallery: torch.Tensor) -> DistanceRows:
    """1 - cosine of the angle between queries (Q, D) and gallery (G, D). A zero vector is at distance 1 of all."""
    queries, gallery = F.normalize(queries, dim=1), F.normalize(gallery, dim=1)
    return DistanceRows(
        (len(queries), len(gallery)), lambda start, stop: (1 - queries[start:stop] @ gallery.T).cpu().numpy()
    )


def euclidean_rows(queries: torch.Tensor, gallery: torch.Tensor) -> DistanceRows:
    """Squared Euclidean distances of queries (Q, D) and gallery (G, D), as the toolbox calls "euclidean"."""
    squares = gallery.square().sum(dim=1)

    def rows(start: int, stop: int) -> np.ndarray:
        block = queries[start:stop]
        sums = block.square().sum(dim=1, keepdim=True) + squares
        return torch.addmm(sums, block, gallery.T, alpha=-2).cpu().numpy()

    return DistanceRows((len(queries), len(gallery)), rows)
