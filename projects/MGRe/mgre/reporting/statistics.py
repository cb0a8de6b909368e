"""The numbers of a report: figures with their intervals, mAP by pair of cameras, and distributions of scores.

Legend: Q queries, of which C have a match; G gallery images; B queries of a block; K bins.
"""

from dataclasses import dataclass, field

import numpy as np

from mgre.evaluation.ranking import QueryFigures, Ranked, query_figures

FIGURES = ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP")
# Resamplings of the queries, and the share of them that an interval holds.
NUM_SAMPLES, CONFIDENCE = 2000, 0.95
# Bins of the scores' histograms, and how far they reach beyond the scores of the first block, as a share of its range.
NUM_BINS, BEYOND = 120, 0.05


@dataclass(frozen=True)
class Interval:
    """A figure with its interval, all in %."""

    value: float
    low: float
    high: float


def figure_intervals(figures: QueryFigures, *, num_samples: int = NUM_SAMPLES, seed: int = 0) -> dict[str, Interval]:
    """:data:`FIGURES`, each with its 95 % interval by the percentile bootstrap over queries.

    The C queries with a match are drawn C times with replacement, ``num_samples`` times.
    """
    counted = figures.counted
    first_ranks = figures.first_ranks[counted]
    values = np.column_stack(
        [
            figures.precisions[counted],
            *(first_ranks <= rank for rank in (1, 5, 10)),
            figures.penalties[counted],
        ]
    )
    random, number = np.random.default_rng(seed), len(values)
    # Each row says how many times each query is drawn; row by row, because all together may not fit into memory.
    means = [random.multinomial(number, np.full(number, 1 / number)) @ values / number for _ in range(num_samples)]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, (tail, 100 - tail), axis=0)
    return {
        name: Interval(*(100 * float(number) for number in numbers))
        for name, *numbers in zip(FIGURES, values.mean(axis=0), low, high, strict=True)
    }


@dataclass(frozen=True)
class CameraPairs:
    """mAP in % by the query's camera (rows) and the gallery's (columns).

    Attributes:
        query_cameras, gallery_cameras: their numbers, from 1.
        precisions: by pair of cameras; NaN where no query has a match.
        counts: queries with a match there.
    """

    query_cameras: list[int]
    gallery_cameras: list[int]
    precisions: np.ndarray
    counts: np.ndarray


@dataclass
class Scores:
    """How many pairs of a query and a gallery image from different cameras have a score in each bin.

    Attributes:
        edges: (K + 1,) of the bins. Scores beyond the first and the last edge are in the first and the last bin.
        matches, others: (K,), pairs of one identity and of two.
    """

    edges: np.ndarray
    matches: np.ndarray = field(default_factory=lambda: np.zeros(NUM_BINS, dtype=np.int64))
    others: np.ndarray = field(default_factory=lambda: np.zeros(NUM_BINS, dtype=np.int64))

    def add(self, scores: np.ndarray, is_match: np.ndarray) -> None:
        """Add the scores of some pairs, and whether each is of one identity."""
        width = self.edges[1] - self.edges[0]
        bins = ((scores - self.edges[0]) / width).astype(np.int64).clip(0, NUM_BINS - 1)
        matches = np.bincount(bins[is_match], minlength=NUM_BINS)
        self.matches += matches
        self.others += np.bincount(bins, minlength=NUM_BINS) - matches


def survey(ranked: Ranked, *, cosine: bool) -> tuple[CameraPairs, Scores]:
    """mAP by pair of cameras and the distribution of scores, in one pass over the distances.

    Args:
        ranked: of the evaluation.
        cosine: whether the distance is 1 - cosine. Then the score is the cosine, else the distance itself.
    """
    query_cameras, gallery_cameras = (np.unique(ids) for ids in (ranked.query_camids, ranked.gallery_camids))
    columns_of = [np.flatnonzero(ranked.gallery_camids == camera) for camera in gallery_cameras]
    precisions = np.full((len(ranked.query_pids), len(gallery_cameras)), np.nan)
    scores: Scores | None = None
    for start, block in ranked.distances.blocks():
        queries = slice(start, start + len(block))
        pids, camids = ranked.query_pids[queries], ranked.query_camids[queries]
        for number, columns in enumerate(columns_of):
            gallery = ranked.gallery_pids[columns], ranked.gallery_camids[columns]
            part = query_figures(block[:, columns], pids, gallery[0], camids, gallery[1])
            precisions[queries, number] = part.precisions
        counted = camids[:, None] != ranked.gallery_camids
        values = (1 - block if cosine else block)[counted]
        scores = scores or Scores(_edges(values))
        scores.add(values, (pids[:, None] == ranked.gallery_pids)[counted])
    found = np.isfinite(precisions)
    of_camera = (ranked.query_camids[:, None] == query_cameras).astype(np.int64)  # (Q, cameras)
    counts = of_camera.T @ found
    with np.errstate(invalid="ignore"):
        means = 100 * (of_camera.T @ np.nan_to_num(precisions)) / np.where(counts, counts, np.nan)
    pairs = CameraPairs((query_cameras + 1).tolist(), (gallery_cameras + 1).tolist(), means, counts)
    return pairs, scores or Scores(_edges(np.empty(0)))


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    margin = BEYOND * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, NUM_BINS + 1)


@dataclass(frozen=True)
class Counts:
    """What a test set has.

    Attributes:
        rows: by "query" and "gallery": images, identities and cameras.
        distractors: gallery images of identities that no query has.
        without_match: queries that have no match, and so do not count.
    """

    rows: dict[str, tuple[int, int, int]]
    distractors: int
    without_match: int


def count(ranked: Ranked) -> Counts:
    """The images, identities and cameras of the evaluation."""
    sides = {
        "query": (ranked.query_pids, ranked.query_camids),
        "gallery": (ranked.gallery_pids, ranked.gallery_camids),
    }
    return Counts(
        {name: (len(pids), len(set(pids)), len(set(camids))) for name, (pids, camids) in sides.items()},
        int((~np.isin(ranked.gallery_pids, ranked.query_pids)).sum()),
        int((~ranked.figures.counted).sum()),
    )
