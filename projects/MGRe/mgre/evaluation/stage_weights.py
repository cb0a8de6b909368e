"""The choice of lambda_1^F .. lambda_4^F, Eq. (6), from the distances of the stages' features (Fig. 6).

A final feature is made of unit features u_i = f_i / |f_i|, so |F|^2 = sum_i l_i^2, and the cosine distance of two final
features is a weighted mean of the stages' own:

    1 - F . F' / (|F| |F'|) = sum_i p_i (1 - u_i . u_i'),    p_i = l_i^2 / sum_j l_j^2.

The stages' distances are computed once; each weight vector then costs a sum and a ranking, and no inference. The
ranking is the plain one, without the toolbox's flip, query expansion and re-ranking. TEST.METRIC euclidean gives the
same ranking, because all |F| are equal.

Legend: S stages that are built, Q queries, G gallery images. Weights are the l_i of these stages, in their order.
"""

import csv
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
import yaml
from fastreid.evaluation.evaluator import inference_context
from torch.utils.data import DataLoader
from tqdm import tqdm

from mgre.config.shipped import SCHEME
from mgre.data.unreadable import count_readable_queries
from mgre.errors import ConfigError
from mgre.evaluation.distances import DistanceRows, cosine_rows
from mgre.evaluation.ranking import eval_market1501
from mgre.modeling import MGRe
from mgre.system.files import write_atomically
from mgre.visualization import new_figure

Weights = tuple[float, ...]
Score = Callable[[Weights], float]

# The paper's choice, lambda_1^F to lambda_4^F.
PAPER_WEIGHTS = {"stage1": 0.35, "stage2": 0.5, "stage3": 0.7, "stage4": 0.8}


@dataclass(frozen=True)
class StageDistances:
    """The cosine distances of all queries and gallery images by each stage's features.

    Attributes:
        by_stage: (Q, G) float32 for each of the S stages.
        q_pids, g_pids, q_camids, g_camids: (Q,), (G,), identities and cameras.
    """

    by_stage: Mapping[str, np.ndarray]
    q_pids: np.ndarray
    g_pids: np.ndarray
    q_camids: np.ndarray
    g_camids: np.ndarray

    def combine(self, weights: Sequence[float]) -> DistanceRows:
        """The cosine distances of final features with these weights; at least one weight is not 0."""
        shares = np.square(weights) / np.square(weights).sum()
        terms = [_rows(stage) * share for stage, share in zip(self.by_stage.values(), shares, strict=True) if share]
        return reduce(add, terms)

    def mean_precision(self, weights: Sequence[float]) -> float:
        """mAP in [0, 1] of final features with these weights.

        Raises:
            DataError: no query has a match, or a distance is not a number.
        """
        labels = (self.q_pids, self.g_pids, self.q_camids, self.g_camids)
        return float(np.mean(eval_market1501(self.combine(weights), *labels)[1]))


def _rows(distances: np.ndarray) -> DistanceRows:
    # A copy, because DistanceRows changes blocks in place.
    return DistanceRows(distances.shape, lambda start, stop: distances[start:stop].copy())


@torch.no_grad()
def measure_stages(model: MGRe, loader: DataLoader[Any], num_query: int) -> StageDistances:
    """One inference pass over the test images, and the distances of each stage.

    The memory is that of S arrays (Q, G) in float32.

    Args:
        model: an MGRe of two or more stages.
        loader, num_query: of :func:`mgre.data.build_test_loader`, in one process.

    Raises:
        ConfigError: the final feature is made of one stage's, so there is nothing to weigh.
        DataError: an image cannot be read, with DATASETS.UNREADABLE_IMAGES stop; or none can.
    """
    features: dict[str, list[torch.Tensor]] = defaultdict(list)
    labels: dict[str, list[torch.Tensor]] = {"targets": [], "camids": []}

    def keep(heads: torch.nn.Module, inputs: tuple[Any, ...], outputs: dict[str, torch.Tensor]) -> None:
        for stage, feature in outputs.items():
            features[stage].append(feature.float().cpu())

    # In evaluation the outputs of the heads are the features f_i of Eq. (6).
    handle = model.heads.register_forward_hook(keep)
    try:
        with inference_context(model):
            for batch in tqdm(loader, desc="features", unit="batch", disable=None):
                if not batch:  # none of its images can be read
                    continue
                model(batch)
                for key, values in labels.items():
                    values.append(batch[key].cpu())  # the loader may have put them on a GPU
    finally:
        handle.remove()
    num_query = count_readable_queries(loader.dataset, num_query)
    if len(features) < 2:
        raise ConfigError(
            f"the model's final feature is that of {', '.join(features)} alone: there are no weights to choose; "
            "MODEL.MGRE.STAGES adds stages"
        )
    pids, camids = (torch.cat(labels[key]).numpy() for key in ("targets", "camids"))
    by_stage = {}
    for stage in list(features):
        whole = torch.cat(features.pop(stage))
        by_stage[stage] = np.asarray(cosine_rows(whole[:num_query], whole[num_query:]))
    return StageDistances(by_stage, pids[:num_query], pids[num_query:], camids[:num_query], camids[num_query:])


def make_grid(step: float) -> Weights:
    """0, ``step``, 2 ``step``, ... up to 1."""
    return tuple(round(number * step, 6) for number in range(int(1 / step + 1e-9) + 1))


def variants(weights: Weights, index: int, grid: Iterable[float]) -> list[Weights]:
    """``weights`` with each value of ``grid`` at ``index``. The last weight is never 0, as the config demands."""
    is_last = index == len(weights) - 1
    return [(*weights[:index], value, *weights[index + 1 :]) for value in grid if value > 0 or not is_last]


def climb(score: Score, start: Weights, grid: Sequence[float]) -> Weights:
    """Coordinate ascent: each weight in turn takes its best value, the others fixed, until no weight can gain.

    A weight changes only for a better score, and takes the least of equally good values. So the score never falls, and
    the result is reproducible.
    """
    best, before = start, None
    while best != before:
        before = best
        for index in range(len(best)):
            # max takes the first of equal scores: the present weights, then the least value.
            best = max([best, *variants(best, index, grid)], key=score)
    return best


def search(score: Score, starts: Iterable[Weights], grid: Sequence[float]) -> Weights:
    """The best result of :func:`climb` from all starts; the first of equal scores."""
    return max([climb(score, start, grid) for start in starts], key=score)


# -- Results ----------------------------------------------------------------------------------------


def write_scores(path: str, stages: Sequence[str], rows: Iterable[tuple[str, Weights, float]]) -> None:
    """Write a CSV with a name, the weights and the mAP (in %) of each row (name, weights, mAP in [0, 1])."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *(_symbol(stage) for stage in stages), "mAP"])
        writer.writerows([name, *weights, f"{100 * score:.4f}"] for name, weights, score in rows)


def plot_curves(
    path: str, curves: Mapping[str, Sequence[tuple[float, float]]], fixed: Mapping[str, float], *, title: str = ""
) -> None:
    """Draw the paper's Fig. 6: mAP against each weight, the others fixed.

    Args:
        path: the picture.
        curves: by stage, (weight, mAP in [0, 1]).
        fixed: by stage, the weight while the other weights vary; marked on its curve, if the curve has this weight.
        title: of the picture.

    Raises:
        SetupError: matplotlib is not installed.
    """
    figure = new_figure(figsize=(6, 4))
    axes = figure.subplots()
    for stage, points in curves.items():
        values, scores = zip(*points, strict=True)
        marked = [number for number, value in enumerate(values) if value == fixed[stage]]
        number = stage.removeprefix("stage")
        axes.plot(values, [100 * score for score in scores], "-o", markevery=marked, label=rf"$\lambda_{number}^F$")
    axes.set(xlabel="weight, the others fixed", ylabel="mAP, %", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def write_config(path: str, base: str, stage_weights: Sequence[float], comment: str) -> None:
    """Write the config that sets MODEL.MGRE.STAGE_WEIGHTS to the four ``stage_weights`` on top of the file ``base``."""
    content = {
        "_BASE_": base if base.startswith(SCHEME) else os.path.relpath(base, os.path.dirname(path) or "."),
        "MODEL": {"MGRE": {"STAGE_WEIGHTS": list(stage_weights)}},
    }
    with write_atomically(path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        file.write(f"# {comment}\n{yaml.safe_dump(content, default_flow_style=None, sort_keys=False)}")


def _symbol(stage: str) -> str:
    return f"lambda_{stage.removeprefix('stage')}"
