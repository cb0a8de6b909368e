"""Our figures beside the paper's, in Markdown and CSV."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

from tabulate import tabulate

METRICS = ("mAP", "Rank-1", "Rank-5", "mINP")
OVERLAP = "IoU/"  # of the names of the regions' mean IoU, which are fractions

# Percent by metric, by the number of the seed.
Found = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class Row:
    """A row of a results table.

    Attributes:
        title: of the model.
        dataset: the test set.
        found: our figures of each seed that was run.
        paper: the paper's, in percent.
    """

    title: str
    dataset: str
    found: Found = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)

    def values(self, metric: str) -> list[float]:
        return [figures[metric] for figures in self.found.values() if metric in figures]

    def numbers(self, metrics: Sequence[str]) -> dict[str, str | float | None]:
        """The row's numbers; None for what was not run, and for what the paper does not report."""
        cells: dict[str, str | float | None] = {
            "": self.title,
            "data set": self.dataset,
            "seeds": len(self.found) or None,
        }
        for metric in metrics:
            values, paper = self.values(metric), self.paper.get(metric)
            cells[column(metric)] = mean(values) if values else None
            cells[f"{metric}, deviation"] = stdev(values) if len(values) > 1 else None
            cells[f"{metric}, the paper's"] = paper
            cells[f"{metric}, difference"] = mean(values) - paper if values and paper is not None else None
        return cells


def save_table(rows: Sequence[Row], path: Path, *, title: str, metrics: Sequence[str] = METRICS) -> list[Path]:
    """Write the rows as ``path`` with the endings .md and .csv, and return both.

    Metrics that neither we nor the paper have, and columns that are empty, are left out.
    """
    metrics = [m for m in metrics if any(row.values(m) or m in row.paper for row in rows)]
    numbers = [row.numbers(metrics) for row in rows]
    kept = [name for name in numbers[0] if not name or any(row[name] is not None for row in numbers)]
    numbers = [{name: row[name] for name in kept} for row in numbers]
    path.parent.mkdir(parents=True, exist_ok=True)
    markdown, sheet = path.with_suffix(".md"), path.with_suffix(".csv")
    texts = [_texts(row) for row in numbers]
    markdown.write_text(f"{title}\n\n{tabulate(texts, headers='keys', tablefmt='github', disable_numparse=True)}\n")
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, kept)
        writer.writeheader()
        writer.writerows({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in numbers)
    return [markdown, sheet]


def column(metric: str) -> str:
    """The metric with its unit, for the head of a column."""
    return metric if metric.startswith(OVERLAP) else f"{metric}, %"


def digits(metric: str) -> int:
    """How many decimals are printed."""
    return 2 if metric.startswith(OVERLAP) else 1


def _texts(numbers: Mapping[str, str | float | None]) -> dict[str, str]:
    """A row to read: signed differences, and the deviation behind the mean.

    Percents have one decimal, and fractions two.
    """
    texts: dict[str, str] = {}
    for name, value in numbers.items():
        if name.endswith(", deviation"):
            if value is not None:
                texts[column(name.removesuffix(", deviation"))] += f" ± {value:.{digits(name)}f}"
        elif value is None:
            texts[name] = ""
        elif isinstance(value, float):
            texts[name] = f"{value:+.{digits(name)}f}" if name.endswith("difference") else f"{value:.{digits(name)}f}"
        else:
            texts[name] = str(value)
    return texts


def relative(changes: Found, before: Found) -> dict[int, dict[str, float]]:
    """``changes`` in percent of ``before``, seed by seed; what was 0 before is left out."""
    return {
        seed: {metric: 100 * value / before[seed][metric] for metric, value in figures.items() if before[seed][metric]}
        for seed, figures in changes.items()
    }


def differences(before: Found, after: Found) -> dict[int, dict[str, float]]:
    """``after`` minus ``before`` of the seeds that both have, in percent points by metric."""
    return {
        seed: {metric: after[seed][metric] - value for metric, value in figures.items() if metric in after[seed]}
        for seed, figures in before.items()
        if seed in after
    }
