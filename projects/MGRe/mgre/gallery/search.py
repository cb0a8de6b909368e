"""The nearest vectors of a gallery's view: by the compact rows where there are some, else by all products.

Legend: N vectors (slots), D their dimension, B queries, K the number that is asked for.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from mgre.gallery.exact import cosines, full_estimates, full_margin, nearest
from mgre.gallery.reduction import MARGIN, reduce_vectors
from mgre.gallery.storage import View

# Estimates of a block of queries: 256 MiB.
BLOCK_NUMBERS = 1 << 26
# A smaller share of the vectors is gathered before it is compared; a larger one is picked from all estimates.
GATHERED = 1 / 8
# Cosines of single vectors that may be computed before all products cost less, as a share of the vectors.
MOST_COSINES = 1 / 32

Found = tuple[np.ndarray, np.ndarray]


def search(view: View, queries: np.ndarray, count: int, slots: np.ndarray | None) -> Iterator[Found]:
    """For each query the slots and cosines of its K nearest vectors; those at equal cosines by their slots.

    Args:
        queries: (B, D), float64, of norm 1.
        count: K; fewer are found where there are fewer.
        slots: ascending, the only ones to look at; None for all that are no holes.
    """
    total = len(view.vectors)
    if view.compact is None or view.directions is None:
        yield from _search_all(view, queries, count, slots)
        return
    few = slots if slots is not None and len(slots) <= GATHERED * total else None
    compact = view.compact if few is None else view.compact[few]
    step = max(1, BLOCK_NUMBERS // max(1, len(compact)))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        reduced = reduce_vectors(block, view.directions)
        estimates = (compact @ reduced[0])[None] if len(block) == 1 else reduced @ compact.T
        if few is None:
            _leave_out(estimates, view, slots)
        for query, row in zip(block, estimates, strict=True):
            exact = _exact(view.vectors, few, query)
            most = max(1024, 4 * count, int(MOST_COSINES * total))
            found = nearest(row, exact, count, margin=MARGIN, most=most)
            if found is None:
                (found,) = _search_all(view, query[None], count, slots)
            elif few is not None:
                found = few[found[0]], found[1]
            yield found


def _search_all(view: View, queries: np.ndarray, count: int, slots: np.ndarray | None) -> Iterator[Found]:
    """The same by products of all numbers."""
    margin = full_margin(view.vectors.shape[1])
    step = max(1, BLOCK_NUMBERS // max(1, len(view.vectors)))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        if slots is not None and len(slots) <= GATHERED * len(view.vectors):
            for query in block:
                values = cosines(view.vectors, slots, query)
                order = np.lexsort((slots, -values))[:count]
                yield slots[order], values[order]
            continue
        estimates = full_estimates(view.vectors, block)
        _leave_out(estimates, view, slots)
        for query, row in zip(block, estimates, strict=True):
            found = nearest(row, _exact(view.vectors, None, query), count, margin=margin, most=len(view.vectors))
            assert found is not None  # all may be computed
            yield found


def _leave_out(estimates: np.ndarray, view: View, slots: np.ndarray | None) -> None:
    """Put minus infinity where no vector may be found: (B, N)."""
    if slots is None:
        estimates[:, view.holes] = -np.inf
    else:
        left_out = np.ones(estimates.shape[1], dtype=bool)
        left_out[slots] = False
        estimates[:, left_out] = -np.inf


def _exact(vectors: np.ndarray, slots: np.ndarray | None, query: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    if slots is None:
        return partial(cosines, vectors, query=query)
    return lambda places: cosines(vectors, slots[places], query)
