"""Whether an exported model says what PyTorch says: features, rank order and mAP, on images of people.

Legend: N images, Q queries, G gallery images, D numbers of a feature.
"""

from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from mgre.export.crops import Crops
from mgre.inference.model import Description, Model

# Odd sizes too, because a graph may have kept the batch that it was exported with.
BATCHES = (1, 2, 7)
_NUM_COMPARED = 14
# Distances in float32 that differ by less are equal.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Tolerance:
    """What an exported model may differ by.

    Attributes:
        cosine: the least cosine of an image's two features.
        change: the largest change of mAP, in points of %: a gain would be another model too.
        boxes: the largest difference of a box's coordinate, where the image's side is 1.
    """

    cosine: float
    change: float
    boxes: float


# By precision. Eight bits cost accuracy, so what counts is the mAP that they leave.
TOLERANCES = {
    "fp32": Tolerance(cosine=0.99999, change=0.01, boxes=1e-4),
    "fp16": Tolerance(cosine=0.999, change=0.1, boxes=5e-3),
    "int8": Tolerance(cosine=0.9, change=2.0, boxes=1e-4),  # the file with the boxes stays in float32
}


@dataclass(frozen=True)
class Parity:
    """An exported model beside PyTorch.

    Attributes:
        differences: the largest difference of two numbers of a feature of length 1, by batch.
        cosines: the least cosine of an image's two features, by batch.
        moved: the share of queries, from 0 to 1, whose gallery is in another order.
        gap: the largest difference of PyTorch's distances of two gallery images that have changed places.
        figures: mAP and Rank-1 in %, by "PyTorch" and "exported".
        boxes: the largest difference of a box's coordinate, where the image's side is 1; 0 without boxes.
        terms: the largest difference of a number of a region's vector, where the stage's largest is 1; 0 without.
        tolerance: what was allowed.
        crops: the name of the data set, and what it has.
    """

    differences: dict[int, float]
    cosines: dict[int, float]
    moved: float
    gap: float
    figures: dict[str, dict[str, float]]
    boxes: float
    terms: float
    tolerance: Tolerance
    crops: str

    @property
    def failures(self) -> list[str]:
        """What is beyond the tolerance, in words."""
        found = [
            f"batch {size}: cosine {cosine:.6f} is below {self.tolerance.cosine}"
            for size, cosine in self.cosines.items()
            if not cosine >= self.tolerance.cosine  # NaN too
        ]
        change = self.figures["exported"]["mAP"] - self.figures["PyTorch"]["mAP"]
        # A model that finds all people alike ranks by rounding, which is another one in each runtime.
        if not abs(change) <= self.tolerance.change and not self.gap <= ROUNDING:
            found.append(f"mAP changes by {change:+.2f} points, allowed are {self.tolerance.change}")
        if not self.boxes <= self.tolerance.boxes:
            found.append(f"a box differs by {self.boxes:.1e} of the image, allowed are {self.tolerance.boxes}")
        return found

    def table(self) -> str:
        rows = [
            [f"batch {size}", f"{self.differences[size]:.1e}", f"{self.cosines[size]:.7f}"] for size in self.differences
        ]
        figures = [[name, f"{values['mAP']:.2f}", f"{values['Rank-1']:.2f}"] for name, values in self.figures.items()]
        regions = (
            f"\nboxes: at most {self.boxes:.1e} of the image apart; regions' vectors: {self.terms:.1e} of the largest"
        )
        return "\n".join(
            [
                tabulate(rows, headers=["features", "largest difference", "least cosine"], disable_numparse=True),
                "",
                tabulate(figures, headers=[self.crops, "mAP, %", "Rank-1, %"], disable_numparse=True),
                "",
                f"rank order: {self.moved:.0%} of the queries have gallery images that change places, at most "
                f"{self.gap:.1e} of distance apart{regions if self.boxes or self.terms else ''}",
            ]
        )


def compare(
    reference: Model, exported: Model, pixels: np.ndarray, crops: Crops, tolerance: Tolerance, *, regions: bool = False
) -> Parity:
    """Compare two models.

    Args:
        reference: the checkpoint, by PyTorch.
        exported: the exported file, by its runtime.
        pixels: (N, 3, H, W) uint8, of the ``crops``.
        regions: compare boxes and regions' vectors too.
    """
    expected, found = (unit(in_batches(model, pixels, max(BATCHES))) for model in (reference, exported))
    differences, cosines = {}, {}
    compared = pixels[:_NUM_COMPARED]
    for size in BATCHES:
        part = unit(in_batches(exported, compared, size))
        differences[size] = float(np.abs(part - expected[: len(part)]).max())
        cosines[size] = float((part * expected[: len(part)]).sum(axis=1).min())
    q = crops.num_queries
    distances = [1 - features[:q] @ features[q:].T for features in (expected, found)]
    moved, gap = _order(*distances)
    boxes, terms = 0.0, 0.0
    if regions:
        boxes, terms = _regions(*(model.describe_pixels(compared) for model in (reference, exported)))
    return Parity(
        differences=differences,
        cosines=cosines,
        moved=moved,
        gap=gap,
        figures={
            name: _figures(crops, distance) for name, distance in zip(("PyTorch", "exported"), distances, strict=True)
        },
        boxes=boxes,
        terms=terms,
        tolerance=tolerance,
        crops=f"{crops.name}, {q} queries, {len(crops.paths) - q} in the gallery",
    )


def _figures(crops: Crops, distances: np.ndarray) -> dict[str, float]:
    # Half precision can overflow, which is a failure like others.
    return crops.figures(distances) if np.isfinite(distances).all() else {"mAP": np.nan, "Rank-1": np.nan}


def _regions(expected: Description, found: Description) -> tuple[float, float]:
    boxes = max(float(np.abs(found.boxes[name] - box).max()) for name, box in expected.boxes.items())
    terms = (np.abs(found.terms[stage] - term).max() / np.abs(term).max() for stage, term in expected.terms.items())
    return boxes, max(map(float, terms))


def in_batches(model: Model, pixels: np.ndarray, size: int) -> np.ndarray:
    """The features (N, D) of ``pixels`` (N, 3, H, W), ``size`` at a time."""
    return np.concatenate([model.embed_pixels(pixels[start : start + size]) for start in range(0, len(pixels), size)])


def unit(features: np.ndarray) -> np.ndarray:
    """Features (N, D) scaled to norm 1, in their own precision."""
    return features / np.linalg.norm(features, axis=1, keepdims=True).clip(min=1e-12)


def _order(expected: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """How the orders of each row of two (Q, G) differ: see :attr:`Parity.moved` and :attr:`Parity.gap`."""
    order = np.argsort(found, axis=1, kind="stable")
    ordered = np.take_along_axis(expected, order, axis=1)
    # Where an image stands behind one that PyTorch has further away, the difference of both distances.
    gaps = (np.maximum.accumulate(ordered, axis=1) - ordered).max(axis=1)
    return float((gaps > 0).mean()), float(gaps.max())
