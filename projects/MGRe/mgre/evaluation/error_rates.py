"""Measures the rates of errors of a :class:`mgre.evaluation.calibration.Calibration` on features with labels.

Pairs of images are not independent: each image is in many pairs, and so is each identity. So intervals count what
identities say. The variance of a rate is that of sums over pairs in which two pairs that share an identity may depend
on each other in any way (dyadic clustering; Fafchamps and Gubert 2007). It tells how many independent pairs would give
the rate as surely: at most as many as there are pairs of identities, for matches as there are identities.

An interval is where the rate of as many other people lies, of which chance has its part too. So half of these pairs
count, and the interval is Clopper and Pearson's for so many (as Korn and Graubard's for surveys, 1998). Where no error
is seen, the upper limit is one-sided.

The bootstrap over identities is not used: of rare errors it finds up to three times the variance, and of none no
interval at all.

Legend: N images, D numbers of a feature, I identities, T thresholds.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.special import betaincinv, ndtri, stdtrit

from mgre.errors import DataError
from mgre.evaluation.calibration import CONFIDENCE, Calibration, Rate, lowest_rate, threshold_in

# The thresholds of the table stand where a rate is 10^(-k / LEVELS_PER_DECADE).
LEVELS_PER_DECADE = 8
# Of an interval's two sides each.
TAIL = (1 - CONFIDENCE) / 2
# Scores are counted in bins of this width to find the thresholds.
_BINS = 1 << 16
ROUND_RATES = (0.1, 0.01, 0.001, 0.0001, 0.00001, 0.000001)


@dataclass
class _Sums:
    """Sums over clusters of pairs: how many of a cluster's pairs are errors at each threshold, and how many there are.

    A cluster is two identities, or one.
    """

    num_errors: np.ndarray  # (I, T) by identity
    num_pairs: np.ndarray  # (I,)
    # Over the clusters: of squared errors (T,), of errors times pairs (T,), and of squared pairs.
    squared_errors: np.ndarray = field(init=False)
    products: np.ndarray = field(init=False)
    squared_pairs: float = 0.0
    num_clusters: int = 0

    def __post_init__(self) -> None:
        self.squared_errors = np.zeros(self.num_errors.shape[1])
        self.products = np.zeros(self.num_errors.shape[1])

    def add(self, identity: int, errors: np.ndarray, pairs: np.ndarray, *, with_later: bool) -> None:
        """Add K clusters.

        Args:
            identity: one that is in all of them.
            errors: (K, T).
            pairs: (K,).
            with_later: each cluster has one of the K identities after it too.
        """
        self.num_errors[identity] += errors.sum(axis=0)
        self.num_pairs[identity] += pairs.sum()
        if with_later:
            self.num_errors[identity + 1 :] += errors
            self.num_pairs[identity + 1 :] += pairs
        self.squared_errors += (errors**2).sum(axis=0)
        self.products += pairs @ errors
        self.squared_pairs += float((pairs**2).sum())
        self.num_clusters += int((pairs > 0).sum())

    def rates(self, size: int) -> list[Rate]:
        """The rate at each threshold.

        Args:
            size: identities in a cluster, 1 or 2.
        """
        total = self.num_pairs.sum() / size
        values = self.num_errors.sum(axis=0) / size / total
        by_identity = self.num_errors - values * self.num_pairs[:, None]
        within = self.squared_errors - 2 * values * self.products + values**2 * self.squared_pairs
        # Of two identities, each cluster's own square is in the sums of both, so once too often.
        variances = ((by_identity**2).sum(axis=0) - (size - 1) * within) / total**2
        # Few identities say little of the variance itself: Student's distribution in place of the normal one.
        spread = float((stdtrit(len(self.num_pairs) - 1, 1 - TAIL) / ndtri(1 - TAIL)) ** 2)
        return [
            _interval(float(value), float(variance) * spread, self.num_clusters)
            for value, variance in zip(values, variances, strict=True)
        ]


def calibrate(
    features: np.ndarray,
    identities: np.ndarray,
    cameras: np.ndarray,
    *,
    dataset: str,
    seen_in_training: bool = False,
    fingerprint: str = "",
) -> Calibration:
    """Compare all pairs of images of different cameras.

    Args:
        features: (N, D), normalised or not.
        identities, cameras: (N,), of any type that numpy sorts.
        dataset, seen_in_training, fingerprint: for the :class:`Calibration`.

    Raises:
        DataError: there are too few identities or cameras, or a feature is NaN or infinite.
    """
    identities, cameras = (np.unique(labels, return_inverse=True)[1] for labels in (identities, cameras))
    order = np.argsort(identities, kind="stable")
    features, identities, cameras = features[order].astype(np.float32), identities[order], cameras[order]
    _check(features, identities, cameras, dataset)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.float32(1e-12))
    pairs = _Pairs(features, identities, cameras)
    matches, non_matches = pairs.histograms()
    if not matches.sum():
        raise DataError(
            f"{dataset} has no person under two cameras, so no pair of one person to compare; allowed: a set with "
            "people whom two cameras have seen"
        )
    thresholds = _choose_thresholds(matches, non_matches)
    false_match, false_non_match = pairs.rates(thresholds)
    values = [rate.value for rate in false_match]
    scores = [float(score) for score in thresholds]
    return Calibration(
        dataset=dataset,
        seen_in_training=seen_in_training,
        fingerprint=fingerprint,
        num_identities=int(identities[-1]) + 1,
        num_cameras=int(cameras.max()) + 1,
        num_images=len(features),
        num_matches=int(matches.sum()),
        num_non_matches=int(non_matches.sum()),
        scores=scores,
        false_match=false_match,
        false_non_match=false_non_match,
        thresholds=[
            (rate, threshold_in(scores, values, rate))
            for rate in ROUND_RATES
            if rate >= lowest_rate(int(identities[-1]) + 1)
        ],
    )


def _check(features: np.ndarray, identities: np.ndarray, cameras: np.ndarray, dataset: str) -> None:
    for what, labels in (("identities", identities), ("cameras", cameras)):
        if len(np.unique(labels)) < 2:
            raise DataError(
                f"{dataset} has {len(np.unique(labels))} of two {what} that a calibration needs at least: it compares "
                "different people, and one person, under different cameras"
            )
    if not np.isfinite(features).all():
        raise DataError(f"a feature of {dataset} is NaN or infinite: take a checkpoint from before that")


class _Pairs:
    """All pairs of images of different cameras, one identity's images against those of it and of later ones."""

    def __init__(self, features: np.ndarray, identities: np.ndarray, cameras: np.ndarray) -> None:
        """
        Args:
            features: (N, D), of length 1, in the order of the identities.
            identities, cameras: (N,), from 0.
        """
        self.features, self.identities, self.cameras = features, identities, cameras
        self.starts = np.searchsorted(identities, np.arange(identities[-1] + 2))

    def blocks(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Of each identity: its number, the scores with all images from its own on (n, M), and which pairs count."""
        for identity, (start, end) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True)):
            scores = self.features[start:end] @ self.features[start:].T
            counts = self.cameras[start:end, None] != self.cameras[None, start:]
            counts[:, : end - start] &= np.tri(end - start, k=-1, dtype=bool).T  # each pair of one person once
            yield identity, scores, counts

    def histograms(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of matches and of non-matches by score, in bins of equal width from -1 to 1."""
        found = np.zeros((2, _BINS), dtype=np.int64)
        for _, scores, counts in self.blocks():
            own = len(scores)
            bins = np.clip((scores + 1) * (_BINS / 2), 0, _BINS - 1).astype(np.int64)
            for row, part in ((0, np.s_[:, :own]), (1, np.s_[:, own:])):
                found[row] += np.bincount(bins[part][counts[part]], minlength=_BINS)
        return found[0], found[1]

    def rates(self, thresholds: np.ndarray) -> tuple[list[Rate], list[Rate]]:
        """The false-match rate and the false-non-match rate at each threshold."""
        num, size = int(self.identities[-1]) + 1, len(thresholds)
        different, same = (_Sums(np.zeros((num, size)), np.zeros(num)) for _ in range(2))
        for identity, scores, counts in self.blocks():
            # How many thresholds are at or below the score: it is an error, or none, at these.
            passed = np.searchsorted(thresholds, scores, side="right")
            others = np.broadcast_to(self.identities[self.starts[identity] :] - identity, scores.shape)
            index = (others * (size + 1) + passed)[counts]
            table = np.bincount(index, minlength=(num - identity) * (size + 1)).reshape(-1, size + 1).astype(np.float64)
            at_or_above = table[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
            pairs = table.sum(axis=1)
            different.add(identity, at_or_above[1:], pairs[1:], with_later=True)
            same.add(identity, pairs[:1, None] - at_or_above[:1], pairs[:1], with_later=False)
        return different.rates(2), same.rates(1)


def _choose_thresholds(matches: np.ndarray, non_matches: np.ndarray) -> np.ndarray:
    """The scores at which one of the two rates takes a round value, in ascending order."""
    levels = 10.0 ** (-np.arange(0, 8 * LEVELS_PER_DECADE) / LEVELS_PER_DECADE)
    # Counted from the side on which the rate is low.
    above, below = non_matches[::-1].cumsum(), matches.cumsum()
    bins = [
        *(_BINS - np.searchsorted(above, levels * above[-1], side="left")),
        *(np.searchsorted(below, levels * below[-1], side="left") + 1),
        *(int(np.flatnonzero(matches + non_matches)[0]), int(np.flatnonzero(matches + non_matches)[-1]) + 1),
    ]
    return np.unique(np.clip(bins, 0, _BINS)) * (2 / _BINS) - 1


def _interval(value: float, variance: float, num_clusters: int) -> Rate:
    """Clopper and Pearson's interval for half of the number of independent pairs that have this variance."""
    most = num_clusters / 2
    if value in (0.0, 1.0):
        limit = (2 * TAIL) ** (1 / most)
        return Rate(0.0, 0.0, 1 - limit) if value == 0 else Rate(1.0, limit, 1.0)
    effective = min(value * (1 - value) / (2 * variance), most) if variance > 0 else most
    errors, others = value * effective, (1 - value) * effective
    low, high = betaincinv(errors, others + 1, TAIL), betaincinv(errors + 1, others, 1 - TAIL)
    return Rate(value, 0.0 if math.isnan(low) else float(low), 1.0 if math.isnan(high) else float(high))
