"""Re-ranking of the first images of a search by k-reciprocal encoding, with the training stack's own code.

Legend: Q queries, P images of the pool, D the features' dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mgre.errors import SetupError


@dataclass(frozen=True)
class Rerank:
    """
    Attributes:
        first: how many of the nearest images of a query are re-ranked; more where more are asked for.
        k1, k2, weight: as TEST.RERANK.K1, K2 and LAMBDA: nearest images among which the k-reciprocal ones are found,
            nearest images whose encodings are averaged, and the share of the cosine distance in the result.
    """

    first: int = 100
    k1: int = 20
    k2: int = 6
    weight: float = 0.3


def rerank(
    queries: np.ndarray, vectors: np.ndarray, slots: Sequence[np.ndarray], options: Rerank
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Slots and re-ranked distances of each query's images, nearest first, ties by their slots.

    The pool in which images are encoded are all queries and all images that are near one of them. So what a query finds
    also depends on the queries that come with it, as in the evaluation. Where each query comes with all images of the
    gallery, distances and order are those of the evaluation, because the same functions get the same arrays.

    Args:
        queries: (Q, D), float32.
        vectors: of the gallery, float32, by slot.
        slots: of each query's images.

    Raises:
        SetupError: the training stack is not installed.
    """
    try:
        import torch
        from torch.nn import functional as F

        from mgre.evaluation.distances import cosine_rows
        from mgre.evaluation.reranking import jaccard_rows
    except ImportError as error:
        raise SetupError(
            f"re-ranking needs the training stack, and {error.name} is not installed: search without --rerank, or "
            "install mgre with the training stack"
        ) from error
    pool = np.unique(np.concatenate(slots)) if len(slots) else np.empty(0, dtype=np.int64)
    if not len(pool):
        return [(np.empty(0, dtype=np.int64), np.empty(0)) for _ in slots]
    query, gallery = torch.from_numpy(queries), torch.from_numpy(vectors[pool])
    both = torch.cat((F.normalize(query, dim=1), F.normalize(gallery, dim=1)))
    jaccard = jaccard_rows(both, len(query), k1=options.k1, k2=options.k2)
    rows = jaccard * (1 - options.weight) + cosine_rows(query, gallery) * options.weight
    found = []
    for start, block in rows.blocks():
        for own, distances in zip(slots[start : start + len(block)], block, strict=True):
            own = np.sort(own)
            distances = distances[np.searchsorted(pool, own)]
            order = np.argsort(distances, kind="stable")
            found.append((own[order], distances[order]))
    return found
