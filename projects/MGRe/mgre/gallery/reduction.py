"""A few numbers of each vector that bound its cosine with any other, so that a search reads a fraction of the gallery.

Vectors are scaled to norm 1 here. Let V (D, d) have nearly orthonormal columns, p_x the float32 numbers nearest to
V^T x, and r_x = x - V p_x the rest. With E = V^T V - I,

    x . y = p_x . p_y + p_x^T E p_y + p_x . (V^T r_y) + (V^T r_x) . p_y + r_x . r_y    and    r_x . r_y <= |r_x| |r_y|.

The first term and the last make the bound: the inner product of the d + 1 numbers [p_x, |r_x|] and [p_y, |r_y|]. Any V
is right. The principal directions of the vectors make |r| small and the bound tight.

Proof of ``MARGIN``, which is added to the bound so that no rounding can make it too small, for D up to ``MOST_NUMBERS``
and d + 1 up to 128. All is computed in float64, with u = 2^-53, but for the last product, in float32, with w = 2^-24.

1. The columns: :func:`principal_directions` measures |E|, and takes V only where it is at most 2^-36. So the second
   term is at most 2^-36.
2. The middle terms: V^T r_y = (V^T y - p_y) - E p_y. The first difference is p_y's rounding to float32, at most w, and
   that of d sums of D products, at most sqrt(d) D u < 2^-36. So both terms together are at most 2 (w + 2^-35).
3. The rest: |r_x| <= |x - V V^T x| + |V (V^T x - p_x)|. The square of the first is |x|^2 - |V^T x|^2 but for E's
   part, and with that and all rounding it is computed with an error below 2^-34. The second is at most w + 2^-35.
   :func:`reduce_vectors` takes sqrt(|x|^2 - |V^T x|^2 + 2^-33) + 2^-22. That is larger than both together, also after
   its own rounding to float32, which is at most w / 2.
4. The product of d + 1 numbers in float32, in whatever order they are added, is wrong by at most
   (d + 1) w / (1 - (d + 1) w) times the norms of [p_x, |r_x|] and [p_y, |r_y|], which are below 1 + 2^-20. With
   d + 1 = 128 that is less than 7.7e-6.

The sum is less than 7.9e-6, and ``MARGIN`` = 2^-16 is 1.5e-5. What is left of it covers that the vectors have norm
1 only to rounding, and that the cosines the bound is compared with (:func:`mgre.gallery.exact.cosines`) are wrong by up
to 2^-36.

Legend: N vectors, D their dimension, d directions.
"""

import numpy as np

# See the proof. The largest D it holds for.
MARGIN, MOST_NUMBERS = 2.0**-16, 8192
# The least norm by which a vector is divided, as in the evaluator's distances; a shorter vector stays shorter than 1.
LEAST_NORM = 1e-12
# Vectors from which principal directions are computed, and rounds of subspace iteration.
SAMPLED_VECTORS, ROUNDS = 4096, 3
# The numbers d + 1 kept of a vector: the first entry whose dimension D is not above the vector's. A row of 128 float32
# numbers is eight of the processor's cache lines.
KEPT_NUMBERS = {1024: 128, 256: 64, 64: 16}
# Vectors whose neighbours are found by all products to see how many a bound would leave, and among how many.
TRIED_QUERIES, TRIED_VECTORS, TRIED_NEIGHBOURS = 32, 8192, 20
# The bound is of no use where it leaves a larger share of the vectors.
MOST_LEFT = 1 / 16


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) scaled to norm 1, in float64; those shorter than ``LEAST_NORM`` are divided by that."""
    vectors = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    vectors /= np.maximum(norms, LEAST_NORM)[:, None]
    return vectors


def find_directions(sample: np.ndarray) -> np.ndarray | None:
    """Directions V (D, d), float64, for a gallery of which ``sample`` (N, D) is a fair part.

    None where a bound from them would not pay: few dimensions or more than ``MOST_NUMBERS``, or vectors without
    principal directions, such as random ones, of which the bound would leave too many.
    """
    dim = sample.shape[1]
    numbers = next((count for least, count in KEPT_NUMBERS.items() if dim >= least), 0)
    if not numbers or dim > MOST_NUMBERS or len(sample) < 2 * numbers:
        return None
    unit = normalise(sample)
    directions = principal_directions(spread(unit, SAMPLED_VECTORS), numbers - 1)
    if directions is None or _share_left(spread(unit, TRIED_VECTORS), directions) > MOST_LEFT:
        return None
    return directions


def principal_directions(unit: np.ndarray, count: int) -> np.ndarray | None:
    """Nearly orthonormal columns (D, ``count``) that hold most of the energy of vectors (N, D), the first the most.

    By subspace iteration (Halko et al., SIAM Review 2011). The same vectors give the same directions. None where the
    columns are farther from orthonormal than the proof allows, which vectors in fewer directions can cause.
    """
    directions = np.random.default_rng(0).standard_normal((unit.shape[1], count))
    for _ in range(ROUNDS):
        directions = np.linalg.qr(unit.T @ (unit @ directions))[0]
    parts = unit @ directions
    directions = np.ascontiguousarray(directions @ np.linalg.eigh(parts.T @ parts)[1][:, ::-1])
    error = np.linalg.norm(directions.T @ directions - np.eye(count))
    return directions if error <= 2.0**-36 else None  # not if it is NaN


def reduce_vectors(unit: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """[p, |r|] (N, d + 1), float32, of vectors (N, D) of norm 1 or less; |r| is rounded up."""
    parts = unit @ directions
    squares = np.einsum("nd,nd->n", unit, unit) - np.einsum("nd,nd->n", parts, parts)
    rests = np.sqrt(np.maximum(squares, 0) + 2.0**-33) + 2.0**-22
    reduced = np.column_stack((parts, rests)).astype(np.float32)
    reduced[~unit.any(axis=1)] = 0  # an erased vector leaves nothing
    return reduced


def spread(vectors: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` evenly spaced rows of ``vectors`` (N, D)."""
    return vectors[spread_numbers(len(vectors), count)]


def spread_numbers(total: int, count: int) -> np.ndarray:
    """At most ``count`` evenly spaced numbers from 0 to ``total`` - 1."""
    return np.linspace(0, max(total - 1, 0), min(count, total)).astype(np.int64)


def _share_left(unit: np.ndarray, directions: np.ndarray) -> float:
    """The share of the vectors that the bound cannot exclude from a vector's nearest, in the mean."""
    rows = spread_numbers(len(unit), TRIED_QUERIES)
    k = min(TRIED_NEIGHBOURS, len(unit))
    kth = np.partition(unit[rows] @ unit.T, -k, axis=1)[:, -k]
    reduced = reduce_vectors(unit, directions)
    return float((reduced[rows] @ reduced.T + MARGIN >= kth[:, None]).mean())
