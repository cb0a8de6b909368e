"""The toolbox's evaluation."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fastreid.evaluation import query_expansion, rank, reid_evaluation, roc
from fastreid.utils import compute_dist

from mgre.compat.patching import Overlay, adapt
from mgre.errors import ConfigError
from mgre.evaluation import ranking
from mgre.evaluation.distances import DistanceRows, cosine_rows, euclidean_rows
from mgre.evaluation.placement import placement

METRICS = ("cosine", "euclidean", "jaccard")


def compile_nothing() -> None:
    """ReidEvaluator compiles no Cython.

    The toolbox's compiles into site-packages when it is made, and ends the process where that fails.
    """

    def make(compile_dependencies: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(compile_dependencies)
        def skipped(evaluator: reid_evaluation.ReidEvaluator) -> None:
            """:mod:`mgre.evaluation.ranking` needs no compiler."""

        return skipped

    adapt(reid_evaluation.ReidEvaluator, "_compile_dependencies", make)


def rank_by_counting() -> None:
    """The Market-1501 protocol by :mod:`mgre.evaluation.ranking`: in seconds without Cython, for any size of gallery.

    The toolbox's Python loop takes minutes, and ReidEvaluator reads ten ranks from it, which smaller galleries lack.
    """

    def make(eval_market1501: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(eval_market1501)
        def ranked(*args: Any, **kwargs: Any) -> tuple[np.ndarray, list[float], list[float]]:
            return ranking.eval_market1501(*args, **kwargs)

        return ranked

    adapt(rank, "eval_market1501", make)
    rank.IS_CYTHON_AVAI = False


def name_bool() -> None:
    """The single-shot CUHK03 protocol says ``np.bool``, which numpy 1.24 to 1.26 do not have."""
    if not hasattr(np, "bool"):
        adapt(rank, "np", lambda original: Overlay(original, bool=np.bool_))


def measure_rows() -> None:
    """Distances by :mod:`mgre.evaluation`: the evaluator gets a block of rows at a time, other callers an array.

    The toolbox's re-ranking holds two arrays of all pairs of images (35 GB each on MSMT17), moves the features to CUDA
    whatever the device, and calls functions which faiss has renamed since.
    """

    def build_rows(
        feat_1: torch.Tensor, feat_2: torch.Tensor, metric: str = "euclidean", k1: int = 20, k2: int = 6, **kwargs: Any
    ) -> DistanceRows:
        if metric not in METRICS:
            raise ConfigError(f"the metric is '{metric}'; allowed: {', '.join(METRICS)}")
        feat_1, feat_2 = (feats.detach().to(placement().device or feats.device) for feats in (feat_1, feat_2))
        if metric == "jaccard":
            from mgre.evaluation.reranking import jaccard_rows  # here, because it imports scipy

            return jaccard_rows(torch.cat((feat_1, feat_2)).float(), len(feat_1), k1=k1, k2=k2)
        return {"cosine": cosine_rows, "euclidean": euclidean_rows}[metric](feat_1, feat_2)

    def make_array(build_dist: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(build_dist)
        def built(*args: Any, **kwargs: Any) -> np.ndarray:
            return np.asarray(build_rows(*args, **kwargs))

        return built

    def make_jaccard(compute_jaccard_distance: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(compute_jaccard_distance)
        def computed(
            features: torch.Tensor, k1: int = 20, k2: int = 6, search_option: int = 0, fp16: bool = False
        ) -> np.ndarray:
            from mgre.evaluation.reranking import compare, encode_images

            encoding = encode_images(features.detach().float(), k1=k1, k2=k2)
            return np.asarray(compare(encoding, encoding), dtype=np.float16 if fp16 else np.float32)

        return computed

    # The evaluator's first, where the toolbox's module of distances is then not replaced any more.
    adapt(reid_evaluation, "build_dist", lambda build_dist: functools.wraps(build_dist)(build_rows))
    adapt(compute_dist, "build_dist", make_array)
    adapt(compute_dist, "compute_jaccard_distance", make_jaccard)


def expand_by_neighbours() -> None:
    """Query expansion without the toolbox's array of all pairs of images."""

    def make(aqe: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(aqe)
        def expanded(
            query_feat: torch.Tensor, gallery_feat: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            from mgre.evaluation.query_expansion import expand  # here, because it imports scipy

            device = placement().device
            query_feat, gallery_feat = (
                query_feat.to(device or query_feat.device),
                gallery_feat.to(device or gallery_feat.device),
            )
            return expand(query_feat, gallery_feat, *args, **kwargs)

        return expanded

    adapt(query_expansion, "aqe", make)


def measure_all_for_roc() -> None:
    """The ROC is made from the whole array of distances, by the toolbox's Python function."""

    def make(evaluate_roc: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(evaluate_roc)
        def evaluated(distmat: np.ndarray | DistanceRows, *args: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
            return evaluate_roc(np.asarray(distmat), *args, **kwargs)

        return evaluated

    adapt(roc, "evaluate_roc", make)


ADAPTATIONS = (
    compile_nothing,
    rank_by_counting,
    name_bool,
    measure_rows,
    expand_by_neighbours,
    measure_all_for_roc,
)
