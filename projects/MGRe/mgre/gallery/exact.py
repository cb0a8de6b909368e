"""The exact nearest vectors by cosine, from estimates that are never too small by more than a margin.

The proof is that of :func:`nearest`. Where the estimates come from: :mod:`mgre.gallery.reduction` has those that are
bounds; :func:`full_estimates` multiplies all numbers.

Legend: N vectors, D their dimension, B queries, K the number that is asked for.
"""

from collections.abc import Callable

import numpy as np

from mgre.gallery.reduction import LEAST_NORM

# Numbers whose cosines are computed together: 8 MiB in float64.
CHUNK_NUMBERS = 1 << 20
# Estimates whose largest is looked at first.
GROUP = 512


def cosines(vectors: np.ndarray, places: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The cosines (P,) of some ``vectors`` (N, D), float32, with a vector ``query`` (D,) of norm 1, in float64.

    The same two vectors give the same bits, wherever they stand: each sum is over one row. The products of float32
    numbers are exact in float64, and the sums wrong by at most D 2^-53.

    Args:
        places: (P,), of the vectors. Those of one part are read together, in this order.
    """
    found = np.empty(len(places))
    step = max(1, CHUNK_NUMBERS // vectors.shape[1])
    for start in range(0, len(places), step):
        part = vectors[places[start : start + step]].astype(np.float64)
        # einsum adds each row by itself, unlike the product of a matrix, whose sums depend on the rows beside.
        norms = np.maximum(np.sqrt(np.einsum("nd,nd->n", part, part)), LEAST_NORM)
        found[start : start + step] = np.einsum("nd,d->n", part, query) / norms
    return found


def full_estimates(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The cosines (B, N) of ``vectors`` (N, D) with ``queries`` (B, D) of norm 1, by products in float32."""
    estimates = np.empty((len(queries), len(vectors)), dtype=np.float32)
    queries = queries.astype(np.float32)
    step = max(1, CHUNK_NUMBERS // vectors.shape[1])
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step]  # small enough for the cache: the norms cost no second way to the memory
        norms = np.maximum(np.sqrt(np.einsum("nd,nd->n", part, part)), np.float32(LEAST_NORM))
        products = part @ queries[0] if len(queries) == 1 else queries @ part.T
        estimates[:, start : start + step] = products / norms
    return estimates


def full_margin(dim: int) -> float:
    """How much a number of :func:`full_estimates` can be wrong.

    The product of D float32 numbers is wrong by at most D w |x|, w = 2^-24, the query's rounding adds w |x|, and the
    norm, root of a sum of D squares, is wrong by at most (D / 2 + 2) w of itself. Twice as much covers the terms of
    second order and the division.
    """
    return 2 * (1.5 * dim + 4) * 2.0**-24


def nearest(
    estimates: np.ndarray, exact: Callable[[np.ndarray], np.ndarray], count: int, *, margin: float, most: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """The places of the K vectors with the largest cosines, and these cosines, largest first, ties in their order.

    Proof. Let t be a number that K of the vectors are known to reach by their cosines. A vector among the K nearest has
    a cosine of at least t, since the K-th largest is at least t. Its estimate is at least its cosine minus ``margin``.
    So only vectors with an estimate of at least t - ``margin`` need a look. They are taken in the order of their
    estimates, and t grows with each cosine that is computed, until the next estimate is below. Vectors at exactly t are
    looked at too, so ties are complete.

    Args:
        estimates: (N,), float32; minus infinity for vectors that are left out.
        exact: from places (P,) to the cosines (P,), float64.
        count: K.
        margin: how much an estimate can be below the cosine.
        most: of the cosines that may be computed.

    Returns:
        Places (K,), and cosines (K,); fewer where fewer vectors are not left out. None where more than ``most`` cosines
        would be needed.
    """
    first = _largest(estimates, max(2 * count, count + 32))
    found = exact(first)
    threshold = _kth(found, count)
    # 2^-23 covers the threshold's own rounding to float32.
    wanted = np.flatnonzero(estimates >= np.float32(threshold - margin - 2.0**-23))
    wanted = wanted[np.isfinite(estimates[wanted])]
    rest = np.setdiff1d(wanted, first, assume_unique=True)
    rest = rest[np.argsort(-estimates[rest], kind="stable")]
    places, step = [first], max(64, 2 * count)
    for start in range(0, len(rest), step):
        part = rest[start : start + step]
        if float(estimates[part[0]]) < threshold - margin:
            break
        if len(found) + len(part) > most:
            return None
        part = np.sort(part)  # the vectors are read in the file's order
        places.append(part)
        found = np.concatenate((found, exact(part)))
        threshold = _kth(found, count)
    looked_at = np.concatenate(places)
    order = np.lexsort((looked_at, -found))[:count]
    return looked_at[order], found[order]


def _largest(estimates: np.ndarray, count: int) -> np.ndarray:
    """The places of the ``count`` largest estimates, in ascending order; those of minus infinity are never among them.

    ``count`` groups hold one estimate of at least the ``count``-th largest of the groups' maxima, so that no more than
    the estimates of at least that number have to be sorted.
    """
    least = -np.inf
    whole = len(estimates) // GROUP * GROUP
    if whole // GROUP >= count:
        maxima = estimates[:whole].reshape(-1, GROUP).max(axis=1)
        least = np.partition(maxima, -count)[-count]
    places = np.flatnonzero(estimates >= least)
    places = places[np.isfinite(estimates[places])]
    if len(places) > count:
        places = np.sort(places[np.argpartition(estimates[places], -count)[-count:]])
    return places


def _kth(values: np.ndarray, count: int) -> float:
    """The ``count``-th largest, or minus infinity where there are fewer."""
    return float(np.partition(values, -count)[-count]) if len(values) >= count else -np.inf
