"""Which weight of the location loss, and which share of the ReID gradient to the boxes, the runs speak for."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean, stdev

from mgre.reproduction.tables import Row
from mgre.visualization import new_figure

MEAN_IOU = "IoU/mean"
# What joint optimisation may cost the boxes. The seeds move the IoU of single regions by more.
IOU_TOLERANCE = 0.02

# Rows by (weight of the location loss, factor on the ReID gradient).
Grid = Mapping[tuple[float, float], Row]


def choose_balance(grid: Grid) -> str:
    """The setting that follows from the runs, as a sentence with its reasons.

    1. Of gradient 0 the weight with the highest mean mAP is taken.
    2. Of gradient 1 too, among the weights whose mean IoU is at most :data:`IOU_TOLERANCE` below that of 1.
    3. The paper's gradient 1 is taken, unless gradient 0's mAP is higher by more than the spread.

    The spread is the pooled standard deviation over the seeds, 0 where there is one seed.
    """
    complete = {s: row for s, row in grid.items() if row.values("mAP") and row.values(MEAN_IOU)}
    if {gradient for _, gradient in complete} != {0.0, 1.0}:
        return "not enough was run to choose"
    precision = {setting: mean(row.values("mAP")) for setting, row in complete.items()}
    overlap = {setting: mean(row.values(MEAN_IOU)) for setting, row in complete.items()}
    spread = pooled_deviation(complete.values(), "mAP")
    cut, joint = ([s for s in complete if s[1] == gradient] for gradient in (0.0, 1.0))
    best_cut = max(cut, key=precision.__getitem__)
    floor = overlap[best_cut] - IOU_TOLERANCE
    # Where no weight keeps the IoU, the one that loses least of it.
    kept = [s for s in joint if overlap[s] >= floor] or [max(joint, key=overlap.__getitem__)]
    best_joint = max(kept, key=precision.__getitem__)
    lead = precision[best_cut] - precision[best_joint]
    chosen = best_cut if lead > spread else best_joint
    share = "" if len(complete) == len(grid) else f"of the {len(complete)} of {len(grid)} settings that were run: "
    told = [
        f"x {s[0]:g} at gradient {s[1]:g} ({precision[s]:.1f} mAP, mean IoU {overlap[s]:.2f})"
        for s in (best_cut, best_joint)
    ]
    leader = "gradient 0" if lead > 0 else "gradient 1"
    return (
        f"{share}location loss x {chosen[0]:g} with ReID gradient {chosen[1]:g}. The best weights are {told[0]} and, "
        f"where the mean IoU is {floor:.2f} or more, {told[1]}; {leader} leads by {abs(lead):.1f} mAP, and the spread "
        f"is {spread:.1f}"
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
