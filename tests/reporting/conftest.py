"""Evaluations that are made up, of images that are one colour each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mgre.evaluation.evaluator import Evaluation
from mgre.evaluation.ranking import eval_market1501, noting
from mgre.record import ModelRecord
from mgre.reporting.report import Subject
from PIL import Image

QUERY_COLOR, GALLERY_COLOR = (200, 0, 200), (0, 120, 200)


def rank(distances: np.ndarray, *labels: np.ndarray):
    with noting() as notes:
        cmc, precisions, penalties = eval_market1501(distances, *labels)
    metrics = {f"Rank-{rank}": 100 * cmc[rank - 1] for rank in (1, 5, 10)}
    return notes[0], metrics | {"mAP": 100 * np.mean(precisions), "mINP": 100 * np.mean(penalties)}


@pytest.fixture
def make_evaluation(tmp_path: Path) -> Callable[..., Evaluation]:
    """Make an evaluation of given distances (Q, G), with identities and cameras."""

    def make(distances, q_pids, g_pids, q_camids, g_camids, *, reranked=None, query_names=None) -> Evaluation:
        labels = [np.array(values) for values in (q_pids, g_pids, q_camids, g_camids)]
        names = query_names or [f"q{number}.png" for number in range(len(q_pids))]
        paths = {"query": names, "gallery": [f"g{number}.png" for number in range(len(g_pids))]}
        for split, color in (("query", QUERY_COLOR), ("gallery", GALLERY_COLOR)):
            (tmp_path / split).mkdir(exist_ok=True)
            for name in paths[split]:
                Image.new("RGB", (16, 32), color).save(tmp_path / split / name)
        orders, metrics = {}, {}
        for name, given in (("plain", distances), ("re-ranked", reranked)):
            if given is not None:
                orders[name], metrics[name] = rank(np.array(given, dtype=np.float32), *labels)
        query, gallery = ([str(tmp_path / split / name) for name in paths[split]] for split in ("query", "gallery"))
        return Evaluation(query, gallery, orders, metrics, "Drawn", {"IoU/head": 0.5, "IoU/mean": 0.5})

    return make


@pytest.fixture
def small_evaluation(make_evaluation: Callable[..., Evaluation]) -> Callable[..., Evaluation]:
    """Four queries of four identities, in two cameras, and sixteen gallery images, four of each, in both cameras."""

    def make(**options) -> Evaluation:
        rng = np.random.default_rng(3)
        g_pids = np.repeat([1, 2, 3, 4], 4)
        distances = rng.uniform(0.2, 1, (4, 16)) - 0.3 * (np.array([1, 2, 3, 4])[:, None] == g_pids)
        if options.pop("rerank", False):
            options["reranked"] = 0.9 * distances
        return make_evaluation(distances, [1, 2, 3, 4], g_pids, [0, 0, 1, 1], [0, 1] * 8, **options)

    return make


@pytest.fixture
def subject() -> Subject:
    record = ModelRecord("MGRe", (96, 48), None, (0, 0, 0), (1, 1, 1), "", regions={"stage1": ["head"]})
    return Subject("model.pth", record, "TEST:\n  METRIC: cosine\n", "cosine", "CPU")
