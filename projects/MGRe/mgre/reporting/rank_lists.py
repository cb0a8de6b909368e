"""Which queries are shown, and what is in their rank lists.

Legend: Q queries. A query is named by its number, from 0 to Q - 1.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mgre.errors import DataError, nearest, printable
from mgre.evaluation.evaluator import Evaluation


@dataclass(frozen=True)
class RankedImage:
    """An image of a rank list.

    Attributes:
        path: of the image.
        camera: its number, from 1.
        distance: to the query, in the evaluation's metric.
        is_match: whether it shows the query's identity.
    """

    path: str
    camera: int
    distance: float
    is_match: bool


@dataclass(frozen=True)
class Order:
    """The gallery in one order, for one query.

    Attributes:
        images: the first images, nearest first.
        precision: average precision in %; NaN where the query has no match.
        first_rank: of the first match, from 1; 0 where the query has no match.
        first_match: the first match, where it comes after the ``images``.
    """

    images: list[RankedImage]
    precision: float
    first_rank: int
    first_match: RankedImage | None


@dataclass(frozen=True)
class RankList:
    """A query with its rank lists.

    Attributes:
        path: of the query's image.
        identity: its number.
        camera: its number, from 1.
        num_matches: gallery images of its identity from other cameras.
        orders: by "plain" and, where re-ranking is on, "re-ranked".
    """

    path: str
    identity: int
    camera: int
    num_matches: int
    orders: dict[str, Order]

    @property
    def paths(self) -> set[str]:
        """Of all images that are in it."""
        images = [image for order in self.orders.values() for image in (*order.images, order.first_match) if image]
        return {self.path, *(image.path for image in images)}


def rank_lists(evaluation: Evaluation, queries: Sequence[int], length: int) -> list[RankList]:
    """The rank lists of some queries, in their order, each of at most ``length`` images.

    An order is the one in which the evaluation has counted ranks: the query's images from its own camera are left out,
    and images at the same distance are in the gallery's order.
    """
    orders: dict[int, dict[str, Order]] = {query: {} for query in queries}
    for name, ranked in evaluation.orders.items():
        for query, images, distances in ranked.sorted_galleries(queries):
            first_rank = int(ranked.figures.first_ranks[query])
            ranks = [*range(min(length, len(images))), *([first_rank - 1] if first_rank > length else [])]
            shown = [
                RankedImage(
                    evaluation.gallery_paths[images[rank]],
                    int(ranked.gallery_camids[images[rank]]) + 1,
                    float(distances[rank]),
                    bool(ranked.gallery_pids[images[rank]] == ranked.query_pids[query]),
                )
                for rank in ranks
            ]
            precision = 100 * float(ranked.figures.precisions[query])
            first_match = shown.pop() if first_rank > length else None
            orders[query][name] = Order(shown, precision, first_rank, first_match)
    ranked = evaluation.final
    return [
        RankList(
            evaluation.query_paths[query],
            int(ranked.query_pids[query]),
            int(ranked.query_camids[query]) + 1,
            int(((ranked.gallery_pids == ranked.query_pids[query]) & ~ranked.is_junk(query)).sum()),
            orders[query],
        )
        for query in queries
    ]


def worst(evaluation: Evaluation, number: int) -> list[int]:
    """The queries of the lowest average precision, the lowest first; of equal ones the earlier query.

    The precision is that of the evaluation's figures: re-ranked, if re-ranking is on. Queries without a match have
    none, and are left out.
    """
    return _by_precision(evaluation)[:number].tolist()


def best(evaluation: Evaluation, number: int) -> list[int]:
    """The queries of the highest average precision, see :func:`worst`."""
    return _by_precision(evaluation, sign=-1)[:number].tolist()


def drawn(evaluation: Evaluation, number: int, seed: int) -> list[int]:
    """Queries with a match, drawn by chance without repetition, in the data set's order."""
    counted = np.flatnonzero(evaluation.final.figures.counted)
    # RandomState, whose numbers no later NumPy will change, unlike default_rng's.
    return sorted(np.random.RandomState(seed).permutation(counted)[:number].tolist())


def named(evaluation: Evaluation, names: Sequence[str]) -> list[int]:
    """The queries with these paths or file names; a file name may be that of several.

    Raises:
        DataError: a name is that of no query.
    """
    by_path: dict[str, list[int]] = {}
    by_name: dict[str, list[int]] = {}
    for query, path in enumerate(evaluation.query_paths):
        by_path.setdefault(os.path.realpath(path), []).append(query)
        by_name.setdefault(os.path.basename(path), []).append(query)
    found = []
    for name in names:
        queries = by_path.get(os.path.realpath(name)) or by_name.get(name)
        if queries is None:
            in_gallery = any(name in (path, os.path.basename(path)) for path in evaluation.gallery_paths)
            reason = " (it is an image of the gallery)" if in_gallery else nearest(os.path.basename(name), by_name)
            raise DataError(
                f"no query of {evaluation.name} is '{printable(name)}'{reason}; name a path or file name of one of its "
                f"{len(evaluation.query_paths)} query images, such as '{os.path.basename(evaluation.query_paths[0])}'"
            )
        found += queries
    return list(dict.fromkeys(found))


def _by_precision(evaluation: Evaluation, sign: int = 1) -> np.ndarray:
    figures = evaluation.final.figures
    counted = np.flatnonzero(figures.counted)
    return counted[np.argsort(sign * figures.precisions[counted], kind="stable")]
