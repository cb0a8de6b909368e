"""Our figures beside the paper's, in Markdown and CSV."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

from tabulate import tabulate

METRICS = ("mAP", "Rank-1", "Rank-5", "mINP")


@dataclass(frozen=True)
class Row:
    """A row of a results table.

    Attributes:
        title: of the model.
        dataset: the test set.
        found: our figures by metric, one of each seed that was run, in percent.
        paper: the paper's, in percent.
    """

    title: str
    dataset: str
    found: Sequence[Mapping[str, float]] = ()
    paper: Mapping[str, float] = field(default_factory=dict)

    def values(self, metric: str) -> list[float]:
        return [figures[metric] for figures in self.found if metric in figures]

    def cells(self, metrics: Sequence[str]) -> dict[str, str]:
        """What was not run is empty, and so is what the paper does not report."""
        cells = {"": self.title, "data set": self.dataset, "seeds": str(len(self.found) or "")}
        for metric in metrics:
            values, paper = self.values(metric), self.paper.get(metric)
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells[f"{metric}, %"] = f"{mean(values):.1f}{spread}" if values else ""
            cells[f"{metric}, the paper's"] = f"{paper:.1f}" if paper is not None else ""
            cells[f"{metric}, difference"] = f"{mean(values) - paper:+.1f}" if values and paper is not None else ""
        return cells


def save_table(rows: Sequence[Row], path: Path, *, title: str) -> list[Path]:
    """Write the rows as ``path`` with the endings .md and .csv, and return both.

    Metrics that neither we nor the paper have, and columns that are empty, are left out.
    """
    metrics = [m for m in METRICS if any(row.values(m) or m in row.paper for row in rows)]
    cells = [row.cells(metrics) for row in rows]
    kept = [name for name in cells[0] if not name or any(row[name] for row in cells)]
    cells = [{name: row[name] for name in kept} for row in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = tabulate(cells, headers="keys", tablefmt="github", disable_numparse=True)
    markdown, sheet = path.with_suffix(".md"), path.with_suffix(".csv")
    markdown.write_text(f"{title}\n\n{table}\n")
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, kept)
        writer.writeheader()
        writer.writerows(cells)
    return [markdown, sheet]


def falls(clean: Sequence[Mapping[str, float]], occluded: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """What each seed loses under occlusion, in percent points by metric: a fall is negative."""
    return [{m: after[m] - before[m] for m in METRICS if m in after and m in before}
            for before, after in zip(clean, occluded, strict=False)]  # fmt: skip
