"""Exact nearest neighbours, where most pairs of images are left out by a bound of their distance.

Legend: N images, D the features' dimension, K neighbours, B images of a block, P pairs. The closeness of image j to
image i is x_i . x_j - h_j, with h_j = |x_j|^2 / 2 for the order by distance, or 0 for the order by product.
"""

from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from torch.nn import functional as F

from mgre.evaluation.bounds import MARGIN, MOST_NUMBERS, principal_directions, reduce_to, spread
from mgre.evaluation.pairs import pair_products, row_numbers
from mgre.evaluation.products import squared_norms

# With fewer images than these the search does not pay for its preparation.
MIN_IMAGES = 8192
# Numbers of directions to choose from, and images whose neighbours are found by all products to choose with.
DIRECTIONS, SAMPLED_ROWS = (64, 128, 256), 64
# Images of a block, whose products, 4 MiB, stay in the cache. Pairs after which the gathered ones' products are
# computed. The last two blocks can add as many again as a block has products. With all that is computed from it, a pair
# takes some 170 bytes at most, so all of them 0.36 GB.
BLOCK, PAIRS = 1024, 1 << 20
# What a pair that the bound leaves costs, in multiplications of the bound. Measured: one of its D multiplications takes
# as long as 23 of a matrix product, because its features have to come from memory; and while the neighbours are
# being found, the bound leaves 4 to 5 times the pairs that it leaves in the end.
COST_OF_LEFT = 100


def find_reduction(features: torch.Tensor, half_squares: torch.Tensor, k: int) -> torch.Tensor | None:
    """[p, |r|] (N, d + 1) of :mod:`mgre.evaluation.bounds` for the search, or None where all products cost less.

    A sample of images decides, by the share of all images that the bound leaves for them. Features without principal
    directions, like random ones, get None, and so do features of which most are equal. So do, before the sample is
    taken: fewer than ``MIN_IMAGES`` images, K above a fourth of ``BLOCK``, D at most twice the fewest ``DIRECTIONS`` or
    above ``MOST_NUMBERS``, and features that are not finite or whose squared norms are not.

    Args:
        features: (N, D), float32, on the CPU.
        half_squares: (N,), the h_j.
        k: K.
    """
    num_images, dim = features.shape
    squares = squared_norms(features)
    if num_images < MIN_IMAGES or not 2 * DIRECTIONS[0] < dim <= MOST_NUMBERS or k > BLOCK // 4:
        return None
    if not squares.isfinite().all():
        return None
    counts = [count for count in DIRECTIONS if count <= dim // 2]
    parts = features @ principal_directions(features, counts[-1])
    rows = spread(torch.arange(num_images), SAMPLED_ROWS)
    kth = (features[rows] @ features.T).sub_(half_squares).topk(k).values[:, -1:] - MARGIN * squares[rows, None]

    costs = {}
    for count in counts:
        reduced = reduce_to(parts[:, :count], squares)
        left = (reduced[rows] @ reduced.T).sub_(half_squares).add_(MARGIN * squares) >= kth
        costs[count] = count + COST_OF_LEFT * dim * float(left.float().mean())
    best = min(counts, key=costs.__getitem__)
    # Half of all multiplications: the rest of the search takes as long as some hundred of them.
    return reduce_to(parts[:, :best], squares) if costs[best] < dim / 2 else None


def search_bounded(
    features: torch.Tensor, half_squares: torch.Tensor, reduced: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The K nearest images of each image, those of :func:`mgre.evaluation.neighbours.nearest_neighbours`.

    Proof. Let t_i be a number that K images reach by their closeness to i. An image j that is among the K nearest of i
    reaches the closeness of the K-th, which is at least t_i: x_i . x_j - h_j >= t_i. The product of the reduced i and j
    is at least x_i . x_j. So j can be a neighbour of i only if

        reduced_i . reduced_j - h_j >= t_i,    that is    reduced_i . reduced_j - h_i - h_j >= t_i - h_i,

    and i one of j only if the same number is at least t_j - h_j. Both are asked with one comparison, with the smaller
    of the two thresholds. Of the pairs that are left, the products are computed, and the K nearest so far of both
    images follow. Their K-th gives the next, larger t_i. ``bounds.MARGIN`` covers rounding.

    The first t_i come from all products of a block of similar images. The blocks are then compared with the next, those
    with the one after the next, and so on, so that all t_i grow alike.

    Args:
        features: (N, D), float32, on the CPU.
        half_squares: (N,), the h_j.
        reduced: (N, d + 1), of :func:`find_reduction`.
        k: K, at most a fourth of ``BLOCK``.

    Returns:
        Closeness (N, K), and neighbours (N, K), in no order.
    """
    num_images = len(features)
    order = _similar_together(features)
    # Here images are named by their place in this order. Then the pairs of two blocks are near each other in memory,
    # and their products take half the time. This is a copy of the features.
    features, half_squares, reduced = features[order], half_squares[order], reduced[order]
    ends = torch.linspace(0, num_images, -(-num_images // BLOCK) + 1).long().tolist()
    blocks = [slice(start, stop) for start, stop in pairwise(ends)]
    nearest = _Nearest(features, half_squares, blocks, k)

    left, right = _sides(features, half_squares, reduced)
    del reduced

    bounds, thresholds = torch.empty(2, BLOCK * BLOCK)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for distance in range(1, len(blocks) // 2 + 1):
        # Half way round, a block and its partner would meet twice.
        for number in range(len(blocks) if 2 * distance < len(blocks) else len(blocks) // 2):
            rows, columns = blocks[number], blocks[(number + distance) % len(blocks)]
            shape = rows.stop - rows.start, columns.stop - columns.start
            bound, threshold = (a[: shape[0] * shape[1]].view(shape) for a in (bounds, thresholds))
            torch.mm(left[rows], right[columns].T, out=bound)
            torch.minimum(nearest.least[rows, None], nearest.least[None, columns], out=threshold)
            row, column = np.divmod(np.flatnonzero((bound >= threshold).numpy()), shape[1])
            found.append((row + rows.start, column + columns.start))
            if sum(len(part) for part, _ in found) > PAIRS:
                nearest.offer(*_take(found))
    if found:
        nearest.offer(*_take(found))

    closeness, neighbours = torch.empty_like(nearest.closeness), torch.empty_like(nearest.neighbours)
    closeness[order], neighbours[order] = nearest.closeness, order[nearest.neighbours]
    return closeness, neighbours


def _sides(
    features: torch.Tensor, half_squares: torch.Tensor, reduced: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two arrays (N, d + 3). The product of a row i of one and a row j of the other is at least x_i . x_j - h_i - h_j.

    Both images' h, less the margin for rounding, are two more numbers of the products.
    """
    lowered = half_squares - MARGIN * squared_norms(features)
    own = torch.stack((torch.ones(len(features)), -lowered), dim=1)
    return torch.cat((reduced, own), dim=1), torch.cat((reduced, own.flip(1)), dim=1)


def _take(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All rows and columns of ``found``, which is empty afterwards."""
    rows, columns = (np.concatenate(part) for part in zip(*found, strict=True))
    found.clear()
    return rows, columns


def _similar_together(features: torch.Tensor) -> torch.Tensor:
    """An order (N,) of the images by the one of a few of them to which each is nearest: two for a block."""
    landmarks = spread(features, 2 * len(features) // BLOCK)
    closeness = (features @ landmarks.T).sub_(squared_norms(landmarks) / 2)
    return closeness.argmax(dim=1).argsort(stable=True)


def _largest_of_each_row(array: sparse.csr_array, count: int) -> sparse.csr_array:
    """The array without the entries of a row that are not among its ``count`` largest."""
    rows = row_numbers(array)
    crowded = np.flatnonzero(np.diff(array.indptr)[rows] > count)
    if not crowded.size:
        return array
    rows_of_crowded = rows[crowded]  # in ascending order, which the sorting keeps
    order = crowded[np.lexsort((-array.data[crowded], rows_of_crowded))]
    rank = np.arange(order.size) - np.searchsorted(rows_of_crowded, rows_of_crowded)
    keep = np.ones(array.nnz, dtype=bool)
    keep[order[rank >= count]] = False
    return sparse.coo_array((array.data[keep], (rows[keep], array.indices[keep])), shape=array.shape).tocsr()


class _Nearest:
    """The K nearest images so far.

    Attributes:
        closeness, neighbours: (N, K), the largest closeness first.
        least: (N,), t_i - h_i.
    """

    def __init__(self, features: torch.Tensor, half_squares: torch.Tensor, blocks: list[slice], k: int) -> None:
        """The nearest of each image in its own block.

        Args:
            features: (N, D).
            half_squares: (N,), the h_j.
            blocks: of images, all together.
            k: K, at most the images of a block.
        """
        self._features, self._half_squares, self._blocks = features, half_squares, blocks
        self.closeness = torch.empty(len(features), k)
        self.neighbours = torch.empty(len(features), k, dtype=torch.int64)
        for block in blocks:
            products = features[block] @ features[block].T
            self.closeness[block], index = products.sub_(half_squares[block]).topk(k)
            self.neighbours[block] = index + block.start
        self.least = self.closeness[:, -1] - half_squares

    def offer(self, rows: np.ndarray, columns: np.ndarray) -> None:
        """Compute the products of P different pairs, and keep what is nearer than what is there."""
        half_squares, kth = self._half_squares.numpy(), self.closeness[:, -1].numpy()
        shape = len(half_squares), len(half_squares)
        pairs = sparse.coo_array((np.arange(rows.size), (rows, columns)), shape=shape).tocsr()
        rows, columns = rows[pairs.data], columns[pairs.data]
        products = pair_products(self._features, pairs)
        to_row, to_column = products - half_squares[columns], products - half_squares[rows]
        nearer_to_row, nearer_to_column = to_row > kth[rows], to_column > kth[columns]
        closeness = np.concatenate((to_row[nearer_to_row], to_column[nearer_to_column]))
        images = np.concatenate((rows[nearer_to_row], columns[nearer_to_column]))
        others = np.concatenate((columns[nearer_to_row], rows[nearer_to_column]))

        # No image has room for more than K, so that an image that is near to very many does not fill the memory.
        new = _largest_of_each_row(
            sparse.coo_array((closeness, (images, others)), shape=shape).tocsr(), self.closeness.shape[1]
        )
        counts, images = np.diff(new.indptr), row_numbers(new)
        places = np.arange(new.nnz) - np.repeat(new.indptr[:-1], counts) + self.closeness.shape[1]
        for block in self._blocks:
            room = (0, int(counts[block].max()))
            if room == (0, 0):
                continue
            entries = slice(new.indptr[block.start], new.indptr[block.stop])
            at = images[entries] - block.start, places[entries]
            candidates = F.pad(self.closeness[block], room, value=-torch.inf)
            neighbours = F.pad(self.neighbours[block], room)
            candidates.numpy()[at], neighbours.numpy()[at] = new.data[entries], new.indices[entries]
            self.closeness[block], kept = candidates.topk(self.closeness.shape[1])
            self.neighbours[block] = neighbours.gather(1, kept)
        self.least = self.closeness[:, -1] - self._half_squares
