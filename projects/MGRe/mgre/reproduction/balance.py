"""Which weight of the location loss, and which share of the ReID gradient to the boxes, the runs speak for."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean, stdev

from mgre.reproduction.tables import Row
from mgre.visualization import new_figure

MEAN_IOU = "IoU/mean"

# Rows by (weight of the location loss, factor on the ReID gradient).
Grid = Mapping[tuple[float, float], Row]


def choose_balance(grid: Grid) -> str:
    """The setting that follows from the runs, as a sentence with its reasons.

    1. Of each gradient the weight with the highest mean mAP is taken, among those whose mean IoU is within the spread
       of the highest one that gradient 0 reaches.
    2. The paper's gradient 1 is taken, unless gradient 0's mAP is higher by more than the spread.

    The spread is the pooled standard deviation over the seeds, 0 where there is one seed.
    """
    complete = {s: row for s, row in grid.items() if row.values("mAP") and row.values(MEAN_IOU)}
    if {gradient for _, gradient in complete} != {0.0, 1.0}:
        return "not enough was run to choose"
    precision = {setting: mean(row.values("mAP")) for setting, row in complete.items()}
    overlap = {setting: mean(row.values(MEAN_IOU)) for setting, row in complete.items()}
    spread, overlap_spread = (pooled_deviation(complete.values(), metric) for metric in ("mAP", MEAN_IOU))
    floor = max(iou for (_, gradient), iou in overlap.items() if gradient == 0.0) - overlap_spread
    best = {}
    for gradient in (0.0, 1.0):
        # Where no weight keeps the IoU, the one that loses least of it.
        settings = [s for s in complete if s[1] == gradient]
        kept = [s for s in settings if overlap[s] >= floor] or [max(settings, key=overlap.get)]
        best[gradient] = max(kept, key=precision.get)
    lead = precision[best[0.0]] - precision[best[1.0]]
    gradient = 0.0 if lead > spread else 1.0
    reason = f"gradient 0 leads by {lead:.1f} mAP" if lead > 0 else f"gradient 1 leads by {-lead:.1f} mAP"
    share = "" if len(complete) == len(grid) else f"of the {len(complete)} of {len(grid)} settings that were run: "
    told = ", ".join(f"x {best[g][0]:g} at gradient {g:g} ({precision[best[g]]:.1f} mAP)" for g in (0.0, 1.0))
    return (
        f"{share}location loss x {best[gradient][0]:g} with ReID gradient {gradient:g}. The best weights that keep the "
        f"mean IoU at {floor:.2f} or more are {told}; {reason}, and the spread is {spread:.1f}"
    )


def pooled_deviation(rows: Iterable[Row], metric: str) -> float:
    """Root of the mean variance over the seeds, of the rows with two seeds or more; 0 where there is none."""
    variances = [stdev(values) ** 2 for row in rows if len(values := row.values(metric)) > 1]
    return math.sqrt(mean(variances)) if variances else 0.0


def plot_balance(grids: Mapping[str, Grid], path: Path) -> Path:
    """mAP and mean IoU against the weight, a line for each gradient, with the seeds' standard deviation as bars."""
    figure = new_figure(figsize=(9, 3.5))
    panels = zip(figure.subplots(1, 2), (("mAP", "mAP, %"), (MEAN_IOU, "mean IoU of the regions")), strict=True)
    for axes, (metric, label) in panels:
        for name, grid in grids.items():
            for gradient in sorted({gradient for _, gradient in grid}):
                rows = {weight: row.values(metric) for (weight, g), row in grid.items() if g == gradient}
                rows = {weight: values for weight, values in rows.items() if values}
                bars = [stdev(values) if len(values) > 1 else 0.0 for values in rows.values()]
                axes.errorbar(
                    list(rows), [mean(v) for v in rows.values()], bars, marker="o", capsize=3,
                    label=f"{name}, ReID gradient {gradient:g}",
                )  # fmt: skip
        axes.set_xscale("log")
        axes.set(xlabel="weight of the location loss", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
    return path
