"""CMC, average precision and inverse negative penalty by the Market-1501 protocol.

For each query, the gallery images of its identity from its own camera are left out (junk). The other images of its
identity are the matches. All figures follow from the ranks of the matches, and a rank follows from the number of nearer
images. So no row of distances is sorted.

Legend: Q queries, G gallery images, B queries of a block, P matches of a block's queries together.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from mgre.errors import DataError
from mgre.evaluation.distances import DistanceRows

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

# Number of distances that are ranked together, few enough for the processor's cache.
CACHED_SIZE = 1 << 20


@dataclass(frozen=True)
class QueryFigures:
    """The figures of each query, (Q,). A query without a match has rank 0, and NaN otherwise.

    Attributes:
        first_ranks: rank of the first match, from 1.
        precisions: average precision.
        penalties: inverse negative penalty (Ye et al., TPAMI 2021).
    """

    first_ranks: np.ndarray
    precisions: np.ndarray
    penalties: np.ndarray

    @property
    def counted(self) -> np.ndarray:
        """(Q,) bool: the queries that have a match, and so count."""
        return self.first_ranks > 0

    def cmc(self, max_rank: int) -> np.ndarray:
        """The CMC curve (max_rank,) as float32 in [0, 1], of which there is one where a query has a match."""
        first_ranks = self.first_ranks[self.counted]
        hits = np.bincount(first_ranks, minlength=max_rank + 1)[1 : max_rank + 1]
        return hits.cumsum().astype(np.float32) / np.float32(first_ranks.size)


def eval_market1501(
    distmat: np.ndarray | DistanceRows,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
    max_rank: int = 50,
) -> tuple[np.ndarray, list[float], list[float]]:
    """The figures of the Market-1501 protocol (Zheng et al., ICCV 2015), like the toolbox's function of this name.

    There are two differences. If a query has fewer than ``max_rank`` gallery images besides its junk, the toolbox's
    function stops or cuts the curve; here the query is ranked among these images, and the curve keeps its last value.
    Images at the same distance are ranked in the gallery's order; in the toolbox an unstable sort decides.

    Args:
        distmat: (Q, G) distances, less is nearer. :class:`DistanceRows` are computed block by block.
        q_pids: (Q,) identities of the queries; ``g_pids``: (G,) of the gallery.
        q_camids: (Q,) cameras of the queries; ``g_camids``: (G,) of the gallery.
        max_rank: length of the curve.

    Returns:
        The CMC curve (max_rank,) as float32 in [0, 1]; the average precision of each query with a match; and the
        inverse negative penalty (Ye et al., TPAMI 2021) of each query with a match. The number of queries without a
        match is logged.

    Raises:
        DataError: no query has a match, or a distance is not a number.
    """
    figures = query_figures(distmat, q_pids, g_pids, q_camids, g_camids)
    num_queries, num_counted = distmat.shape[0], int(figures.counted.sum())
    if not num_counted:
        raise DataError(
            "no query has a match: no gallery image shows a query's identity from another camera; "
            "check the identities and cameras of the query and gallery images"
        )
    if num_counted < num_queries:
        logger.info(
            "%d of %d queries have no match in the gallery and are not counted", num_queries - num_counted, num_queries
        )
    if (notes := _notes.get()) is not None:
        rows = distmat if isinstance(distmat, DistanceRows) else DistanceRows.of_array(distmat)
        labels = {"query_pids": q_pids, "gallery_pids": g_pids, "query_camids": q_camids, "gallery_camids": g_camids}
        arrays = {name: np.asarray(values) for name, values in labels.items()}
        notes.append(Ranked(distances=rows, figures=figures, **arrays))
    counted = figures.counted
    return figures.cmc(max_rank), figures.precisions[counted].tolist(), figures.penalties[counted].tolist()


def query_figures(
    distmat: np.ndarray | DistanceRows,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
) -> QueryFigures:
    """The figures of each query, see :func:`eval_market1501`.

    Raises:
        DataError: a distance is not a number.
    """
    q_pids, q_camids = np.asarray(q_pids), np.asarray(q_camids)
    gallery = _Gallery(np.asarray(g_pids), np.asarray(g_camids))

    def rank_rows(start: int, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _check_numbers(block, start)
        queries = slice(start, start + len(block))
        return _match_ranks(block, *gallery.members(q_pids[queries], q_camids[queries]))

    num_queries = distmat.shape[0]
    first_ranks = np.zeros(num_queries, dtype=np.int64)
    precisions, penalties = np.full((2, num_queries), np.nan)
    start = 0
    for ranks, counts in _map_rows(rank_rows, distmat):
        queries, counts, start = start + np.flatnonzero(counts), counts[counts > 0], start + len(counts)
        if not counts.size:
            continue
        starts = counts.cumsum() - counts
        found = np.arange(1, ranks.size + 1) - np.repeat(starts, counts)  # 1 to the number of matches, of each query
        first_ranks[queries] = ranks[starts]
        precisions[queries] = np.add.reduceat(found / ranks, starts) / counts
        penalties[queries] = counts / ranks[starts + counts - 1]
    return QueryFigures(first_ranks, precisions, penalties)


@dataclass(frozen=True)
class Ranked:
    """What :func:`eval_market1501` has ranked, and what it found.

    Attributes:
        distances: (Q, G), less is nearer.
        query_pids, query_camids: (Q,), identities and cameras.
        gallery_pids, gallery_camids: (G,).
        figures: of each query.
    """

    distances: DistanceRows
    query_pids: np.ndarray
    gallery_pids: np.ndarray
    query_camids: np.ndarray
    gallery_camids: np.ndarray
    figures: QueryFigures

    def is_junk(self, query: int) -> np.ndarray:
        """(G,) bool: the images that are left out for this query: of its identity, from its own camera."""
        same = self.gallery_pids == self.query_pids[query]
        return same & (self.gallery_camids == self.query_camids[query])

    def sorted_galleries(self, queries: Iterable[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """The gallery in the order that the figures were counted in, for some queries, in ascending order.

        Junk is left out. Images at the same distance are in the gallery's order.

        Yields:
            The query's number, the numbers of the gallery images, nearest first, and their distances.
        """
        for query, row in self.distances.of(sorted(set(queries))):
            kept = np.flatnonzero(~self.is_junk(query))
            images = kept[np.argsort(row[kept], kind="stable")]
            yield query, images, row[images]


_notes: ContextVar[list[Ranked] | None] = ContextVar("notes", default=None)


@contextmanager
def noting() -> Iterator[list[Ranked]]:
    """While this lasts, what :func:`eval_market1501` ranks is appended to the list that this gives.

    The toolbox's evaluator makes the distances and passes them to that function, so its caller never sees them.
    """
    notes: list[Ranked] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


class _Gallery:
    """The gallery's images by identity.

    Args:
        pids, camids: (G,), identities and cameras.
    """

    def __init__(self, pids: np.ndarray, camids: np.ndarray) -> None:
        self._camids = camids
        self._by_pid = np.argsort(pids, kind="stable")
        self._sorted_pids = pids[self._by_pid]

    def members(self, pids: np.ndarray, camids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The gallery images with the identities of B queries: their rows (queries) and columns (gallery images), in
        ascending order, and whether they are junk.

        Args:
            pids, camids: (B,), identities and cameras of the queries.
        """
        first = np.searchsorted(self._sorted_pids, pids, side="left")
        counts = np.searchsorted(self._sorted_pids, pids, side="right") - first
        rows = np.repeat(np.arange(len(pids)), counts)
        columns = self._by_pid[np.arange(rows.size) + np.repeat(first - counts.cumsum() + counts, counts)]
        return rows, columns, self._camids[columns] == camids[rows]


def _match_ranks(
    block: np.ndarray, rows: np.ndarray, columns: np.ndarray, junk: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ranks (P,) of the matches, from 1 and ascending in each row, and the number of matches (B,) of each row.

    Args:
        block: (B, G) distances.
        rows, columns, junk: the images of each query's identity, see :meth:`_Gallery.members`.
    """
    num_rows, num_columns = block.shape
    block = block.reshape(-1)
    matches = (rows * num_columns + columns)[~junk]
    counts = np.bincount(matches // num_columns, minlength=num_rows)
    ends = counts.cumsum()
    distances = block[matches]
    distances = distances[np.lexsort((distances, matches // num_columns))]

    # Images beyond the farthest match do not change any rank, so only the nearer ones are looked at.
    farthest = np.zeros(num_rows, dtype=block.dtype)
    farthest[counts > 0] = distances[ends[counts > 0] - 1]
    is_near = block.reshape(num_rows, num_columns) <= farthest[:, None]
    is_near[rows[junk], columns[junk]] = False
    is_near[counts == 0] = False
    near = np.flatnonzero(is_near)
    near_distances = block[near]
    near_ends = np.searchsorted(near, np.arange(1, num_rows + 1) * num_columns)

    # For each near image, the position of the first match at the same distance or farther.
    slots = np.empty(near.size, dtype=np.int64)
    for own, others in zip(_slices(ends), _slices(near_ends), strict=True):
        slots[others] = np.searchsorted(distances[own], near_distances[others]) + own.start
    # Near images at exactly a match's distance, the matches included, are ordered by their place in the gallery. All
    # others are counted as nearer than the match at their position.
    tied = distances[slots] == near_distances
    nearer = np.bincount(slots[~tied], minlength=distances.size).cumsum()
    among = near[tied]
    among = among[np.lexsort((among, near_distances[tied], among // num_columns))]
    within = np.flatnonzero(np.isin(among, matches))

    ranks = nearer + within + 1
    # `nearer` and `within` are cumulative over all rows. The near images of the rows before are subtracted.
    before = near_ends - np.diff(near_ends, prepend=0)
    return ranks - np.repeat(before, counts), counts


def _slices(ends: np.ndarray) -> Iterator[slice]:
    start = 0
    for end in ends.tolist():
        yield slice(start, end)
        start = end


def _map_rows(function: Callable[[int, np.ndarray], _T], distmat: np.ndarray | DistanceRows) -> Iterator[_T]:
    """``function`` of the first row's number and the rows, for a few rows at a time, in the order of the rows."""
    step = max(1, CACHED_SIZE // max(1, distmat.shape[1]))
    # One thread for each core, because numpy's loops release Python's lock.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start, block in distmat.blocks() if isinstance(distmat, DistanceRows) else [(0, distmat)]:
            firsts = range(0, len(block), step)
            yield from pool.map(
                function, (start + first for first in firsts), (block[first : first + step] for first in firsts)
            )


def _check_numbers(block: np.ndarray, start: int) -> None:
    # The minimum is NaN if any number is, and takes less time than a test of each number.
    if block.size and np.isnan(block.min()):
        query = start + int(np.isnan(block).any(axis=1).argmax())
        raise DataError(
            f"the distances of query {query} are not numbers: the model's features are NaN, "
            "so look in the training log for a loss that grew without bound"
        )
