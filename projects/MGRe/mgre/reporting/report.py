"""The report of an evaluation: one HTML file that needs no network and runs no code.

The template escapes whatever it is given, but for the plots, which :mod:`mgre.reporting.plots` escapes.
"""

import datetime
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2

from mgre.errors import printable
from mgre.evaluation.calibration import Calibration
from mgre.evaluation.evaluator import Evaluation
from mgre.record import ModelRecord
from mgre.reporting.pictures import thumbnail_uri
from mgre.reporting.plots import css_class, histogram, line_plot
from mgre.reporting.rank_lists import RankList, rank_lists, worst
from mgre.reporting.statistics import FIGURES, CameraPairs, Scores, count, figure_intervals, survey
from mgre.system.files import write_atomically
from mgre.version import VERSION

# Worst queries, and images of each list; ranks of the CMC curve; most cameras whose pairs are shown.
NUM_WORST, LENGTH, CURVE, MOST_CAMERAS = 10, 10, 50, 20
# Thresholds that are marked; more could not be told apart.
MOST_THRESHOLDS = 4
# Bins of the shown histogram.
SHOWN_BINS = 60
SCORE_LABELS = {"cosine": "cosine similarity (1 is the same direction)", "euclidean": "squared Euclidean distance"}


@dataclass(frozen=True)
class Subject:
    """What was evaluated, and how.

    Attributes:
        model: the file's name.
        record: of the model.
        config: of the evaluation, as YAML.
        metric: TEST.METRIC, "cosine" or "euclidean".
        device: where it ran.
        remarks: what a reader has to know to compare the figures, such as occlusion.
    """

    model: str
    record: ModelRecord
    config: str
    metric: str
    device: str
    remarks: tuple[str, ...] = ()


def write_report(path: str | os.PathLike[str], evaluation: Evaluation, subject: Subject) -> None:
    """Write the report of an evaluation to the HTML file ``path``.

    Raises:
        ImageError: an image of a shown rank list cannot be read.
        OSError: the file cannot be written.
        WeightsError: the record's calibration is damaged.
    """
    text = render(evaluation, subject)
    with write_atomically(os.fspath(path)) as unfinished:
        Path(unfinished).write_bytes(text.encode(errors="backslashreplace"))  # a name may have bytes that are no text


def render(evaluation: Evaluation, subject: Subject) -> str:
    """The HTML of a report."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=folder, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["basename"] = lambda path: printable(os.path.basename(path))
    environment.globals["css_class"] = css_class
    pairs, scores = survey(evaluation.orders["plain"], cosine=subject.metric == "cosine")
    final = evaluation.final
    shown = rank_lists(evaluation, worst(evaluation, NUM_WORST), LENGTH)
    thresholds = _thresholds(subject)
    return environment.get_template("report.html").render(
        subject=subject,
        evaluation=evaluation,
        created=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        counts=count(final),
        names=FIGURES,
        intervals={name: figure_intervals(ranked.figures) for name, ranked in evaluation.orders.items()},
        num_counted=int(final.figures.counted.sum()),
        curve=_draw_curve(evaluation),
        curve_start=_curve_start(evaluation),
        pairs=_cells(pairs) if len(pairs.gallery_cameras) <= MOST_CAMERAS else None,
        num_cameras=len(pairs.gallery_cameras),
        score_plot=_draw_scores(scores, subject.metric, thresholds),
        num_bins=SHOWN_BINS,
        num_pairs=(int(scores.matches.sum()), int(scores.others.sum())),
        thresholds=thresholds,
        shown=shown,
        pictures=_thumbnails(shown),
        versions={**_versions(), "device": subject.device},
    )


def _curve_start(evaluation: Evaluation) -> float:
    """Where the curve's upright axis starts, in %: the ten below the lowest Rank-1, but at most 90."""
    lowest = min(float(ranked.figures.cmc(1)[0]) for ranked in evaluation.orders.values())
    return min(90.0, 10.0 * (10 * lowest // 1))


def _draw_curve(evaluation: Evaluation) -> str:
    return line_plot(
        {name: (100 * ranked.figures.cmc(CURVE)).tolist() for name, ranked in evaluation.orders.items()},
        title="CMC curve",
        x_label="rank",
        y_label="queries with a match up to this rank, %",
        y_range=(_curve_start(evaluation), 100.0),
    )


def _draw_scores(scores: Scores, metric: str, thresholds: Mapping[str, float]) -> str:
    step = len(scores.matches) // SHOWN_BINS
    series = {"matches": scores.matches, "non-matches": scores.others}
    shares = {
        name: (100 * values.reshape(-1, step).sum(axis=1) / max(1, values.sum())).tolist()
        for name, values in series.items()
    }
    return histogram(
        scores.edges[::step].tolist(),
        dict(reversed(shares.items())),
        title="Histograms of scores",
        x_label=SCORE_LABELS[metric],
        y_label="share of the pairs, %",
        marks=thresholds,
    )


def _thresholds(subject: Subject) -> dict[str, float]:
    """The calibrated thresholds by the false-match rates that they are for; they are cosines."""
    calibration = Calibration.from_record(subject.record, subject.model) if subject.metric == "cosine" else None
    pairs = calibration.thresholds if calibration else []
    return {f"false-match rate {100 * rate:g} %": score for rate, score in pairs[:MOST_THRESHOLDS]}


def _cells(pairs: CameraPairs) -> dict[str, Any]:
    """The table of pairs of cameras: ``columns``, and ``rows`` of (camera, cells), each of (mAP, queries)."""
    rows = zip(pairs.query_cameras, pairs.precisions.tolist(), pairs.counts.tolist(), strict=True)
    return {
        "columns": pairs.gallery_cameras,
        "rows": [(camera, list(zip(means, counts, strict=True))) for camera, means, counts in rows],
    }


def _thumbnails(shown: list[RankList]) -> dict[str, str]:
    return {path: thumbnail_uri(path) for path in sorted(set().union(*(one.paths for one in shown)))}


def _versions() -> dict[str, str]:
    found = {"mgre": VERSION, "Python": platform.python_version()}
    for name in ("torch", "fastreid", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a git clone
            found[name] = "unknown"
    return found
