"""CMC, average precision and inverse negative penalty by the Market-1501 protocol.

For each query, the gallery images of its identity from its own camera are left out. Of the others, those of its
identity are the matches. All figures follow from the matches' ranks alone, and a rank is a count of the images that are
nearer: no row of distances is ever sorted.

Legend: Q queries, G gallery images, P matches of one query.
"""

import numpy as np

from mgre.errors import DataError


def eval_market1501(
    distmat: np.ndarray,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
    max_rank: int = 50,
) -> tuple[np.ndarray, list[float], list[float]]:
    """The figures of the Market-1501 protocol (Zheng et al., ICCV 2015), as the toolbox's function of this name.

    It differs from the toolbox's where that stops: a query with fewer than ``max_rank`` gallery images left to rank is
    ranked among those, and the curve stays at its last value beyond them. Images at the same distance are ranked in the
    gallery's order; the toolbox leaves their order to an unstable sort.

    Args:
        distmat: (Q, G) distances, less is nearer.
        q_pids: (Q,) identities of the queries; ``g_pids``: (G,) of the gallery.
        q_camids: (Q,) cameras of the queries; ``g_camids``: (G,) of the gallery.
        max_rank: length of the curve.

    Returns:
        The CMC curve (max_rank,) as float32 in [0, 1], the average precision of each query that has a match, and its
        inverse negative penalty (Ye et al., TPAMI 2021), both in the queries' order.

    Raises:
        DataError: no query has a match, or a distance is not a number.
    """
    first_ranks, precisions, penalties = [], [], []
    for query, row in enumerate(distmat):
        ranks = _match_ranks(row, g_pids == q_pids[query], g_camids == q_camids[query])
        if ranks is None:
            raise DataError(
                f"the distances of query {query} are not numbers: the model's features are NaN, "
                "so look in the training log for a loss that grew without bound"
            )
        if ranks.size:
            counts = np.arange(1, ranks.size + 1)
            first_ranks.append(ranks[0])
            precisions.append(float(np.mean(counts / ranks)))
            penalties.append(float(ranks.size / ranks[-1]))
    if not first_ranks:
        raise DataError(
            "no query has a match: no gallery image shows a query's identity from another camera; "
            "check the identities and cameras of the query and gallery images"
        )
    hits = np.bincount(first_ranks, minlength=max_rank + 1)[1 : max_rank + 1]
    cmc = hits.cumsum().astype(np.float32) / np.float32(len(first_ranks))
    return cmc, precisions, penalties


def _match_ranks(row: np.ndarray, same_pid: np.ndarray, same_camid: np.ndarray) -> np.ndarray | None:
    """Ranks, from 1 and ascending, of one query's P matches; None where a distance is not a number.

    Args:
        row: (G,) distances to the gallery.
        same_pid: (G,) whether it is of the query's identity; ``same_camid``: (G,) of its camera.
    """
    if row.size and np.isnan(row.min()):
        return None
    is_match = same_pid & ~same_camid
    matches = np.sort(row[is_match])
    if not matches.size:
        return np.empty(0, dtype=np.int64)

    # What lies beyond the last match cannot move a match's rank.
    near = np.flatnonzero((row <= matches[-1]) & ~(same_pid & same_camid))
    distances = row[near]
    # The first match that is as far as each image, or farther.
    slot = np.searchsorted(matches, distances)
    # Images at exactly a match's distance, the matches among them: the few whose order has to be looked at.
    tied = matches[slot] == distances
    nearer = np.bincount(slot[~tied], minlength=matches.size).cumsum()
    order = np.argsort(distances[tied], kind="stable")
    within = np.flatnonzero(is_match[near[tied]][order])
    return nearer + within + 1
