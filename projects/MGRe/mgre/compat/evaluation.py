"""The toolbox's evaluation."""

import functools
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
from fastreid.evaluation import rank, reid_evaluation
from fastreid.utils import compute_dist

from mgre.compat.patching import Overlay, adapt


def compile_nothing() -> None:
    """ReidEvaluator compiles no Cython.

    The toolbox's compiles into site-packages when it is made, and ends the process where that fails.
    """

    def make(compile_dependencies: Callable) -> Callable:
        @functools.wraps(compile_dependencies)
        def skipped(evaluator: reid_evaluation.ReidEvaluator) -> None:
            """:mod:`mgre.evaluation.ranking` needs no compiler."""

        return skipped

    adapt(reid_evaluation.ReidEvaluator, "_compile_dependencies", make)


def rank_by_counting() -> None:
    """The Market-1501 protocol by :mod:`mgre.evaluation.ranking`: in seconds without Cython, for any size of gallery.

    The toolbox's Python loop takes minutes, and ReidEvaluator reads ten ranks from it, which smaller galleries lack.
    """

    def make(eval_market1501: Callable) -> Callable:
        @functools.wraps(eval_market1501)
        def ranked(*args: Any, **kwargs: Any) -> tuple[np.ndarray, list[float], list[float]]:
            # Not at the top: mgre.evaluation uses the toolbox, which is being adapted when this module is imported.
            from mgre.evaluation.ranking import eval_market1501

            return eval_market1501(*args, **kwargs)

        return ranked

    adapt(rank, "eval_market1501", make)
    rank.IS_CYTHON_AVAI = False


def name_bool() -> None:
    """The single-shot CUHK03 protocol says ``np.bool``, which numpy 1.24 to 1.26 do not have."""
    if not hasattr(np, "bool"):
        adapt(rank, "np", lambda original: Overlay(original, bool=np.bool_))


def _has_gpu_search() -> bool:
    return torch.cuda.is_available() and hasattr(faiss, "bruteForceKnn") and hasattr(faiss, "cast_integer_to_long_ptr")


def search_without_gpu() -> None:
    """Re-ranking by the toolbox's own exact search on the CPU where its search on the GPU cannot run.

    That one moves features to CUDA whatever the device, and calls functions which faiss has renamed since. Besides, no
    more neighbours are searched than there are images: faiss numbers the others -1, which the toolbox takes for the
    last image.
    """

    def make(compute_jaccard_distance: Callable) -> Callable:
        @functools.wraps(compute_jaccard_distance)
        def computed(
            features: torch.Tensor, k1: int = 20, k2: int = 6, search_option: int = 0, fp16: bool = False
        ) -> np.ndarray:
            option = search_option if _has_gpu_search() else 3
            num_images = features.shape[0]
            return compute_jaccard_distance(features, min(k1, num_images), min(k2, num_images), option, fp16)

        return computed

    adapt(compute_dist, "compute_jaccard_distance", make)


ADAPTATIONS = (compile_nothing, rank_by_counting, name_bool, search_without_gpu)
